"""Parquet as the Hugging Face hub has it, ours and others'."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamill.errors import DataError
from datamill.shards.exchange import parquet, parquet_batches
from datamill.shards.exchange.records import Record, Wanted
from tests.datamill.shards.exchange.made import DATASET, IDS, IMAGES, LABELS, ROWS, export, faults, opened, read

PNG = IMAGES[0]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def file(columns: dict[str, Any], *, metadata: dict[str, str] | None = None, **options: Any) -> io.BytesIO:
    stream = io.BytesIO()
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata), stream, **options)
    return io.BytesIO(stream.getvalue())


def images(*cells: Any) -> pa.Array:
    return pa.array(list(cells), STRUCT)


def described(**features: Any) -> dict[str, str]:
    return {"huggingface": json.dumps({"info": {"features": features}})}


def test_the_schema_says_what_the_hub_wants_to_know(tmp_path: Path) -> None:
    schema = pq.read_schema(export(tmp_path, "parquet") / "train-000000.parquet")
    assert schema.names == ["image", "label", "sample_id"]
    assert schema.field("image").type == STRUCT
    assert json.loads(schema.metadata[b"huggingface"])["info"]["features"] == {
        "image": {"_type": "Image"},
        "label": {"names": ["ant", "bee", "cat"], "_type": "ClassLabel"},
        "sample_id": {"dtype": "string", "_type": "Value"},
    }


def test_row_groups_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 2)
    with pq.ParquetFile(export(tmp_path, "parquet") / "train-000000.parquet") as opened_file:
        assert [opened_file.metadata.row_group(number).num_rows for number in range(3)] == [2, 2, 1]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), STRUCT])
def test_images_may_be_plain_bytes_and_labels_names(kind: pa.DataType) -> None:
    cells = [{"bytes": PNG, "path": None}] if kind == STRUCT else [PNG]
    some = file({"img": pa.array(cells, kind), "labels": pa.array(["Bär"]).dictionary_encode()})
    assert read(some, "parquet") == [Record("f#0", PNG, "Bär", None)]


def test_other_columns_can_be_chosen() -> None:
    some = file({"a": images({"bytes": PNG}), "image": [1], "b": pa.array([2], pa.uint8()), "label": [0]})
    assert read(some, "parquet", image="a", label="b") == [Record("f#0", PNG, 2, None)]


@pytest.mark.parametrize(
    ("cell", "label", "reason"),
    [
        (None, 1, "no_image"),
        ({"bytes": None, "path": ""}, 1, "no_image"),
        ({"bytes": PNG}, None, "no_label"),
        ({"bytes": PNG}, -1, "no_label"),
        ({"bytes": bytes(1001)}, 1, "too_large"),
    ],
)
def test_a_bad_row_is_one_fault_and_the_next_one_is_read(cell: Any, label: int | None, reason: str) -> None:
    some = read(file({"image": images(cell, {"bytes": PNG}), "label": [label, 1]}), "parquet", max_bytes=1000)
    assert faults(some) == [("f#0", reason)]
    assert some[1] == Record("f#1", PNG, 1, None)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([["a"]]), "no_image"),
        (pa.array([3]), "no_image"),
        (pa.array([[1, None]]), "no_image"),
        (pa.array([[1.0, 2.0, 3.0]]), "unreadable"),
    ],
)
def test_a_row_that_is_no_row_of_numbers_is_a_fault(column: pa.Array, reason: str) -> None:
    some = file({"x": column, "label": [1]}, metadata=described(x={"shape": [2, 2]}))
    assert faults(read(some, "parquet")) == [("f#0", reason)]


@pytest.mark.parametrize("label", [pa.array([1.5]), pa.array([[1]]), pa.array([b"a"]), pa.array([True])])
def test_a_class_that_is_neither_number_nor_name_is_a_fault(label: pa.Array) -> None:
    assert faults(read(file({"image": images({"bytes": PNG}), "label": label}), "parquet")) == [("f#0", "no_label")]


def test_text_that_is_not_unicode_is_no_label() -> None:
    raw = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe")]
    )
    assert faults(read(file({"image": images({"bytes": PNG}), "label": raw}), "parquet")) == [("f#0", "no_label")]


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        (described(label={"names": ["a", "b"], "_type": "ClassLabel"}), ("a", "b")),
        (described(label={"names": "ab"}), None),
        (described(label={"names": [1, 2]}), None),
        (described(label=3), None),
        ({"huggingface": "["}, None),
        ({"huggingface": "[" * 100_000}, None),
        ({"huggingface": '{"info": 1}'}, None),
        (None, None),
    ],
)
def test_class_names_are_taken_only_from_a_sound_description(
    metadata: dict[str, str] | None, names: tuple[str, ...] | None
) -> None:
    some = file({"image": images({"bytes": PNG}), "label": [0]}, metadata=metadata)
    assert parquet.class_names(some, name="f", wanted=Wanted()) == names


def test_missing_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"f has no column label or labels; its columns are \['image'\]"):
        read(file({"image": images({"bytes": PNG})}), "parquet")
    with pytest.raises(DataError, match="f has no column pixels"):
        read(file({"image": images({"bytes": PNG}), "label": [0]}), "parquet", image="pixels")


def test_files_that_name_their_classes_differently_are_refused(tmp_path: Path) -> None:
    for number, names in enumerate((["a", "b"], ["b", "a"])):
        metadata = described(label={"names": names})
        content = file({"image": images({"bytes": PNG}), "label": [0]}, metadata=metadata).getvalue()
        (tmp_path / f"{number}.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"1\.parquet and 0\.parquet name their classes differently"):
        opened(tmp_path, "parquet")


def test_a_flipped_bit_in_a_page_is_found(tmp_path: Path) -> None:
    path = export(tmp_path, "parquet") / "train-000000.parquet"
    content = bytearray(path.read_bytes())
    pixels = pq.read_metadata(path).row_group(0).column(0)
    content[pixels.data_page_offset + pixels.total_compressed_size - 3] ^= 1
    with pytest.raises(DataError, match=r"f is no whole Parquet file: .*CRC"):
        read(io.BytesIO(content), "parquet")


def test_a_row_group_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_batches, "MAX_GROUP_BYTES", 100_000)
    some = file({"image": images({"bytes": bytes(10**6)}), "label": [0]}, compression="zstd")
    with pytest.raises(DataError, match=r"row group 0 unpacks to .* bytes, more than 100000"):
        read(some, "parquet")


def test_rows_without_dimension_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows of 1 to 5 dimensions, not of shape \(\)"):
        export(tmp_path, "parquet", [np.array(1.0)] * 5)


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_the_datasets_library_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed", exc_type=ImportError)

    images_folder = export(tmp_path / "i", "parquet", max_samples=2)
    some = datasets.load_dataset(str(images_folder), cache_dir=str(tmp_path / "cache"))["train"]
    assert some.features["label"].names == list(DATASET.classes)
    assert (some["label"][:], some["sample_id"][:]) == (LABELS, IDS)
    assert [np.asarray(one["image"]).max() for one in some] == [0, 40, 80, 120, 160]

    rows = export(tmp_path / "r", "parquet", ROWS)
    vectors = datasets.load_dataset(str(rows), cache_dir=str(tmp_path / "cache"))["train"].with_format("numpy")
    np.testing.assert_array_equal(vectors["x"][:], ROWS)
    cubes = export(tmp_path / "c", "parquet", [np.full((2, 3, 4), row, np.int16) for row in range(5)])
    loaded = datasets.load_dataset(str(cubes), cache_dir=str(tmp_path / "cache"))["train"].with_format("numpy")
    assert loaded[3]["x"].tolist() == np.full((2, 3, 4), 3).tolist()


@pytest.mark.filterwarnings("ignore")
def test_what_the_datasets_library_writes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets", reason="datasets is not installed", exc_type=ImportError)
    names = ["ant", "bee", "cat"]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    cells = [{"bytes": payload, "path": None} for payload in IMAGES]
    datasets.Dataset.from_dict({"image": cells, "label": LABELS}, features=features).to_parquet(
        str(tmp_path / "x.parquet")
    )
    packed = opened(tmp_path / "x.parquet", "parquet")
    assert packed.class_names == ("ant", "bee", "cat")
    some = list(packed.records(Wanted()))
    assert [(one.payload, one.label) for one in some if isinstance(one, Record)] == list(
        zip(IMAGES, LABELS, strict=True)
    )


def test_a_dictionary_that_would_fill_the_memory_is_unpacked_few_rows_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """400 rows of 30 kB in a file of 60 kB."""
    monkeypatch.setattr(parquet_batches, "DECODED_BYTES", 2**20)
    rng = np.random.default_rng(0)
    some = [rng.bytes(30_000) for _ in range(2)]
    columns = {"image": pa.chunked_array([pa.array(some)] * 200), "label": [0] * 400}
    stream = file(columns)
    assert len(stream.getvalue()) < 70_000
    sizes = [len(columns.codes) for columns in parquet.read_columns(stream, name="f", wanted=Wanted())]
    assert (sum(sizes), 30 <= max(sizes) <= 35) == (400, True)


@pytest.mark.parametrize("kind", ["bytes", "struct"])
def test_a_dictionary_of_small_images_is_unpacked_at_once(kind: str) -> None:
    rng = np.random.default_rng(0)
    some = [rng.bytes(300) for _ in range(3000)]
    images_ = some if kind == "bytes" else images(*({"bytes": one, "path": None} for one in some))
    stream = file({"image": images_, "label": [0] * 3000})
    assert pq.read_metadata(io.BytesIO(stream.getvalue())).row_group(0).column(0).has_dictionary_page
    assert [len(columns.codes) for columns in parquet.read_columns(stream, name="f", wanted=Wanted())] == [3000]


def test_what_a_dictionary_may_hold_besides_what_is_seen_of_it_counts_as_one_value() -> None:
    stream = file({"image": [b"a" * 10, b"b" * 30], "label": [0, 0]})
    assert parquet_batches._longest(stream, group=0, sizes={"image": 48}) == 30
    assert parquet_batches._longest(stream, group=0, sizes={"image": 1048}) == 1000
    assert parquet_batches._longest(file({"image": [b""][:0], "label": [0][:0]}), group=0, sizes={}) == 0


def test_a_path_that_reads_like_a_row_is_never_taken_for_one() -> None:
    paths = ["2", "a", None, "a", "3#a", "1", "1", None]
    (columns,) = parquet.read_columns(
        file({"image": images(*({"bytes": PNG, "path": path} for path in paths)), "label": [0] * 8}),
        name="f",
        wanted=Wanted(),
    )
    assert columns.places.to_pylist() == ["f#0#2", "f#a", "f#2", "f#3#a", "f#4#3#a", "f#5#1", "f#6#1", "f#7"]


def test_names_of_columns_that_are_not_utf_8_are_refused() -> None:
    content = file({"image": [PNG], "label": [0], "note": [1]}, store_schema=False).getvalue()
    with pytest.raises(DataError, match="f is no whole Parquet file: 'utf-8' codec can't decode byte 0xff"):
        read(io.BytesIO(content.replace(b"note", b"n\xffte")), "parquet")
