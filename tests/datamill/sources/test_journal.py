"""A second ingest opens what changed, and gives what a first one would give."""

import itertools
import json
import os
import struct
from collections.abc import Iterator
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
from numpy.typing import NDArray

from datamill import parts
from datamill.errors import DataError
from datamill.modalities import image
from datamill.sources import chunks, idx, image_folder, listing, table
from datamill.sources.listing import StoredFile
from datamill.sources.params import TableSource
from datamill.sources.stores import Store, open_store
from tests.builders import small_parts
from tests.datamill.sources.drain import TABLE_FIELDS
from tests.datamill.sources.rerun import TravellingEngine, Workspace

TICKS = itertools.count(10**18, 10**9)  # ns since 1970; every write gets a time of its own, whatever the disk's clock


def png(brightness: int) -> bytes:
    return cv2.imencode(".png", np.full((6, 6), brightness, np.uint8))[1].tobytes()


def put(path: Path, payload: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(payload)
    tick = next(TICKS)
    os.utime(path, ns=(tick, tick))
    return path


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of about ten tiny images, so that a few dozen make several; files that were just written may be trusted."""
    small_parts(monkeypatch, target_bytes=1000, least_row_bytes=1)
    monkeypatch.setattr(listing, "SETTLED_S", -1000.0)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the files that were opened."""
    keys: list[str] = []
    real = Store.read

    def counted(self: Store, file: StoredFile) -> bytes | None:
        keys.append(file.key)
        return real(self, file)

    monkeypatch.setattr(Store, "read", counted)
    return keys


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Sixty images and three files that are none."""
    folder = tmp_path / "pets"
    for number in range(60):
        put(folder / ("cat", "dog")[number % 2] / f"{number:02d}.png", png(number))
    for name in ("cat/03.txt", "cat/99.txt", "dog/20.txt"):
        put(folder / name, b"no image")
    return folder


def source(root: Path) -> dict[str, Any]:
    return {"kind": "image_folder", "path": str(root), "group_from": "folder"}


def test_only_files_that_changed_are_opened(root: Path, tmp_path: Path, opened: list[str]) -> None:
    workspace = Workspace(tmp_path, source(root))
    workspace.ingest()
    assert len(opened) == 63
    opened.clear()
    put(root / "cat" / "10.png", png(200))
    put(root / "cat" / "99.txt", b"still no image")
    put(root / "dog" / "p1" / "new.png", png(201))
    (root / "dog" / "11.png").unlink()
    (root / "dog" / "13.png").rename(root / "cat" / "13.png")
    metrics = workspace.ingest()
    assert opened == ["cat/10.png", "cat/13.png", "cat/99.txt", "dog/p1/new.png"]
    assert (metrics["num_items"], metrics["num_samples"], metrics["rejects"]) == (63, 60, {"not_an_image": 3})
    assert workspace.content() == workspace.fresh_content()
    opened.clear()
    workspace.ingest()
    assert opened == []


def test_parts_without_a_change_are_linked_and_not_read(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path, source(root))
    workspace.ingest()
    before = {path.name: path.stat().st_ino for path in workspace.outputs["samples"].glob("*.parquet")}
    assert len(before) > 4
    put(root / "cat" / "04.png", png(210))
    copied = []
    real = parts.PartsWriter.write

    def counted(self: parts.PartsWriter, table: pa.Table) -> None:
        copied.append(table.num_rows)
        real(self, table)

    monkeypatch.setattr(parts.PartsWriter, "write", counted)
    workspace.ingest()
    after = {path.name: path.stat().st_ino for path in workspace.outputs["samples"].glob("*.parquet")}
    assert len(before.keys() - after.keys()) == 1
    assert all(after[name] == before[name] for name in before.keys() & after.keys())
    assert sum(copied) < 30
    assert workspace.content() == workspace.fresh_content()


def csv(rows: range, *, width: int = 1) -> bytes:
    return b"key,size,class\n" + b"".join(b"k%d,%0*d,%s\n" % (row, width, row, b"ab"[row % 2 :][:1]) for row in rows)


@pytest.mark.parametrize("key", [None, "key"])
def test_only_tables_that_changed_are_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
    root = tmp_path / "rows"
    for number in range(4):
        put(root / f"{number}.csv", csv(range(10 * number, 10 * number + 10)) + b"ragged\n")
    parsed = []
    real = chunks.read_chunks

    def counted(store: Store, file: StoredFile, *, source: TableSource) -> Iterator[chunks.Chunk]:
        parsed.append(file.key)
        return real(store, file, source=source)

    monkeypatch.setattr(table, "read_chunks", counted)
    workspace = Workspace(tmp_path, {**TABLE_FIELDS, "path": str(root), "id": key, "exclude": [] if key else ["key"]})
    workspace.ingest()
    parsed.clear()
    put(root / "1.csv", csv(range(100, 112)))
    put(root / "9.csv", csv(range(5, 14)) + b",,\n")
    workspace.ingest()
    # With ids, a row may be refused for an earlier one, so all after the first change is parsed.
    assert sorted(set(parsed)) == (["1.csv", "2.csv", "3.csv", "9.csv"] if key else ["1.csv", "9.csv"])
    assert workspace.content() == workspace.fresh_content()
    parsed.clear()
    (root / "0.csv").unlink()
    workspace.ingest()
    assert sorted(set(parsed)) == (["1.csv", "2.csv", "3.csv", "9.csv"] if key else [])
    assert workspace.content() == workspace.fresh_content()


def test_a_table_whose_columns_turn_out_otherwise_is_parsed_again(tmp_path: Path) -> None:
    root = tmp_path / "rows"
    put(root / "0.csv", b"size,class\n" + b"1,a\nTrue,b\n")
    put(root / "1.csv", b"size,class\n" + b"True,b\n" * 2)
    workspace = Workspace(tmp_path, {**TABLE_FIELDS, "path": str(root)})
    workspace.ingest()
    put(root / "0.csv", b"size,class\n" + b"False,a\nTrue,b\n")
    workspace.ingest()
    assert parts.read_table(workspace.outputs["samples"])["feature:size"].to_pylist() == [
        "false",
        "true",
        "true",
        "true",
    ]
    assert workspace.content() == workspace.fresh_content()


def test_a_table_whose_first_file_orders_its_columns_otherwise_gives_the_parts_of_a_first_ingest(
    tmp_path: Path,
) -> None:
    root = tmp_path / "rows"
    put(
        root / "0.csv",
        b"size,age,class\n" + b"".join(b"%d,%d,%s\n" % (n, 2 * n, b"ab"[n % 2 :][:1]) for n in range(99)),
    )
    put(
        root / "1.csv",
        b"age,size,class\n" + b"".join(b"%d,%d,%s\n" % (n, 3 * n, b"ab"[n % 2 :][:1]) for n in range(99)),
    )
    workspace = Workspace(tmp_path, {**TABLE_FIELDS, "path": str(root)})
    workspace.ingest()
    (root / "0.csv").unlink()
    workspace.ingest()
    assert parts.read_table(workspace.outputs["samples"]).column_names[-2:] == ["feature:age", "feature:size"]
    assert workspace.content() == workspace.fresh_content()


def test_packed_files_whose_classes_are_called_otherwise_now_are_read_again(tmp_path: Path) -> None:
    images = [{"bytes": png(10 * number), "path": None} for number in range(20)]
    (tmp_path / "packed").mkdir()
    pq.write_table(pa.table({"image": images, "label": [0, 1] * 10}), tmp_path / "packed" / "all.parquet")
    columns = {"image": None, "label": None, "class_names": None}
    source = {"kind": "exchanged", "format": "parquet", "path": str(tmp_path / "packed"), **columns}
    workspace = Workspace(tmp_path, source)
    for names in (["cat", "dog"], ["dog", "cat"], None):
        described = tmp_path / "packed" / "dataset.json"
        described.write_text(json.dumps({"name": "pets", "modality": "image", "classes": names}))
        if names is None:
            described.unlink()
        workspace.ingest()
        labels = parts.read_table(workspace.outputs["samples"], columns=["label"])["label"].to_pylist()
        assert labels[:2] == (names or ["0", "1"])
        assert workspace.content() == workspace.fresh_content()


def test_only_idx_blocks_that_changed_are_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "BATCH_ROWS", 5)
    encoded = []
    real = image.encode_png

    def counted(pixels: NDArray[np.uint8]) -> bytes:
        encoded.append(pixels.shape)
        return real(pixels)

    monkeypatch.setattr(image, "encode_png", counted)
    pixels = np.random.default_rng(0).integers(0, 255, (23, 4, 3), dtype=np.uint8)

    def write(count: int) -> None:
        put(tmp_path / "images", struct.pack(">BBBBIII", 0, 0, 8, 3, count, 4, 3) + pixels[:count].tobytes())
        put(tmp_path / "labels", struct.pack(">BBBBI", 0, 0, 8, 1, count) + bytes(row % 2 for row in range(count)))

    paths = {"images": [str(tmp_path / "images")], "labels": [str(tmp_path / "labels")]}
    workspace = Workspace(tmp_path, {"kind": "idx", "class_names": None, **paths})
    write(17)
    workspace.ingest()
    assert len(encoded) == 17
    encoded.clear()
    write(23)
    workspace.ingest()
    assert len(encoded) == 8
    assert workspace.content() == workspace.fresh_content()


def test_files_of_a_store_are_known_by_their_version(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "REMOTE_SETTLED_S", -1000.0)
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/known/{label}/{number}.png": png(number) for label in "ab" for number in range(9)})
    workspace = Workspace(tmp_path, source(Path("unused")) | {"path": "memory://known"})
    workspace.ingest()
    opened.clear()
    memory.pipe("/known/b/p/new.png", png(50))
    memory.pipe("/known/a/3.png", png(51))
    workspace.ingest()
    assert sorted(opened) == ["a/3.png", "b/p/new.png"]
    assert workspace.content() == workspace.fresh_content()


FILES = [
    f"{label}/{place}{ending}"
    for label in ("a", "b", "a-c")
    for place in ("1", "2", "p/3", "q/4")
    for ending in ("", "x")
]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["put", "spoil", "remove", "move", "touch"]), *[st.sampled_from(FILES)] * 2, st.integers(0, 99)
    ),
    max_size=6,
)


@given(scripts=st.lists(EDITS, min_size=2, max_size=3))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_edits_give_what_a_first_ingest_gives(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, scripts: list[Any]
) -> None:
    monkeypatch.setattr(image_folder, "BATCH_FILES", 3)
    monkeypatch.setattr(listing, "LISTED_ROWS", 4)
    folder = tmp_path_factory.mktemp("edits")
    root = folder / "pets"
    for number, label in enumerate(("a", "b", "a-c")):
        for place in range(6):
            put(root / label / f"always-{place}.png", png(10 * number + place))
    workspace = Workspace(folder, source(root))
    for script in scripts:
        for verb, name, other, value in script:
            edit(root, verb, name=name, other=other, value=value)
        workspace.ingest()
        assert workspace.content() == workspace.fresh_content()


def edit(root: Path, verb: str, *, name: str, other: str, value: int) -> None:
    path = root / name
    if verb in {"put", "spoil"}:
        put(path, png(value) if verb == "put" else b"no image %d" % value)
    elif path.exists() and verb == "remove":
        path.unlink()
    elif path.exists() and verb == "move":
        (root / other).parent.mkdir(parents=True, exist_ok=True)
        path.replace(root / other)
    elif path.exists():
        put(path, path.read_bytes())


def test_a_file_replaced_by_one_of_equal_size_and_time_is_read(root: Path, tmp_path: Path, opened: list[str]) -> None:
    workspace = Workspace(tmp_path, source(root))
    workspace.ingest()
    first, second = root / "cat" / "03.txt", put(tmp_path / "other.txt", b"NO IMAGE")
    time_ns = first.stat().st_mtime_ns
    os.utime(second, ns=(time_ns, time_ns))
    second.replace(first)
    opened.clear()
    workspace.ingest()
    assert opened == ["cat/03.txt"]
    assert workspace.content() == workspace.fresh_content()


def test_a_file_that_changed_a_moment_before_the_listing_is_read_again(
    root: Path, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SETTLED_S", 2.0)
    workspace = Workspace(tmp_path, source(root))
    workspace.ingest()
    opened.clear()
    workspace.ingest()
    assert len(opened) == 63


@pytest.mark.parametrize("harm", ["manifest", "rejects", "items", "journal", "version", "gone"])
def test_what_was_harmed_is_not_believed(root: Path, tmp_path: Path, opened: list[str], harm: str) -> None:
    workspace = Workspace(tmp_path, source(root))
    workspace.ingest()
    state, samples = tmp_path / "state", workspace.outputs["samples"]
    paths = {
        "manifest": samples / "manifest.json",
        "rejects": workspace.outputs["rejects"],
        "items": state / "items.parquet",
        "journal": state / "journal.json",
    }
    if harm == "version":
        content = json.loads(paths["journal"].read_text())
        paths["journal"].write_text(json.dumps({**content, "version": 0}))
    elif harm == "gone":
        paths["journal"].unlink()
    else:
        payload = bytearray(paths[harm].read_bytes())
        payload[len(payload) // 2] ^= 1
        paths[harm].write_bytes(payload)
    opened.clear()
    workspace.ingest()
    assert len(opened) == 63
    assert workspace.content() == workspace.fresh_content()


def test_files_whose_part_was_harmed_are_read_again(root: Path, tmp_path: Path, opened: list[str]) -> None:
    workspace = Workspace(tmp_path, source(root))
    workspace.ingest()
    samples = workspace.outputs["samples"]
    part = samples / parts.read_manifest(samples).parts[1].name
    held = pq.read_table(part)["source"].to_pylist()
    payload = bytearray(part.read_bytes())
    payload[len(payload) // 2] ^= 1
    part.write_bytes(payload)
    opened.clear()
    workspace.ingest()
    assert (opened, 2 < len(held) < 30) == (held, True)
    assert workspace.content() == workspace.fresh_content()
    part.write_bytes(payload[:-1])
    workspace.outputs["samples"] = samples
    opened.clear()
    workspace.ingest()
    assert len(opened) == 63


def test_other_parameters_forget_everything(root: Path, tmp_path: Path, opened: list[str]) -> None:
    workspace = Workspace(tmp_path, source(root))
    workspace.ingest()
    opened.clear()
    workspace.params = workspace.params.model_copy(update={"max_pixels": 35})
    put(root / "cat" / "tiny.png", cv2.imencode(".png", np.zeros((5, 5), np.uint8))[1].tobytes())
    put(root / "dog" / "tiny.png", cv2.imencode(".png", np.zeros((5, 5), np.uint8))[1].tobytes())
    metrics = workspace.ingest()
    assert len(opened) == 65
    assert metrics["rejects"] == {"not_an_image": 3, "too_large": 60}


def test_much_work_goes_to_the_engine_and_comes_back_in_order(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_folder, "WORTH_FILES", 20)
    monkeypatch.setattr(image_folder, "BATCH_FILES", 7)
    workspace = Workspace(tmp_path, source(root), engine=TravellingEngine())
    workspace.ingest()
    assert workspace.engine.num_items == 9
    assert workspace.content() == workspace.fresh_content()
    for number in range(0, 60, 2):
        put(root / "cat" / f"{number:02d}.png", png(100 + number))
    workspace.ingest()
    assert workspace.engine.num_items == 9 + 5
    assert workspace.content() == workspace.fresh_content()
    put(root / "cat" / "00.png", png(77))
    workspace.ingest()
    assert workspace.engine.num_items == 9 + 5  # one file is not worth a process


def test_a_worker_that_cannot_see_the_source_says_so(root: Path, tmp_path: Path) -> None:
    (table,) = open_store(str(root)).tables()
    elsewhere = str(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="pets is not there, as seen from where its files are read"):
        image_folder.check_files(
            table, url="pets", local_root=elsewhere, max_pixels=100, max_file_bytes=1000, grouped=False
        )


def test_a_full_disk_leaves_what_was_there(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path, source(root))
    workspace.ingest()
    before, outputs = workspace.content(), workspace.outputs
    put(root / "cat" / "00.png", png(77))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", full)
        with pytest.raises(OSError, match="No space left"):
            workspace.ingest()
    assert (workspace.content(), workspace.outputs) == (before, outputs)
    workspace.ingest()
    assert workspace.content() == workspace.fresh_content()


def test_a_run_that_failed_leaves_the_journal_as_it_was(root: Path, tmp_path: Path, opened: list[str]) -> None:
    workspace = Workspace(tmp_path, source(root))
    workspace.ingest()
    before = {path.name: path.read_bytes() for path in (tmp_path / "state").iterdir()}
    put(root / "owl" / "1.png", b"no image")
    with pytest.raises(Exception, match="no item of class 'owl' could be read"):
        workspace.ingest()
    assert {path.name: path.read_bytes() for path in (tmp_path / "state").iterdir()} == before
