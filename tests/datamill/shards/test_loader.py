import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamill.errors import DataError, ParamsError, StageError
from datamill.shards import Field, ShardLoader, ShardWriter, loader, prefetching, writing
from datamill.shards.batching import Buckets
from datamill.shards.native import memory_shard
from datamill.shards.windows import Window

NUM_ROWS = 50
FIELDS = {
    "x": Field.array("uint8", (2, 2, 3)),
    "label": Field.array("int32"),
    "tokens": Field.ragged("int32"),
    "note": Field.bytes(),
    "sample_id": Field.array("uint8", (16,)),
}


def content(num_rows: int = NUM_ROWS, *, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.integers(0, 256, (num_rows, 2, 2, 3), dtype=np.uint8),
        "label": np.arange(num_rows, dtype=np.int32),
        "tokens": [rng.integers(1, 99, length).astype(np.int32) for length in rng.integers(1, 20, num_rows)],
        "note": [f"note {row}".encode() for row in range(num_rows)],
        "sample_id": rng.integers(0, 256, (num_rows, 16), dtype=np.uint8),
    }


def write(folder: Path, **changes: Any) -> Path:
    rows = content(**changes)
    with ShardWriter(folder, split="train", fields=FIELDS) as writer:
        for start in range(0, len(rows["label"]), 20):  # x in segments of 20 rows, with holes between them
            writer.next_segment("x", key=f"{start:02x}")
            writer.write({name: some[start : start + 20] for name, some in rows.items()})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("shards") / "train")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "BLOCK_BYTES", 256)
    monkeypatch.setattr(loader, "CHECK_BATCHES", 2)


def plain(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in batch.items()}


def epoch(source: Any, **arguments: Any) -> list[dict[str, Any]]:
    return [plain(batch) for batch in ShardLoader(source, **{"batch_size": 8} | arguments)]


def rows_of(batches: list[dict[str, Any]]) -> list[int]:
    return [row for batch in batches for row in batch["row"]]


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("datamill-loader")]


@pytest.mark.parametrize("order", ["random", "sequential", "blocks"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_row_comes_once_with_all_its_fields(folder: Path, order: Any, num_workers: int) -> None:
    written = content()
    batches = epoch(folder, order=order, num_workers=num_workers)
    assert sorted(rows_of(batches)) == list(range(NUM_ROWS))
    assert [len(batch["row"]) for batch in batches] == [8, 8, 8, 8, 8, 8, 2]
    for batch in batches:
        rows = batch["row"]
        assert batch["x"] == written["x"][rows].tolist()
        assert batch["label"] == rows
        assert batch["sample_id"] == written["sample_id"][rows].tolist()
        assert batch["note"] == [written["note"][row] for row in rows]
        assert batch["tokens_length"] == [len(written["tokens"][row]) for row in rows]
        for row, tokens, mask in zip(rows, batch["tokens"], batch["tokens_mask"], strict=True):
            assert [token for token, is_real in zip(tokens, mask, strict=True) if is_real] == written["tokens"][
                row
            ].tolist()
            assert not any(token for token, is_real in zip(tokens, mask, strict=True) if not is_real)


@pytest.mark.parametrize("num_workers", [1, 2, 4])
@pytest.mark.parametrize("arguments", [{}, {"buckets": Buckets("tokens", max_tokens=90, pool_batches=3)}])
def test_workers_change_nothing(folder: Path, num_workers: int, arguments: dict[str, Any]) -> None:
    arguments |= {"windows": {}, "normalise": {"x": (0.5, 0.25)}, "layout": "NCHW"}
    assert epoch(folder, num_workers=num_workers, prefetch=3, **arguments) == epoch(folder, **arguments)


@pytest.mark.parametrize("buckets", [None, Buckets("tokens", max_tokens=90, pool_batches=3, multiple_of=2)])
def test_ranks_together_see_what_one_sees(folder: Path, buckets: Buckets | None) -> None:
    arguments: dict[str, Any] = {"fields": ["label", "tokens"], "buckets": buckets}
    ranks = [epoch(folder, rank=rank, world_size=2, num_workers=rank, **arguments) for rank in (0, 1)]
    together = [first["row"] + second["row"] for first, second in zip(*ranks, strict=True)]
    assert together == [batch["row"] for batch in epoch(folder, **arguments)]


def test_epochs_follow_each_other(folder: Path) -> None:
    one = ShardLoader(folder, batch_size=8, fields=["label"])
    epochs = [[row for batch in one for row in batch["row"].tolist()] for _ in range(2)]
    assert epochs[0] != epochs[1]
    assert rows_of(epoch(folder, fields=["label"], epoch=1)) == epochs[1]
    assert (one.epoch, len(one)) == (2, 7)


@pytest.mark.parametrize("taken", [0, 1, 3, 6, 7])
@pytest.mark.parametrize("buckets", [None, Buckets("tokens", max_tokens=90, pool_batches=2)])
def test_a_loader_goes_on_where_another_stopped(folder: Path, taken: int, buckets: Buckets | None) -> None:
    def make(num_workers: int) -> ShardLoader:
        return ShardLoader(folder, batch_size=8, epoch=4, buckets=buckets, num_workers=num_workers)

    one = make(0)
    whole = [plain(batch) for _ in range(2) for batch in one]
    first = make(2)
    iterator = iter(first)
    head = [plain(next(iterator)) for _ in range(taken)]
    state = json.loads(json.dumps(first.state_dict()))
    second = make(1)
    second.load_state_dict(state)
    tail = [plain(batch) for batch in second]
    while second.epoch < 6:
        tail += [plain(batch) for batch in second]
    assert head + tail == whole


def test_a_finished_epoch_is_followed_by_the_next(folder: Path) -> None:
    first = ShardLoader(folder, batch_size=25, fields=["label"])
    iterator = iter(first)
    next(iterator), next(iterator)
    state = first.state_dict()
    second = ShardLoader(folder, batch_size=25, fields=["label"])
    second.load_state_dict(state)
    assert [batch["row"].tolist() for batch in second] == [b["row"] for b in epoch(folder, batch_size=25, epoch=1)]


def test_a_new_iteration_begins_the_next_epoch_and_ends_the_old(folder: Path) -> None:
    one = ShardLoader(folder, batch_size=8, fields=["label"], num_workers=1)
    old = iter(one)
    next(old)
    assert next(iter(one))["row"].tolist() == epoch(folder, epoch=1)[0]["row"]
    with pytest.raises(StageError, match="the loader began another iteration"):
        next(old)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "saved with seed 0, this loader has 1"),
        ({"order": "sequential"}, "saved with order 'random', this loader has 'sequential'"),
        ({"batch_size": 4}, "saved with batch_size 8, this loader has 4"),
        ({"drop_last": True}, "saved with last 'keep', this loader has 'drop'"),
        ({"buckets": Buckets("tokens")}, "saved with buckets None"),
        ({"draw": np.arange(1.0, NUM_ROWS + 1)}, "saved with draw None"),
    ],
)
def test_the_state_of_another_loader_is_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    state = ShardLoader(folder, batch_size=8).state_dict()
    other = ShardLoader(folder, **{"batch_size": 8} | change)
    with pytest.raises(StageError, match=message):
        other.load_state_dict(state)


def test_the_state_of_other_data_is_refused(folder: Path, tmp_path: Path) -> None:
    other = ShardLoader(write(tmp_path / "train", seed=1))
    with pytest.raises(StageError, match=r"saved with fingerprint '\w{32}', .* \(the shard holds other data\)"):
        other.load_state_dict(ShardLoader(folder).state_dict())


@pytest.mark.parametrize("state", [{}, {"version": 1, "epoch": -1}, {"version": 9}])
def test_what_is_no_state_is_refused(folder: Path, state: dict[str, Any]) -> None:
    with pytest.raises(StageError, match="this is no state of a loader"):
        ShardLoader(folder).load_state_dict(state)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_batch_stays_valid_until_ring_further_ones_were_taken(folder: Path, num_workers: int) -> None:
    one = ShardLoader(folder, batch_size=2, fields=["x"], ring=3, num_workers=num_workers)
    for _ in range(2):
        taken: list[tuple[Tensor, list[Any]]] = []
        for batch in one:
            taken.append((batch["x"], batch["x"].tolist()))
            for tensor, values in taken[-4:]:
                assert tensor.tolist() == values


def test_memory_is_used_again_unless_copies_are_asked_for(folder: Path) -> None:
    shared = [batch["x"].data_ptr() for batch in ShardLoader(folder, batch_size=2, fields=["x"], ring=1)]
    assert len(set(shared)) < len(shared)
    kept = [batch["x"] for batch in ShardLoader(folder, batch_size=2, fields=["x"], ring=1, copy=True)]
    assert len({tensor.data_ptr() for tensor in kept}) == len(kept)


def test_normalised_images_have_the_axes_asked_for(folder: Path) -> None:
    one = ShardLoader(folder, batch_size=50, fields=["x"], normalise={"x": (0.5, 0.5)}, order="sequential")
    expected = torch.from_numpy(content()["x"]) / 255 * 2 - 1
    torch.testing.assert_close(next(iter(one))["x"], expected)
    one = ShardLoader(
        folder, batch_size=50, fields=["x"], normalise={"x": (0.5, 0.5)}, order="sequential", layout="NCHW"
    )
    torch.testing.assert_close(next(iter(one))["x"], expected.permute(0, 3, 1, 2))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_transform_sees_stored_values_ids_and_epoch(folder: Path, num_workers: int) -> None:
    written = content()

    def invert(arrays: dict[str, NDArray[Any]], *, sample_ids: NDArray[np.uint8], epoch: int) -> dict[str, Any]:
        assert epoch == 3
        np.testing.assert_array_equal(sample_ids, written["sample_id"][arrays["label"]])
        assert arrays["x"].dtype == np.uint8
        return {"x": 255 - arrays["x"]}

    for batch in ShardLoader(
        folder, batch_size=8, fields=["x", "label"], epoch=3, transform=invert, normalise={"x": (0, 1)},
        layout="NCHW", num_workers=num_workers,
    ):  # fmt: skip
        expected = torch.from_numpy(255 - written["x"][batch["label"]]).permute(0, 3, 1, 2) / 255
        torch.testing.assert_close(batch["x"], expected)


def test_a_transform_may_not_lose_rows(folder: Path) -> None:
    def lose(arrays: dict[str, NDArray[Any]], **_: Any) -> dict[str, Any]:
        return {"x": arrays["x"][1:]}

    with pytest.raises(ParamsError, match=r"transform makes 'x' of shape \(7, 2, 2, 3\) from 8 rows"):
        epoch(folder, transform=lose)


def test_an_error_in_a_worker_reaches_the_consumer(folder: Path) -> None:
    def fail(arrays: dict[str, NDArray[Any]], **_: Any) -> dict[str, Any]:
        raise ValueError("the transform is broken")

    with pytest.raises(ValueError, match="the transform is broken"):
        epoch(folder, transform=fail, num_workers=2)
    assert workers() == []


def test_an_abandoned_loader_leaves_no_thread(folder: Path) -> None:
    one = ShardLoader(folder, batch_size=2, num_workers=2)
    for _ in one:
        assert workers()
        break
    gc.collect()
    assert workers() == []


def test_batches_taken_in_inference_mode_can_be_trained_on(folder: Path) -> None:
    one = ShardLoader(folder, batch_size=8, fields=["x", "tokens"], normalise={"x": (0, 1)})
    with torch.inference_mode():
        batch = next(iter(one))
    weight = torch.ones(3, requires_grad=True)
    (batch["x"] * weight).sum().backward()
    assert weight.grad is not None
    assert not batch["tokens"].is_inference()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_users_threads_stay_as_they_are(folder: Path, num_workers: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in ShardLoader(folder, batch_size=8, num_workers=num_workers):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_number_of_threads_changes_no_bit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {"normalise": {"x": (0.4, 0.3)}, "fields": ["x", "label"], "num_workers": 0}
    alone = epoch(folder, **arguments)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(prefetching.ThreadChoice, "next", lambda _self, most: most)
    try:
        assert epoch(folder, **arguments) == alone
    finally:
        torch.set_num_threads(before)


def flip_a_byte(path: Path, *, at: int) -> None:
    stamp = path.stat()
    damaged = bytearray(path.read_bytes())
    damaged[at] ^= 1
    with path.open("r+b") as file:
        file.write(damaged)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


@pytest.fixture
def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shard with one wrong byte that a probe does not see."""
    monkeypatch.setattr(writing, "BLOCK_BYTES", 4096)
    with ShardWriter(tmp_path / "train", split="train", fields={"x": Field.array("uint8", (64,))}) as writer:
        writer.write({"x": np.zeros((1000, 64), np.uint8)})
    (path,) = (tmp_path / "train").glob("x-*.bin")
    flip_a_byte(path, at=33_000)
    return tmp_path / "train"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_damage_is_found_before_it_is_used(damaged: Path, num_workers: int) -> None:
    one = ShardLoader(damaged, batch_size=100, order="sequential", num_workers=num_workers, prefetch=1)
    batches = iter(one)
    assert [next(batches)["row"][0].item() for _ in range(5)] == [0, 100, 200, 300, 400]
    with pytest.raises(DataError, match=r"x-\w+\.bin was altered: the block from byte 32768 to 36864"):
        next(batches)


def test_everything_is_verified_at_once_on_request(damaged: Path) -> None:
    with pytest.raises(DataError, match="was altered"):
        ShardLoader(damaged, verify="full")
    assert len(epoch(damaged, verify="open", batch_size=500)) == 2


def test_a_file_that_changes_during_an_epoch_is_noticed(tmp_path: Path) -> None:
    one = ShardLoader(write(tmp_path / "train"), batch_size=2, verify="open")
    iterator = iter(one)
    next(iterator)
    (path,) = (tmp_path / "train").glob("label-*.bin")
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match="changed while the shard was open"):
        list(iterator)


def test_rows_are_drawn_by_probability(folder: Path) -> None:
    draw = np.zeros(NUM_ROWS)
    draw[[3, 4]] = 1
    batches = epoch(folder, fields=["label"], draw=draw)
    assert set(rows_of(batches)) == {3, 4}
    assert len(rows_of(batches)) == NUM_ROWS


def test_an_empty_shard_has_no_batch(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "train", split="train", fields=FIELDS):
        pass
    for arguments in ({}, {"order": "blocks"}, {"buckets": Buckets("tokens")}):
        assert epoch(tmp_path / "train", **arguments) == []


def test_a_shard_in_memory_is_loaded_too() -> None:
    shard = memory_shard({"x": np.arange(10.0)}, split="train")
    assert sorted(value for batch in epoch(shard, batch_size=3) for value in batch["x"]) == list(range(10))


def test_windows_and_normalisation_work_together(folder: Path) -> None:
    one = ShardLoader(
        folder, batch_size=8, fields=["tokens"], windows={"tokens": Window(5)}, normalise={"tokens": (1, 2)}
    )
    for batch in one:
        assert batch["tokens"].shape[1:] == (5,)
        assert batch["tokens"].dtype == torch.float32


def test_the_order_does_not_depend_on_what_is_loaded(folder: Path) -> None:
    assert rows_of(epoch(folder, order="blocks", fields=["label"])) == rows_of(epoch(folder, order="blocks"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fields": ["z"]}, "fields names 'z', which is not loaded; choose from label, note, sample_id, tokens, x"),
        ({"normalise": {"lable": (0, 1)}}, "normalise names 'lable', which is not loaded; did you mean label"),
        ({"normalise": {"tokens": (0, 1)}}, "needs rows of one shape; give the field decode or windows"),
        ({"windows": {"label": Window(3)}}, r"windows\['label'\] needs rows with a length"),
        ({"layout": "CHWN"}, "layout is 'CHWN'; choose from NHWC, NCHW"),
        ({"verify": "never"}, "verify is 'never'; choose from open, touch, full"),
        ({"order": "shuffle"}, "order is 'shuffle'; choose from random, sequential, blocks"),
        ({"num_workers": -1}, "num_workers is -1, prefetch 2, ring 4; they are at least 0, 1 and 1"),
        ({"even": True, "drop_last": True}, "even goes with neither drop_last nor buckets"),
        ({"buckets": Buckets("label")}, "buckets.field is 'label', which has no rows of varying length"),
        ({"device": "mps"}, "device is 'mps'; this machine loads to cpu"),
        ({"device": "gpu"}, "device is 'gpu', which is none; name cpu, cuda or cuda:1"),
        ({"world_size": 3}, "batch_size 8 cannot be divided by world_size 3; use 6"),
    ],
)
def test_wrong_arguments_are_refused(folder: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        ShardLoader(folder, **{"batch_size": 8} | arguments)


def test_names_that_batches_use_are_refused() -> None:
    for names in (["row"], ["a", "a_mask"]):
        with pytest.raises(ParamsError, match="has a name that batches use themselves"):
            ShardLoader(memory_shard({name: np.zeros(3) for name in names}, split="train"))


def test_loading_imports_nothing_heavy_but_torch(folder: Path) -> None:
    code = (
        f"import sys; from datamill.shards import ShardLoader; next(iter(ShardLoader({str(folder)!r})));"
        "heavy = {'pandas', 'sklearn', 'cv2', 'scipy', 'mlflow', 'fsspec', 'pyarrow', 'pydantic'};"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.fixture
def cuda() -> Iterator[torch.device]:
    yield torch.device("cuda")
    torch.cuda.synchronize()


@pytest.mark.gpu
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_gpu_gets_the_same_batches(folder: Path, cuda: torch.device, num_workers: int) -> None:
    arguments: dict[str, Any] = {"normalise": {"x": ((0.1, 0.2, 0.3), 0.5)}, "layout": "NCHW", "batch_size": 8}
    expected = list(ShardLoader(folder, copy=True, **arguments))
    found = list(ShardLoader(folder, device=cuda, num_workers=num_workers, ring=1, **arguments))
    for host, device in zip(expected, found, strict=True):
        assert device["x"].is_cuda
        torch.testing.assert_close(device["x"].cpu(), host["x"])
        assert torch.equal(device["tokens"].cpu(), host["tokens"])
        assert device["note"] == host["note"]


@pytest.mark.gpu
def test_a_slow_network_sees_whole_batches(tmp_path: Path, cuda: torch.device) -> None:
    shard = memory_shard({"x": np.repeat(np.arange(64, dtype=np.float32)[:, None], 100_000, axis=1)}, split="train")
    matrix = torch.rand(2000, 2000, device=cuda)
    sums = []
    for batch in ShardLoader(shard, batch_size=4, device=cuda, ring=1):
        for _ in range(20):
            matrix = matrix @ matrix / matrix.norm()
        sums.append((batch["x"].amin(1), batch["x"].amax(1), batch["row"]))
    for low, high, rows in sums:
        assert low.tolist() == high.tolist() == rows.tolist()
