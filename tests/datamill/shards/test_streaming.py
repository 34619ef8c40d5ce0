import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import cv2
import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from datamill.errors import DataError, ParamsError
from datamill.shards import remote, streaming, writing
from datamill.shards.decoding import Decode
from datamill.shards.entries import Field
from datamill.shards.loader import ShardLoader
from datamill.shards.native import Shard, open_shard
from datamill.shards.remote import open_remote
from datamill.shards.streaming import Block, Budget, Stream
from datamill.shards.writing import ShardWriter
from tests.datamill.shards.test_lives import forked

BLOCK = 4096  # bytes under one checksum
URL = "far://bucket/train"
NUM_ROWS = 600


class Far(MemoryFileSystem):  # type: ignore[misc]
    """A store that counts the ranges it gives, and spoils some, in order; ``""`` spoils nothing."""

    protocol = "far"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    faults: ClassVar[list[str]] = []
    ranges: ClassVar[list[tuple[str, int]]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("far://")))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        content = bytes(super().cat_file(path, start=start, end=end, **kwargs))
        if start is not None:
            self.ranges.append((path.rpartition("/")[2], start))
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "timeout":
            raise TimeoutError
        if fault == "half":
            return content[: len(content) // 2]
        if fault == "altered":
            return bytes([content[0] ^ 1]) + content[1:]
        return content


@pytest.fixture(autouse=True)
def _store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    fsspec.register_implementation("far", Far, clobber=True)
    monkeypatch.setattr(remote, "WAIT_S", 0.001)
    monkeypatch.setattr(writing, "BLOCK_BYTES", BLOCK)
    for known in (Far.store, Far.faults, Far.ranges):
        known.clear()
    yield
    Far.store.clear()


def png(value: int) -> bytes:
    return bytes(cv2.imencode(".png", np.full((8, 8, 3), value, np.uint8))[1])


def upload(folder: Path) -> Path:
    """Rows of 100 bytes, token runs and pictures, with labels, in segments of 200 rows."""
    rng = np.random.default_rng(0)
    fields = {
        "x": Field.array("uint8", (100,)),
        "tokens": Field.ragged("int32"),
        "picture": Field.bytes(),
        "label": Field.array("int32"),
    }
    with ShardWriter(folder, split="train", fields=fields) as writer:
        for start in range(0, NUM_ROWS, 200):
            for name in fields:
                writer.next_segment(name, key=f"{start:x}")
            writer.write(
                {
                    "x": rng.integers(0, 255, (200, 100), np.uint8),
                    "tokens": [np.arange(row % 40, dtype=np.int32) + row for row in range(start, start + 200)],
                    "picture": [png(row % 250) for row in range(start, start + 200)],
                    "label": np.arange(start, start + 200, dtype=np.int32),
                }
            )
    return put(folder)


def put(folder: Path) -> Path:
    filesystem = fsspec.filesystem("far")
    filesystem.makedirs("/bucket/train", exist_ok=True)
    for file in folder.iterdir():
        filesystem.pipe_file(f"/bucket/train/{file.name}", file.read_bytes())
    return folder


def streamed(tmp_path: Path, *, cache_bytes: int = 20 * BLOCK) -> Shard:
    return open_remote(URL, cache=tmp_path / "cache", cache_bytes=cache_bytes)


def disk_bytes(shard: Shard) -> int:
    """What the sparse files of a shard take."""
    streams = [field.guard for field in shard.fields.values() if isinstance(field.guard, Stream)]
    return sum(os.fstat(stream._descriptor).st_blocks * 512 for stream in streams)


def batches(source: Shard, **options: Any) -> list[dict[str, np.ndarray]]:
    options = {"order": "blocks", "batch_size": 16, "seed": 3, "verify": "open", "copy": True, **options}
    loader = ShardLoader(source, decode={"picture": Decode(8, 8)}, **options)
    return [{name: np.asarray(value) for name, value in batch.items()} for batch in loader]


@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize("order", ["blocks", "sequential"])
def test_a_shard_larger_than_the_cache_gives_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int, order: str
) -> None:
    monkeypatch.setattr("datamill.shards.loader.RUN_BYTES", 2000)
    monkeypatch.setattr("datamill.shards.order.WINDOW", 2)
    here = open_shard(upload(tmp_path / "made"))
    there = streamed(tmp_path)
    assert [there.is_streamed(name) for name in ("x", "tokens", "picture", "label")] == [True, True, True, False]
    wanted = batches(here, order=order)
    found = batches(there, order=order, num_workers=num_workers)
    assert len(found) == len(wanted) == 38
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_what_is_here_stays_below_the_limit(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "made", split="train", fields={"x": Field.array("uint8", (BLOCK,))}) as writer:
        writer.write({"x": np.ones((30, BLOCK), np.uint8)})
    put(tmp_path / "made")
    shard = streamed(tmp_path, cache_bytes=9 * BLOCK)
    found = []
    for start in range(0, 30, 2):
        assert (shard.x[start : start + 2] == 1).all()
        found.append(disk_bytes(shard) // BLOCK)
    assert found == [2, 4, 6, 8, *[9] * 11]


def test_a_block_that_is_here_is_not_fetched_again(tmp_path: Path) -> None:
    upload(tmp_path / "made")
    shard = streamed(tmp_path)
    first = shard.x[5]
    count = len(Far.ranges)
    assert np.array_equal(shard.x[5], first)
    assert (count, len(Far.ranges)) == (1, 1)


def test_rows_that_were_read_stay_what_they_are_when_their_block_has_gone(tmp_path: Path) -> None:
    here = open_shard(upload(tmp_path / "made"))
    shard = streamed(tmp_path, cache_bytes=12 * BLOCK)
    early = shard.x[0:40]
    for start in range(0, NUM_ROWS, 40):
        _ = shard.x[start : start + 40]
    assert np.array_equal(early, here.x[0:40])
    assert np.array_equal(shard.x[0:40], early)
    assert Far.ranges.count(("x-0.bin", 0)) == 2


def test_all_rows_at_once_are_refused(tmp_path: Path) -> None:
    upload(tmp_path / "made")
    shard = streamed(tmp_path)
    assert shard.label.sum() == sum(range(NUM_ROWS))
    with pytest.raises(DataError, match="the 600 rows of this field are larger than the cache"):
        np.asarray(shard.x)


def test_a_random_order_is_refused(tmp_path: Path) -> None:
    upload(tmp_path / "made")
    shard = streamed(tmp_path)
    with pytest.raises(
        ParamsError, match=r"order is 'random', but x, tokens, picture of .* larger than its cache.*'blocks'"
    ):
        ShardLoader(shard)
    assert len(next(iter(ShardLoader(shard, fields=["label"], batch_size=600)))["label"]) == 600


def test_rows_that_need_more_blocks_than_the_cache_may_hold_are_refused(tmp_path: Path) -> None:
    upload(tmp_path / "made")
    shard = streamed(tmp_path, cache_bytes=12 * BLOCK)
    message = (
        r"far://bucket/train: the rows that are wanted at once lie in blocks of 60000 bytes, the cache has \d+ for"
    )
    with pytest.raises(DataError, match=message):
        _ = shard.x[0:600]
    assert shard.x[0:20].shape == (20, 100)


@pytest.mark.parametrize("fault", ["timeout", "half", "altered"])
def test_a_fault_is_tried_again(tmp_path: Path, fault: str) -> None:
    here = open_shard(upload(tmp_path / "made"))
    shard = streamed(tmp_path)
    Far.faults[:] = [fault, fault]
    assert np.array_equal(shard.x[7], here.x[7])
    assert len(Far.ranges) == 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("timeout", "TimeoutError"),
        ("half", "only 6144 of 20000 bytes came"),
        ("altered", "block 1 came with CRC-32 [0-9a-f]{8}, the index says [0-9a-f]{8}"),
    ],
)
def test_a_fault_that_stays_is_one_clear_error_and_nothing_wrong_is_kept(
    tmp_path: Path, fault: str, reason: str
) -> None:
    here = open_shard(upload(tmp_path / "made"))
    shard = streamed(tmp_path)
    Far.faults[:] = [fault] * 4
    message = rf"train/x-0\.bin from byte 4096: 4096 bytes could not be fetched in 4 attempts: {reason}; check the conn"
    with pytest.raises(DataError, match=message):
        _ = shard.x[50]
    assert np.array_equal(shard.x[50], here.x[50])


def test_another_version_in_the_same_place_is_an_error_and_never_other_data(tmp_path: Path) -> None:
    upload(tmp_path / "made")
    shard = streamed(tmp_path)
    _ = shard.x[0]
    filesystem = fsspec.filesystem("far")
    content = bytes(filesystem.cat_file("/bucket/train/x-0.bin"))
    filesystem.pipe_file("/bucket/train/x-0.bin", content[::-1])
    with pytest.raises(DataError, match="block 3 came with CRC-32"):
        _ = shard.x[150]


def test_every_block_can_be_verified(tmp_path: Path) -> None:
    upload(tmp_path / "made")
    open_remote(URL, cache=tmp_path / "cache", cache_bytes=20 * BLOCK, verify=True)
    assert {start for name, start in Far.ranges if name == "x-0.bin"} == {0, 4096, 8192, 12288, 16384}
    content = bytes(fsspec.filesystem("far").cat_file("/bucket/train/x-c8.bin"))
    fsspec.filesystem("far").pipe_file("/bucket/train/x-c8.bin", content[:-1] + bytes([content[-1] ^ 4]))
    with pytest.raises(DataError, match="block 4 came with CRC-32"):
        open_remote(URL, cache=tmp_path / "cache", cache_bytes=20 * BLOCK, verify=True)


def test_a_full_disk_is_said_and_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    upload(tmp_path / "made")
    shard = streamed(tmp_path)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DataError, match=f"{tmp_path}/cache cannot hold .* No space left on device; make room"):
        _ = shard.x[0]


def test_a_file_system_that_gives_no_space_back_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(tmp_path / "made")
    monkeypatch.setattr(streaming, "_fallocate", lambda *_: errno.EOPNOTSUPP)
    with pytest.raises(DataError, match=r"cache gives no space back .*raise cache_bytes, or put the cache on ext4"):
        streamed(tmp_path)


def test_a_forked_child_cannot_take_blocks_from_under_its_parent(tmp_path: Path) -> None:
    upload(tmp_path / "made")
    shard = streamed(tmp_path)
    expected = batches(shard, order="sequential")
    told = forked(lambda: batches(shard, order="sequential"))
    assert told.startswith("DataError: ")
    assert "a forked process cannot share a cache; open the shard in each process" in told
    assert [one["row"].tolist() for one in batches(shard, order="sequential")] == [
        one["row"].tolist() for one in expected
    ]


@pytest.fixture
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


class Counted:
    """Stands for a stream; knows which of its blocks are here."""

    def __init__(self) -> None:
        self.here: set[Block] = set()
        self.most = 0
        self.is_away = False
        self.lock = threading.Lock()

    def bring(self, block: Block) -> None:
        with self.lock:
            if self.is_away:
                raise DataError("away")
            assert block not in self.here
            self.here.add(block)
            self.most = max(self.most, len(self.here))

    def drop(self, block: Block) -> None:
        with self.lock:
            self.here.discard(block)


def test_threads_share_a_budget_without_losing_a_block_they_hold(pool: Executor) -> None:
    counted = Counted()
    blocks = [Block(counted, 0, start, 1) for start in range(30)]  # type: ignore[arg-type]
    budget = Budget(9, name="shard", pool=pool)
    faults: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(300):
                chosen = [blocks[place] for place in rng.choice(30, rng.integers(1, 6), replace=False)]
                with budget.holding(chosen):
                    assert set(chosen) <= counted.here
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            faults.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert faults == []
    assert counted.most == 9


def test_a_block_whose_fetching_failed_for_one_is_fetched_by_the_next(pool: Executor) -> None:
    counted = Counted()
    block = Block(counted, 0, 0, 1)  # type: ignore[arg-type]
    budget = Budget(1, name="shard", pool=pool)

    counted.is_away = True
    with pytest.raises(DataError, match="away"), budget.holding([block]):
        raise AssertionError
    counted.is_away = False
    with budget.holding([block]):
        assert counted.here == {block}


def test_what_one_thread_holds_already_counts_and_is_never_waited_for(pool: Executor) -> None:
    counted = Counted()
    budget = Budget(2, name="shard", pool=pool)
    first, *others = (Block(counted, 0, start, 1) for start in range(3))  # type: ignore[arg-type]
    message = "blocks of 2 bytes, the cache has 2"
    with budget.holding([first]), pytest.raises(DataError, match=message), budget.holding(others):
        raise AssertionError
