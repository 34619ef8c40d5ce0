"""Images that were packed for training, as a source."""

import io
import shutil
import struct
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamill.errors import DataError
from datamill.samples import content_hash
from datamill.shards import exchange
from datamill.shards.exchange import example, packed, parquet_batches
from datamill.shards.exchange.tfrecord import masked_crc32c
from datamill.sources import entries, exchanged, integrity, listing, stretches
from datamill.sources.batches import Batch, Reading
from datamill.sources.journal import Journal
from datamill.sources.params import ExchangedSource
from tests.builders import small_parts
from tests.datamill.shards.exchange.made import IDS, IMAGES, export
from tests.datamill.sources.drain import drain, make_params
from tests.datamill.sources.rerun import TravellingEngine, Workspace
from tests.fakes import make_context

FORMATS = list(exchange.FORMATS)
PNG = IMAGES[0]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def source(path: object, name: str, **fields: Any) -> dict[str, Any]:
    usual = {"image": None, "label": None, "class_names": None}
    return {"kind": "exchanged", "format": name, "path": str(path), **usual, **fields}


def reading(section: dict[str, Any], *, max_pixels: int = 1_000_000) -> Reading:
    """The source, listed and not yet read."""
    params = make_params(section)
    assert isinstance(params.source, ExchangedSource)
    folder = Path(tempfile.mkdtemp())
    journal = Journal(folder, made_with="", previous={})
    return exchanged.read(
        params.source, max_pixels=max_pixels, max_file_bytes=10_000, context=make_context(folder), journal=journal
    )


def put(path: Path, samples: list[tuple[str, bytes, bytes]]) -> Path:
    """A tar file of these keys, images and labels."""
    with tarfile.open(path, "w") as out:
        for key, payload, label in samples:
            for ending, content in (("png", payload), ("cls", label)):
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                out.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_exported_is_ingested_with_its_bytes_and_classes(tmp_path: Path, name: str) -> None:
    dataset, table, rejects = drain(source(export(tmp_path / "bars", name, max_samples=2), name))
    assert (dataset.name, dataset.modality, dataset.classes, rejects) == ("bars", "image", ("ant", "bee", "cat"), [])
    assert table["label"].to_pylist() == ["ant", "bee", "cat", "bee", "ant"]
    assert [one["bytes"] for one in table["image"].to_pylist()] == IMAGES
    assert table["content_hash"].to_pylist() == [content_hash(payload) for payload in IMAGES]


def test_the_source_key_is_the_file_and_the_key_or_row(tmp_path: Path) -> None:
    keys = {
        "webdataset": f"train-000000.tar#{IDS[1]}",
        "tfrecord": "train-000000.tfrecord#1",
        "parquet": "train-000000.parquet#1",
        "mds": "train/shard.00000.mds#1",
    }
    for name, key in keys.items():
        assert drain(source(export(tmp_path / name, name), name))[1]["source"].to_pylist()[1] == key


@pytest.mark.parametrize("name", FORMATS)
def test_workers_and_batches_change_nothing(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    export(tmp_path, name)
    whole = drain(source(tmp_path, name))[1]
    monkeypatch.setattr(exchanged, "BATCH_IMAGES", 2)
    for module, limit in (
        (packed, "BATCH_ENTRIES"),
        (parquet_batches, "READ_ROWS"),
        (parquet_batches, "MAX_READ_ROWS"),
    ):
        monkeypatch.setattr(module, limit, 2)
    batches = reading(source(tmp_path, name)).batches
    tables = [batch.table for batch in batches if isinstance(batch, Batch)]
    assert [table.num_rows for table in tables if table.num_rows] == [2, 2, 1]
    assert pa.concat_tables(tables).combine_chunks().equals(whole.combine_chunks())


def test_a_remote_folder_and_a_single_file_are_read(tmp_path: Path) -> None:
    export(tmp_path / "bars", "parquet")
    content = (tmp_path / "bars/train-000000.parquet").read_bytes()
    fsspec.filesystem("memory").pipe("/packed/train-000000.parquet", content)
    remote = drain(source("memory://packed", "parquet"))[1]
    assert remote.equals(drain(source(tmp_path / "bars/train-000000.parquet", "parquet"))[1])
    assert remote.num_rows == 5


def test_class_names_can_be_given_and_absent_ones_are_no_class(tmp_path: Path) -> None:
    put(tmp_path / "a.tar", [("a", PNG, b"0"), ("b", PNG, b"2")])
    assert drain(source(tmp_path, "webdataset"))[0].classes == ("0", "2")
    dataset, table, _ = drain(source(tmp_path, "webdataset", class_names=["x", "y", "z"]))
    assert (dataset.classes, table["label"].to_pylist()) == (("x", "z"), ["x", "z"])


@pytest.mark.parametrize("label", [b"2", b"-1", b"999999999", b"dog"])
def test_a_class_beyond_those_that_are_named_becomes_a_reject(tmp_path: Path, label: bytes) -> None:
    put(tmp_path / "a.tar", [("a", PNG, b"0"), ("b", PNG, label), ("c", PNG, b"1")])
    dataset, table, rejects = drain(source(tmp_path, "webdataset", class_names=["x", "y"]))
    assert (dataset.classes, table["label"].to_pylist()) == (("x", "y"), ["x", "y"])
    assert [(reject.source, reject.reason) for reject in rejects] == [("a.tar#b", "unknown_class")]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "zero_byte"),
        (b"once upon a time", "not_an_image"),
        (PNG[:-9], "truncated"),
        (PNG[:-16] + b"xxxx" + PNG[-12:], "unreadable"),
        (bytes(20_001), "too_large"),
    ],
)
def test_an_image_that_is_none_becomes_a_reject_with_its_place(tmp_path: Path, payload: bytes, reason: str) -> None:
    put(tmp_path / "a.tar", [("a", PNG, b"0"), ("b", payload, b"0"), ("c", PNG, b"1")])
    _, table, rejects = drain(source(tmp_path, "webdataset"), max_file_bytes=20_000)
    assert table["source"].to_pylist() == ["a.tar#a", "a.tar#c"]
    assert [(reject.source, reject.reason) for reject in rejects] == [("a.tar#b", reason)]


def test_too_many_pixels_become_a_reject_before_they_are_decoded(tmp_path: Path) -> None:
    put(tmp_path / "a.tar", [("a", PNG, b"0"), ("b", PNG, b"1")])
    (batch,) = reading(source(tmp_path, "webdataset"), max_pixels=23).batches
    assert isinstance(batch, Batch)
    assert [(reject.reason, batch.table.num_rows) for reject in batch.rejects] == [("too_large", 0), ("too_large", 0)]


def test_rows_of_numbers_become_rejects(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with exchange.writer("webdataset", tmp_path / "x", split="train", dataset=None) as out:
        out.write(IDS[0], np.ones(3, np.float32), 0)
        out.write(IDS[1], PNG, 1)
    _, table, rejects = drain(source(tmp_path / "x", "webdataset"))
    assert (table.num_rows, [reject.reason for reject in rejects]) == (1, ["not_an_image"])


def test_nothing_is_written_and_no_name_is_followed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    put(tmp_path / "in/a.tar", [("../out", PNG, b"0"), ("/tmp/hostile", PNG, b"0"), ("a", PNG, b"1")])
    _, table, rejects = drain(source(tmp_path / "in", "webdataset"))
    assert table["source"].to_pylist() == ["a.tar#a"]
    assert [reject.reason for reject in rejects] == ["unsafe_name", "unsafe_name"]
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "a.tar"]


def records(*samples: tuple[bytes, int]) -> bytes:
    framed = []
    for payload, label in samples:
        message = example.encode({"image": [payload], "label": np.array([label])})
        length = struct.pack("<Q", len(message))
        framed.append(length + struct.pack("<I", masked_crc32c(length)))
        framed.append(message + struct.pack("<I", masked_crc32c(message)))
    return b"".join(framed)


def test_a_damaged_record_becomes_a_reject_and_a_damaged_length_stops_the_run(tmp_path: Path) -> None:
    content = bytearray(records((PNG, 0), (PNG, 1), (PNG, 1)))
    content[40] ^= 1
    (tmp_path / "a.tfrecord").write_bytes(content)
    _, table, rejects = drain(source(tmp_path, "tfrecord"))
    assert table["source"].to_pylist() == ["a.tfrecord#1", "a.tfrecord#2"]
    assert [(reject.source, reject.reason) for reject in rejects] == [("a.tfrecord#0", "checksum")]
    content[0] ^= 1
    (tmp_path / "a.tfrecord").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tfrecord: the length of the record at byte 0 does not match its checksum"):
        drain(source(tmp_path, "tfrecord"))


@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_file_stops_the_run_before_any_sample(tmp_path: Path, name: str) -> None:
    export(tmp_path, name)
    (path,) = (file for file in tmp_path.rglob("*") if file.name.endswith(exchange.FORMATS[name].ENDINGS))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=path.name):
        reading(source(tmp_path, name))


def test_rows_of_parquet_that_are_no_sample_become_rejects(tmp_path: Path) -> None:
    cells = [{"bytes": PNG, "path": "x"}, {"bytes": None, "path": "/etc/passwd"}, None, {"bytes": PNG}, {"bytes": PNG}]
    table = pa.table({"image": pa.array(cells, STRUCT), "label": [0, 0, 0, -1, 1]})
    pq.write_table(table, tmp_path / "a.parquet")
    _, samples, rejects = drain(source(tmp_path, "parquet"))
    assert samples["label"].to_pylist() == ["0", "1"]
    assert [(reject.source, reject.reason) for reject in rejects] == [
        ("a.parquet#/etc/passwd", "no_image"),
        ("a.parquet#2", "no_image"),
        ("a.parquet#3", "no_label"),
    ]


def test_a_description_that_is_damaged_or_contradicts_itself_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "a.tar", [("a", PNG, b"0")])
    (tmp_path / "dataset.json").write_text('{"classes": 3}')
    with pytest.raises(DataError, match=r"dataset\.json is damaged \(3 faults\)"):
        drain(source(tmp_path, "webdataset"))
    (tmp_path / "dataset.json").write_text('{"name": "x", "modality": "image", "classes": ["a", "a"]}')
    with pytest.raises(DataError, match="two classes share a name"):
        drain(source(tmp_path, "webdataset"))


def test_wrong_places_and_formats_say_what_to_do(tmp_path: Path) -> None:
    put(tmp_path / "a.tar", [("a", PNG, b"")])
    (tmp_path / "bare").mkdir()
    for path, name, message in (
        (tmp_path / "nowhere", "mds", "does not exist"),
        (tmp_path / "bare", "mds", r"holds no file that ends with \.mds"),
        (tmp_path, "tfrecord", r"holds no file that ends with \.tfrecord or"),
        (tmp_path / "a.tar", "tfrecord", "the length of the record at byte 0"),
        (tmp_path / "a.tar", "parquet", r"a\.tar is no whole Parquet file"),
        (tmp_path, "webdataset", "none of its 1 entries is a sample of a known class"),
    ):
        with pytest.raises(DataError, match=message):
            drain(source(path, name))


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tar").symlink_to(put(tmp_path / "a.tar", [("a", PNG, b"0")]))
    with pytest.raises(DataError, match=r"a\.tar \(a link that leads out of the source's folder\) cannot be read"):
        drain(source(tmp_path / "in", "webdataset"))


def test_too_many_classes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamill.shards.exchange.packed.MAX_CLASSES", 2)
    put(tmp_path / "a.tar", [(str(number), PNG, str(number).encode()) for number in range(3)])
    with pytest.raises(DataError, match="has more than 2 classes; name the field of the class"):
        drain(source(tmp_path, "webdataset"))


def test_a_file_that_changes_while_read_stops_the_run(tmp_path: Path) -> None:
    put(tmp_path / "a.tar", [("a", PNG, b"0"), ("b", PNG, b"1")])
    opened = reading(source(tmp_path, "webdataset"))
    put(tmp_path / "a.tar", [("a", PNG, b"0"), ("b", PNG, b"1"), ("c" * 20, PNG * 40, b"1")])
    with pytest.raises(DataError, match="1 of its files came, changed or went while it was read"):
        list(opened.batches)


def test_a_file_that_comes_while_read_stops_the_run(tmp_path: Path) -> None:
    put(tmp_path / "a.tar", [("a", PNG, b"0")])
    opened = reading(source(tmp_path, "webdataset"))
    shutil.copy(tmp_path / "a.tar", tmp_path / "b.tar")
    with pytest.raises(DataError, match=r"1 of its files came, changed or went while it was read, first b\.tar"):
        list(opened.batches)


def test_names_given_twice_are_refused() -> None:
    with pytest.raises(ValueError, match=r"class_names \['a', 'a'\] holds a name twice"):
        make_params(source("x", "mds", class_names=["a", "a"]))


def write_rows(path: Path, rows: list[tuple[str, bytes, int]]) -> None:
    """A Parquet file of these paths, images and classes."""
    images = [{"bytes": payload, "path": name} for name, payload, _ in rows]
    pq.write_table(pa.table({"image": pa.array(images, STRUCT), "label": [label for *_, label in rows]}), path)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The images that were checked."""
    seen: list[bytes] = []
    find = integrity.find_fault

    def find_fault(payload: bytes, **limits: int) -> Any:
        seen.append(payload)
        return find(payload, **limits)

    def find_faults(payloads: pa.Array, **limits: int) -> dict[int, Any]:
        found = enumerate(find_fault(payload, **limits) for payload in payloads.to_pylist())
        return {row: fault for row, fault in found if fault is not None}

    monkeypatch.setattr(entries, "find_faults", find_faults)
    return seen


def test_a_rerun_checks_only_images_that_are_new(tmp_path: Path, looked_at: list[bytes]) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_rows(raw / "a.parquet", [("0.png", IMAGES[0], 0), ("1.png", IMAGES[1], 1), ("2.png", b"no image", 1)])
    write_rows(raw / "b.parquet", [("3.png", IMAGES[2], 0)])
    workspace = Workspace(tmp_path / "workspace", source(raw, "parquet"))
    workspace.ingest()
    looked_at.clear()
    write_rows(raw / "a.parquet", [("1.png", IMAGES[1], 1), ("2.png", b"no image", 1), ("4.png", IMAGES[3], 0)])
    write_rows(raw / "c.parquet", [("5.png", IMAGES[4], 1)])
    assert workspace.ingest()["num_rejects"] == 1
    assert looked_at == [b"no image", IMAGES[3], IMAGES[4]]
    assert workspace.content() == workspace.fresh_content()


EDITS = st.lists(
    st.tuples(st.sampled_from(["change", "remove", "insert", "spoil", "relabel", "rename"]), st.integers(0, 10**6)),
    max_size=6,
)


@pytest.mark.parametrize("named", [True, False])
@given(scripts=st.lists(EDITS, min_size=1, max_size=3), num_workers=st.sampled_from([1, 2]))
@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_edits_of_rows_give_what_a_first_ingest_gives(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    named: bool,
    scripts: list[Any],
    num_workers: int,
) -> None:
    for module, limit, value in (
        (exchanged, "BATCH_IMAGES", 16),
        (stretches, "MEAN_ROWS", 4),
        (stretches, "MAX_ROWS", 8),
        (parquet_batches, "MAX_READ_ROWS", 7),
        (parquet_batches, "READ_ROWS", 7),
    ):
        monkeypatch.setattr(module, limit, value)
    small_parts(monkeypatch, target_bytes=1000, least_row_bytes=1)
    folder = tmp_path_factory.mktemp("edits")
    (folder / "raw").mkdir()
    files = {
        name: [(f"{row}.png" if named else "", gradient(row % 40), row % 2) for row in range(60)] for name in ("a", "b")
    }
    whole = [(f"{label}.png" if named else "", gradient(200 + label), label) for label in range(3)]
    write_rows(folder / "raw" / "whole.parquet", whole)  # whatever the edits do, each class keeps a sample
    workspace = Workspace(folder, source(folder / "raw", "parquet"), num_workers=num_workers)
    for script in [[], *scripts]:
        for verb, number in script:
            edit(files["ab"[number % 2]], verb, number // 2)
        for name, rows in files.items():
            write_rows(folder / "raw" / f"{name}.parquet", rows)
        workspace.ingest()
        assert workspace.content() == workspace.fresh_content()


def test_a_file_that_cannot_be_read_ahead_ends_the_ingest_and_its_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_rows(raw / "a.parquet", [(f"{row}.png", gradient(row), row % 2) for row in range(40)])
    workspace = Workspace(tmp_path / "workspace", source(raw, "parquet"), num_workers=2)
    workspace.ingest()
    write_rows(raw / "a.parquet", [(f"{row}.png", gradient(row), row % 2) for row in range(39)])
    before = workspace.content()

    def fail(*_: Any, **__: Any) -> None:
        raise DataError("a.parquet is gone")

    monkeypatch.setattr(exchanged, "entries_of", fail)
    with pytest.raises(DataError, match="gone"):
        workspace.ingest()
    assert [one.name for one in threading.enumerate() if one.name.startswith("datamill-ahead")] == []
    assert workspace.content() == before


def gradient(number: int) -> bytes:
    """An encoded image of its own for each number below 250."""
    return cv2.imencode(".png", np.arange(number, number + 6, dtype=np.uint8).reshape(2, 3))[1].tobytes()


def edit(rows: list[tuple[str, bytes, int]], verb: str, number: int) -> None:
    place = number % len(rows)
    name, payload, label = rows[place]
    if verb == "remove":
        del rows[place]
    elif verb == "insert":
        rows.insert(place, (f"new-{number}.png" * bool(name), gradient(number % 250), label))
    elif verb == "spoil":
        rows[place] = name, payload[: number % max(1, len(payload))], label
    else:
        changed = {"change": (name, gradient(number % 250), label), "relabel": (name, payload, -1 if number % 3 else 2)}
        rows[place] = changed.get(verb, (f"named-{number}.png" * bool(name), payload, label))


def test_workers_check_what_is_new_and_are_not_started_for_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanged, "WORTH_BYTES", 1_000)
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = [(f"{row}.png", gradient(row), row % 2) for row in range(40)]
    write_rows(raw / "a.parquet", rows)
    workspace = Workspace(tmp_path / "workspace", source(raw, "parquet"), engine=TravellingEngine())
    workspace.ingest()
    assert workspace.engine.num_items == 1
    write_rows(raw / "a.parquet", [("0.png", gradient(99), 0), *rows[1:]])
    workspace.ingest()
    assert workspace.engine.num_items == 1
    write_rows(raw / "b.parquet", [(f"{row}.png", gradient(100 + row), row % 2) for row in range(40)])
    workspace.ingest()
    assert workspace.engine.num_items == 3
    assert workspace.content() == workspace.fresh_content()


@pytest.mark.parametrize("harm", ["stretches", "part"])
def test_what_was_harmed_is_not_believed(tmp_path: Path, looked_at: list[bytes], harm: str) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_rows(raw / "a.parquet", [("0.png", IMAGES[0], 0), ("1.png", IMAGES[1], 1)])
    workspace = Workspace(tmp_path / "workspace", source(raw, "parquet"))
    workspace.ingest()
    (part,) = workspace.outputs["samples"].glob("*.parquet")
    path = part if harm == "part" else tmp_path / "workspace/state/stretches.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    looked_at.clear()
    workspace.ingest()
    assert looked_at == ([] if harm == "part" else IMAGES[:2])  # images are not taken from parts
    assert workspace.content() == workspace.fresh_content()


def test_a_file_that_did_not_change_is_not_opened_and_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked_at: list[bytes]
) -> None:
    monkeypatch.setattr(listing, "SETTLED_S", -1000.0)
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, image in (("a", IMAGES[0]), ("b", IMAGES[1])):
        write_rows(raw / f"{name}.parquet", [("0.png", image, 0), ("1.png", IMAGES[2], 1)])
    workspace = Workspace(tmp_path / "workspace", source(raw, "parquet"))
    workspace.ingest()
    write_rows(raw / "b.parquet", [("0.png", IMAGES[3], 0)])
    read = packed.Packed.read_columns
    opened = []

    def read_columns(self: Any, file: Any, **words: Any) -> Any:
        opened.append(file.key)
        return read(self, file, **words)

    monkeypatch.setattr(packed.Packed, "read_columns", read_columns)
    workspace.ingest()
    assert set(opened) == {"b.parquet"}
    assert workspace.content() == workspace.fresh_content()
    looked_at.clear()
    write_rows(raw / "a.parquet", [("0.png", IMAGES[0], 0), ("1.png", IMAGES[2], 1), ("2.png", IMAGES[4], 1)])
    workspace.ingest()
    assert looked_at == [IMAGES[4]]
    assert workspace.content() == workspace.fresh_content()


def test_rows_are_named_by_the_path_of_their_image_and_repeated_paths_by_their_number(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [("x.png", IMAGES[0], 0), ("x.png", IMAGES[1], 1), ("", IMAGES[2], 1)])
    keys = drain(source(tmp_path, "parquet"))[1]["source"].to_pylist()
    assert keys == ["a.parquet#x.png", "a.parquet#1#x.png", "a.parquet#2"]
