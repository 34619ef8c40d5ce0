import errno
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamill import files
from datamill.errors import DataError
from datamill.samples import Dataset
from datamill.shards import segments, writing
from datamill.shards.entries import Field
from datamill.shards.fields import ArrayField, RaggedField
from datamill.shards.index import read_index
from datamill.shards.native import open_shard
from datamill.shards.writing import ShardWriter

DATASET = Dataset(name="bars", modality="image", classes=("0", "1", "2"))
FIELDS = {
    "x": Field.array("uint8", (4, 3)),
    "label": Field.array("int32"),
    "image": Field.bytes(),
    "tokens": Field.ragged("int32"),
}


def rows(count: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.integers(0, 256, (count, 4, 3), dtype=np.uint8),
        "label": rng.integers(0, 3, count).astype(np.int32),
        "image": [rng.bytes(number % 5) for number in range(count)],
        "tokens": [np.arange(number % 4, dtype=np.int32) for number in range(count)],
    }


def write(folder: Path, *batches: dict[str, Any], fields: dict[str, Field] = FIELDS) -> Path:
    with ShardWriter(folder, split="train", dataset=DATASET, fields=fields) as writer:
        for batch in batches:
            writer.write(batch)
    return folder


def write_segments(folder: Path, *, keys: Sequence[str], reused: Path | None = None) -> Path:
    """One segment of x for every key, three rows each; from ``reused`` those that it has."""
    known = {segment.key for segment in read_index(reused).segments["x"]} if reused else set()
    with ShardWriter(folder, split="train", fields={"x": Field.array("uint8", (2,))}) as writer:
        for key in keys:
            if reused is not None and key in known:
                writer.reuse("x", reused, key)
            else:
                writer.next_segment("x", key=key)
                writer.write({"x": np.full((3, 2), int(key, 16), np.uint8)})
    return folder


def column(folder: Path) -> list[int]:
    return np.asarray(open_shard(folder, verify=True).x)[:, 0].tolist()  # type: ignore[no-any-return]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 9), max_size=4),
    block=st.integers(1, 40),
    group=st.integers(1, 30),
    segment=st.integers(1, 30),
)
def test_bytes_do_not_depend_on_how_rows_were_batched(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], block: int, group: int, segment: int
) -> None:
    folder, all_rows = tmp_path_factory.mktemp("shards"), rows(9)
    edges = [0, *sorted(cuts), 9]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "BLOCK_BYTES", block)
        patch.setattr(writing, "SEGMENT_BYTES", segment)
        write(folder / "whole", all_rows)
        patch.setattr(writing, "GROUP_BYTES", group)
        write(folder / "pieces", *({k: v[a:b] for k, v in all_rows.items()} for a, b in pairwise(edges)))
    assert content(folder / "whole") == content(folder / "pieces")
    open_shard(folder / "whole", verify=True)


def test_fields_may_be_written_apart(tmp_path: Path) -> None:
    all_rows = rows(4)
    write(tmp_path / "together", all_rows)
    write(tmp_path / "apart", *({name: some} for name, some in all_rows.items()))
    assert content(tmp_path / "together") == content(tmp_path / "apart")


def test_long_fields_are_divided_without_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "SEGMENT_BYTES", 20_000)
    fields = {"x": Field.array("uint8", (12,)), "image": Field.bytes()}
    x = np.random.default_rng(0).integers(0, 256, (5000, 12), dtype=np.uint8)
    image = [row.tobytes() for row in x]
    write(
        tmp_path / "train",
        *({"x": x[a : a + 999], "image": image[a : a + 999]} for a in range(0, 5000, 999)),
        fields=fields,
    )
    shard = open_shard(tmp_path / "train", verify=True)
    assert [segment.num_rows for segment in shard.index.segments["x"]] == [1024, 1024, 1024, 1024, 904]
    field = shard.fields["x"]
    assert isinstance(field, ArrayField)
    assert field.is_dense
    np.testing.assert_array_equal(field.tensor.numpy(), x)
    ragged = shard.fields["image"]
    assert isinstance(ragged, RaggedField)
    assert len(shard.index.segments["image"]) > 1
    assert [bytes(ragged.view(row)) for row in range(5000)] == image


def test_an_unchanged_segment_is_the_same_file(tmp_path: Path) -> None:
    first = write_segments(tmp_path / "first", keys=["1", "2", "3"])
    second = write_segments(tmp_path / "second", keys=["3", "4", "1"], reused=first)
    assert column(second) == [3, 3, 3, 4, 4, 4, 1, 1, 1]
    assert (first / "x-1.bin").samefile(second / "x-1.bin")
    assert column(first) == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_segments_of_varying_length_are_reused_with_their_offsets(tmp_path: Path) -> None:
    fields = {"image": Field.bytes()}
    write(tmp_path / "first", {"image": [b"a", b"", b"bcd"]}, fields=fields)
    segment = read_index(tmp_path / "first").segments["image"][0]
    with ShardWriter(tmp_path / "second", split="train", fields=fields) as writer:
        writer.write({"image": [b"x"]})
        writer.next_segment("image", key="f")
        writer.write({"image": [b"yz"]})
        (tmp_path / "first/image-f.bin").touch()  # of nobody
        writer.next_segment("image", key="e")
        with pytest.raises(DataError, match="has no segment e of such a field image; write its rows instead"):
            writer.reuse("image", tmp_path / "first", "e")
    write(tmp_path / "third", fields=fields)
    with ShardWriter(tmp_path / "fourth", split="train", fields=fields) as writer:
        writer.reuse("image", tmp_path / "first", segment)
        writer.write({"image": [b"x"]})
    field = open_shard(tmp_path / "fourth", verify=True).fields["image"]
    assert isinstance(field, RaggedField)
    assert [bytes(field.view(row)) for row in range(4)] == [b"a", b"", b"bcd", b"x"]


def test_where_links_are_impossible_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    first = write_segments(tmp_path / "first", keys=["1"])
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    second = write_segments(tmp_path / "second", keys=["1"], reused=first)
    assert column(second) == [1, 1, 1]
    assert not (first / "x-1.bin").samefile(second / "x-1.bin")


def test_a_damaged_segment_is_not_reused(tmp_path: Path) -> None:
    first = write_segments(tmp_path / "first", keys=["1"])
    (first / "x-1.bin").write_bytes(b"\x02" * 6)
    with pytest.raises(DataError, match=r"first/x-1\.bin was altered or replaced"):
        write_segments(tmp_path / "second", keys=["1"], reused=first)
    assert not (tmp_path / "second/index.json").exists()


def test_a_segment_of_another_shape_is_not_reused(tmp_path: Path) -> None:
    first = write_segments(tmp_path / "first", keys=["1"])
    with (
        pytest.raises(DataError, match="has no segment 1 of such a field x"),
        ShardWriter(tmp_path / "second", split="train", fields={"x": Field.array("uint8", (3,))}) as writer,
    ):
        writer.reuse("x", first, "1")


def test_segments_without_rows_leave_no_trace(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "train", split="train", fields={"x": Field.array("uint8")}) as writer:
        writer.next_segment("x", key="a")
        writer.next_segment("x", key="b")
        writer.write({"x": np.ones(2, np.uint8)})
        writer.next_segment("x", key="c")
    assert sorted(content(tmp_path / "train")) == ["index.json", "x-b.bin"]


def test_nothing_is_written_over_a_shard(tmp_path: Path) -> None:
    folder = write(tmp_path / "train", rows(2))
    before = content(folder)
    with pytest.raises(DataError, match="train is not empty; delete it, or write the shard to a folder of its own"):
        write(folder, rows(3))
    assert content(folder) == before


def test_an_error_while_writing_leaves_no_index(tmp_path: Path) -> None:
    bad = rows(2) | {"label": np.array([0, 3], np.int32)}
    with pytest.raises(DataError, match="labels 0 to 3 for 3 classes"):
        write(tmp_path / "train", rows(2), bad)
    with pytest.raises(
        DataError, match=r"index\.json is missing: the shard was not finished, or is elsewhere; run shard again"
    ):
        open_shard(tmp_path / "train")


@pytest.mark.parametrize("when", ["rows", "end", "index"])
def test_a_full_disk_leaves_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if when == "index":
        monkeypatch.setattr(files, "publish", full)
    else:
        monkeypatch.setattr(segments.Stream, "write" if when == "rows" else "close", full)
    with pytest.raises(OSError, match="No space left on device"):
        write(tmp_path / "train", rows(2))
    assert not (tmp_path / "train/index.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_while_buffers_are_flushed_leaves_no_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda path, *args, **kw: open("/dev/full", "wb") if "label" in path.name else plain(path, *args, **kw),  # noqa: SIM115, PTH123
    )
    with pytest.raises(OSError, match="No space left on device"):
        write(tmp_path / "train", rows(2))
    assert not (tmp_path / "train/index.json").exists()


def test_fields_with_different_numbers_of_rows_are_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fields differ in their number of rows"):
        write(tmp_path / "a", rows(2) | {"label": np.zeros(3, np.int32)})
    with pytest.raises(DataError, match=r"fields differ in their number of rows: .*'label': 0"):
        write(tmp_path / "b", {name: some for name, some in rows(2).items() if name != "label"})
    assert not (tmp_path / "b/index.json").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([1, 2**31]), "label: 1 to 2147483648 do not fit <i4"),
        (np.array([0.5]), "label: numbers of type float64 for a field of int32; convert them"),
        (np.array([[1]]), r"label: rows of shape \(1,\), the field has \(\)"),
    ],
)
def test_numbers_are_never_changed_silently(tmp_path: Path, values: NDArray[Any], message: str) -> None:
    with (
        pytest.raises(DataError, match=message),
        ShardWriter(tmp_path / "train", split="train", fields={"label": Field.array("int32")}) as writer,
    ):
        writer.write({"label": values})


def test_names_that_no_reader_takes_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a field is called 'My Label'; use up to 64 small letters"):
        ShardWriter(tmp_path / "train", split="train", fields={"My Label": Field.array("int32")})
    assert not (tmp_path / "train").exists()
    with ShardWriter(tmp_path / "train", split="train", fields={"label": Field.array("int32")}) as writer:
        for key in ("../label", "", "G"):
            with pytest.raises(DataError, match=f"label: a segment is called {key!r}; use up to 64 hexadecimal"):
                writer.next_segment("label", key=key)


def test_rows_of_a_field_that_is_not_there_are_refused(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "train", split="train", fields={"label": Field.array("int32")})
    with pytest.raises(DataError, match=r"rows of \['labels'\] for a shard of \['label'\]; name its fields"):
        writer.write({"labels": [1]})


def test_wider_numbers_that_fit_and_the_other_byte_order_are_converted(tmp_path: Path) -> None:
    fields = {"label": Field.array("int32"), "weight": Field.array("float32")}
    write(tmp_path / "train", {"label": np.array([1, 2]), "weight": np.array([0.5, 1.5], ">f8")}, fields=fields)
    assert (tmp_path / "train/label-000000.bin").read_bytes() == b"\1\0\0\0\2\0\0\0"
    assert open_shard(tmp_path / "train").weight.tolist() == [0.5, 1.5]


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    batch: dict[str, Any] = {"x": np.zeros((1000, 1000), np.uint8), "image": [bytes(1000)] * 1000}
    fields = {"x": Field.array("uint8", (1000,)), "image": Field.bytes()}
    with ShardWriter(tmp_path / "train", split="train", fields=fields) as writer:
        writer.write(batch)
        tracemalloc.start()
        for _ in range(10):
            writer.write(batch)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 3 * 2**20  # 20 MB were written; arrays are not copied, byte strings are joined by the mebibyte
