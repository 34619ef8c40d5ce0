import errno
import gc
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from datamill.errors import DataError
from datamill.shards import remote
from datamill.shards.index import Field
from datamill.shards.integrity import EDGE_BYTES
from datamill.shards.native import Shard
from datamill.shards.remote import open_remote
from datamill.shards.writing import ShardWriter

ROWS = 1000  # bytes of a segment
URL = "flaky://bucket/train"


class Flaky(MemoryFileSystem):  # type: ignore[misc]
    """A store that spoils some of the files that are opened, in order; ``""`` spoils nothing."""

    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    faults: ClassVar[list[str]] = []
    opened: ClassVar[list[str]] = []
    cut_indexes: ClassVar[int] = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("flaky://")))

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if mode != "rb":
            return super()._open(path, mode, **kwargs)
        content = super()._open(path, mode, **kwargs).getvalue()
        if path.endswith("index.json"):
            is_cut = self.cut_indexes > 0
            type(self).cut_indexes -= is_cut
            return Trickle(content[:200] if is_cut else content)
        self.opened.append(path.rpartition("/")[2])
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "timeout":
            raise TimeoutError
        if fault == "own error":
            raise RuntimeError("SlowDown")
        if fault == "half":
            return io.BytesIO(content[: len(content) // 2])
        if fault == "longer":
            return io.BytesIO(content + b"x")
        if fault == "altered":
            return io.BytesIO(bytes([content[0] ^ 1]) + content[1:])
        return Trickle(content)


class Trickle(io.BytesIO):
    """Gives 100 bytes at a time, as sockets do."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(100 if size is None or size < 0 else min(size, 100))


@pytest.fixture(autouse=True)
def _stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    monkeypatch.setattr(remote, "WAIT_S", 0.001)
    monkeypatch.setattr(remote, "DOWNLOADS", 1)
    for known in (Flaky.store, Flaky.faults, Flaky.opened):
        known.clear()
    yield
    fsspec.filesystem("memory").store.clear()


def upload(folder: Path, *, url: str = URL, keys: str = "123", rows: int = ROWS) -> str:
    """A shard of segments of 1,000 bytes or of ``rows``, each full of its key."""
    with ShardWriter(folder, split="train", fields={"x": Field.array("uint8", (10,))}) as writer:
        for key in keys:
            writer.next_segment("x", key=key)
            writer.write({"x": np.full((rows // 10, 10), int(key, 16), np.uint8)})
    filesystem, root = fsspec.core.url_to_fs(url)
    filesystem.makedirs(root, exist_ok=True)
    for file in folder.iterdir():
        filesystem.pipe_file(f"{root}/{file.name}", file.read_bytes())
    return url


def column(shard: Shard) -> str:
    return "".join(f"{value:x}" for value in np.asarray(shard.x)[:: ROWS // 10, 0])


def num_files(cache: Path) -> int:
    return len(list(cache.glob("*.bin")))


@pytest.mark.parametrize("url", ["memory://bucket/train", URL, "file://{}/up/train/"])
def test_a_shard_at_a_url_reads_like_a_local_one(tmp_path: Path, url: str) -> None:
    where = upload(tmp_path / "made", url=url.format(tmp_path))
    shard = open_remote(where, cache=tmp_path / "cache", verify=True)
    assert (shard.num_rows, column(shard)) == (300, "123")


def test_files_that_are_here_are_not_fetched_again(tmp_path: Path) -> None:
    upload(tmp_path / "made")
    for _ in range(2):
        open_remote(URL, cache=tmp_path / "cache")
    assert Flaky.opened == ["x-1.bin", "x-2.bin", "x-3.bin"]


def test_the_next_version_fetches_changed_segments_only(tmp_path: Path) -> None:
    upload(tmp_path / "made")
    first = open_remote(URL, cache=tmp_path / "cache")
    upload(tmp_path / "next", keys="143")
    Flaky.opened.clear()
    assert column(open_remote(URL, cache=tmp_path / "cache")) == "143"
    assert Flaky.opened == ["x-4.bin"]
    assert column(first) == "123"


def test_equal_segments_are_one_file(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "made", split="train", fields={"x": Field.array("uint8", (10,))}) as writer:
        for key in "ab":
            writer.next_segment("x", key=key)
            writer.write({"x": np.ones((5, 10), np.uint8)})
    shard = open_remote(f"file://{tmp_path}/made", cache=tmp_path / "cache")
    assert np.asarray(shard.x).shape == (10, 10)
    assert num_files(tmp_path / "cache") == 1


def test_files_opened_longest_ago_make_room(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    upload(tmp_path / "a", url="flaky://bucket/a", keys="1")
    upload(tmp_path / "b", url="flaky://bucket/b", keys="2")
    upload(tmp_path / "c", url="flaky://bucket/c", keys="3")
    for name in "abac":  # c takes the place of b, which was opened before a was opened again
        open_remote(f"flaky://bucket/{name}", cache=cache, cache_bytes=2 * ROWS)
        gc.collect()
    Flaky.opened.clear()
    assert num_files(cache) == 2
    for name in "ac":
        open_remote(f"flaky://bucket/{name}", cache=cache, cache_bytes=2 * ROWS)
    assert Flaky.opened == []


def test_files_of_an_open_shard_are_never_evicted(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    upload(tmp_path / "a", url="flaky://bucket/a", keys="1")
    upload(tmp_path / "b", url="flaky://bucket/b", keys="2")
    shard = open_remote("flaky://bucket/a", cache=cache, cache_bytes=ROWS)
    message = r"bucket/b: its files and those of other open shards need 2000 bytes, the cache .* may hold 1000; raise"
    with pytest.raises(DataError, match=message):
        open_remote("flaky://bucket/b", cache=cache, cache_bytes=ROWS)
    shard.check_unchanged()
    del shard
    gc.collect()
    assert column(open_remote("flaky://bucket/b", cache=cache, cache_bytes=ROWS)) == "2"
    assert num_files(cache) == 1


def test_files_that_another_process_has_open_are_not_evicted(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    upload(tmp_path / "a", url=f"file://{tmp_path}/up/a", keys="1")
    upload(tmp_path / "b", url="flaky://bucket/b", keys="2")
    code = (
        "import sys; from pathlib import Path; from datamill.shards.remote import open_remote; "
        f"shard = open_remote('file://{tmp_path}/up/a', cache=Path({str(cache)!r})); print('open', flush=True); input()"
    )
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(DataError, match="raise cache_bytes"):
            open_remote("flaky://bucket/b", cache=cache, cache_bytes=ROWS)
        process.communicate("\n")
    assert column(open_remote("flaky://bucket/b", cache=cache, cache_bytes=ROWS)) == "2"


@pytest.mark.parametrize("fault", ["timeout", "half", "longer", "altered", "own error"])
def test_a_fault_is_tried_again(tmp_path: Path, fault: str) -> None:
    upload(tmp_path / "made")
    Flaky.faults[:] = [fault, fault, ""]
    assert column(open_remote(URL, cache=tmp_path / "cache")) == "123"
    assert Flaky.opened == ["x-1.bin"] * 3 + ["x-2.bin", "x-3.bin"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("timeout", "TimeoutError"),
        ("half", "only 500 of 1000 bytes came"),
        ("longer", "it has more than the 1000 bytes that the index says"),
        ("altered", "block 0 came with CRC-32 [0-9a-f]{8}, the index says [0-9a-f]{8}"),
        ("own error", "SlowDown"),
    ],
)
def test_a_fault_that_stays_is_one_clear_error(tmp_path: Path, fault: str, reason: str) -> None:
    upload(tmp_path / "made", keys="1")
    Flaky.faults[:] = [fault] * 4
    message = rf"flaky://bucket/train/x-1\.bin: 1000 bytes could not be fetched in 4 attempts: {reason}; check the conn"
    with pytest.raises(DataError, match=message):
        open_remote(URL, cache=tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_file()] == [".lock"]
    assert column(open_remote(URL, cache=tmp_path / "cache")) == "1"


def test_what_is_missing_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"flaky://bucket/train/index\.json is missing"):
        open_remote(URL, cache=tmp_path / "cache")
    upload(tmp_path / "made")
    fsspec.filesystem("flaky").rm_file("/bucket/train/x-2.bin")
    with pytest.raises(DataError, match=r"flaky://bucket/train/x-2\.bin is missing"):
        open_remote(URL, cache=tmp_path / "cache")


def test_a_hostile_index_at_a_url_is_refused(tmp_path: Path) -> None:
    upload(tmp_path / "made")
    fsspec.filesystem("flaky").pipe_file("/bucket/train/index.json", b'{"version": 2}')
    with pytest.raises(DataError, match=r"flaky://bucket/train/index\.json is damaged"):
        open_remote(URL, cache=tmp_path / "cache")


def test_half_an_index_is_fetched_again(tmp_path: Path) -> None:
    upload(tmp_path / "made")
    Flaky.cut_indexes = 2
    assert column(open_remote(URL, cache=tmp_path / "cache")) == "123"
    assert Flaky.cut_indexes == 0


def test_one_shard_at_two_urls_is_pinned_twice(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = open_remote(upload(tmp_path / "a", url="flaky://bucket/a", keys="1"), cache=cache, cache_bytes=2 * ROWS)
    second = open_remote(upload(tmp_path / "b", url="flaky://bucket/b", keys="1"), cache=cache, cache_bytes=2 * ROWS)
    assert first.fingerprint == second.fingerprint
    with pytest.raises(DataError, match="raise cache_bytes"):
        open_remote(upload(tmp_path / "c", url="flaky://bucket/c", keys="3"), cache=cache, cache_bytes=2 * ROWS)


def test_what_was_cut_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    upload(tmp_path / "made", keys="1")
    open_remote(URL, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*.bin")
    file.write_bytes(b"\x01" * (ROWS - 1))
    assert column(open_remote(URL, cache=tmp_path / "cache")) == "1"


def test_damage_in_the_cache_is_told_once_and_then_fetched_again(tmp_path: Path) -> None:
    upload(tmp_path / "made", keys="1", rows=20_000)
    open_remote(URL, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*.bin")
    content = bytearray(file.read_bytes())
    content[EDGE_BYTES] ^= 1  # the first byte that is not probed
    file.write_bytes(content)
    damaged = open_remote(URL, cache=tmp_path / "cache")
    with pytest.raises(DataError, match=f"{file.name} was altered: .*; open the shard again, which fetches the file"):
        damaged.verify()
    again = open_remote(URL, cache=tmp_path / "cache", verify=True)
    assert set(column(again)) == {"1"}


def test_a_full_disk_is_not_taken_for_a_fault_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    upload(tmp_path / "made")
    monkeypatch.setattr(remote, "_copy", full)
    with pytest.raises(OSError, match="No space left on device"):
        open_remote(URL, cache=tmp_path / "cache")
    assert len(Flaky.opened) <= 3
    assert num_files(tmp_path / "cache") == 0


def test_leftovers_of_a_killed_download_are_cleared(tmp_path: Path) -> None:
    upload(tmp_path / "made")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/.partial-0.bin").write_bytes(b"half")
    open_remote(URL, cache=tmp_path / "cache")
    assert not (tmp_path / "cache/.partial-0.bin").exists()


def test_a_protocol_that_is_not_installed_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere://bucket/train cannot be opened: .*; install the fsspec package"):
        open_remote("nowhere://bucket/train", cache=tmp_path / "cache")


@pytest.mark.parametrize("downloads", [1, 8])
def test_many_files_are_fetched_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, downloads: int) -> None:
    monkeypatch.setattr(remote, "DOWNLOADS", downloads)
    upload(tmp_path / "made", keys="123456789abc")
    assert column(open_remote(URL, cache=tmp_path / "cache")) == "123456789abc"


def test_a_fault_in_one_file_leaves_the_others_for_the_next_attempt(tmp_path: Path) -> None:
    upload(tmp_path / "made")
    Flaky.faults[:] = ["", *["timeout"] * 4]
    with pytest.raises(DataError, match=r"x-2\.bin: 1000 bytes could not be fetched"):
        open_remote(URL, cache=tmp_path / "cache")
    assert num_files(tmp_path / "cache") >= 1
    Flaky.opened.clear()
    open_remote(URL, cache=tmp_path / "cache")
    assert "x-1.bin" not in Flaky.opened
