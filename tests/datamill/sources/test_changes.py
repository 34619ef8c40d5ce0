import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.sources import chunks, image_folder, listing
from datamill.sources.changes import Changes, compare, count_changes
from datamill.sources.journal import made_with
from tasks.ingest import STAGE
from tests.datamill.sources.drain import TABLE_FIELDS
from tests.datamill.sources.rerun import Workspace

ITEMS = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["1", "2", None]))


def png(brightness: int) -> bytes:
    return cv2.imencode(".png", np.full((6, 6), brightness, np.uint8))[1].tobytes()


@pytest.fixture(autouse=True)
def _trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were just written count as settled."""
    monkeypatch.setattr(listing, "SETTLED_S", -1000.0)


def changes_of(workspace: Workspace) -> Changes | None:
    return count_changes(
        workspace.params,
        state=workspace.folder / "state",
        made_with=made_with(workspace.params, module=STAGE.module),
        samples=workspace.outputs.get("samples", workspace.folder / "nothing"),
    )


def tables(items: dict[str, str | None], *, rows: int) -> list[pa.Table]:
    keys = sorted(items)
    schema = pa.schema([("key", pa.string()), ("stamp", pa.string())])
    pieces = [keys[start : start + rows] for start in range(0, len(keys), rows)]
    return [pa.table([piece, [items[key] for key in piece]], schema=schema) for piece in pieces]


@given(ITEMS, ITEMS, st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_counts_are_those_of_comparing_key_by_key(
    before: dict[str, str | None], now: dict[str, str | None], rows: int, other_rows: int
) -> None:
    changed = sum(key in before and (stamp is None or stamp != before[key]) for key, stamp in now.items())
    expected = Changes(len(now), new=len(now.keys() - before), changed=changed, removed=len(before.keys() - now))
    assert compare(tables(now, rows=rows), tables(before, rows=other_rows)) == expected


def test_images_that_came_changed_and_went_are_counted_without_reading_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "images"
    for label in "ab":
        (folder / label).mkdir(parents=True)
        for number in range(5):
            (folder / label / f"{number}.png").write_bytes(png(10 * number))
    workspace = Workspace(tmp_path, {"kind": "image_folder", "path": str(folder), "group_from": "none"})
    assert changes_of(workspace) == Changes(total=10, new=10, changed=0, removed=0)
    workspace.ingest()
    assert changes_of(workspace) == Changes(total=10, new=0, changed=0, removed=0)

    (folder / "a" / "new.png").write_bytes(png(200))
    (folder / "a" / "1.png").write_bytes(png(201) + b"longer")
    (folder / "b" / "0.png").unlink()
    (folder / "b" / "2.png").unlink()
    monkeypatch.setattr(image_folder, "check_files", None)
    assert changes_of(workspace) == Changes(total=9, new=1, changed=1, removed=2)
    workspace.params = workspace.params.model_copy(update={"max_pixels": 7})
    assert changes_of(workspace) == Changes(total=9, new=9, changed=0, removed=0)


def test_the_files_of_a_table_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / "rows" / f"{name}.csv").parent.mkdir(exist_ok=True)
        (tmp_path / "rows" / f"{name}.csv").write_text("x,class\n1,a\n2,b\n")
    workspace = Workspace(tmp_path, {**TABLE_FIELDS, "path": str(tmp_path / "rows")})
    workspace.ingest()
    (tmp_path / "rows" / "two.csv").write_text("x,class\n1,a\n2,b\n3,a\n")
    monkeypatch.setattr(chunks, "read_chunks", None)
    assert changes_of(workspace) == Changes(total=2, new=0, changed=1, removed=0)


def test_packed_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "packed").mkdir()
    for name in ("one", "two", "three"):
        images = [{"bytes": png(10 * number), "path": None} for number in range(4)]
        pq.write_table(pa.table({"image": images, "label": [0, 1, 0, 1]}), tmp_path / "packed" / f"{name}.parquet")
    columns = {"image": "image", "label": "label", "class_names": None}
    source = {"kind": "exchanged", "format": "parquet", "path": str(tmp_path / "packed"), **columns}
    workspace = Workspace(tmp_path, source)
    workspace.ingest()
    (tmp_path / "packed" / "two.parquet").unlink()
    (tmp_path / "packed" / "three.parquet").rename(tmp_path / "packed" / "four.parquet")
    assert changes_of(workspace) == Changes(total=2, new=1, changed=0, removed=2)


def test_idx_files_are_counted(tmp_path: Path) -> None:
    def write(name: str, count: int) -> None:
        pixels, labels = bytes(range(6)) * count, bytes(row % 2 for row in range(count))
        (tmp_path / f"{name}-images").write_bytes(struct.pack(">BBBBIII", 0, 0, 8, 3, count, 2, 3) + pixels)
        (tmp_path / f"{name}-labels").write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, count) + labels)

    write("train", 8)
    write("test", 4)
    urls = {kind: [str(tmp_path / f"{name}-{kind}") for name in ("train", "test")] for kind in ("images", "labels")}
    workspace = Workspace(tmp_path / "workspace", {"kind": "idx", "class_names": None, **urls})
    assert changes_of(workspace) == Changes(total=4, new=4, changed=0, removed=0)
    workspace.ingest()
    assert changes_of(workspace) == Changes(total=4, new=0, changed=0, removed=0)
    write("test", 6)
    assert changes_of(workspace) == Changes(total=4, new=0, changed=2, removed=0)
    workspace.ingest()
    assert workspace.content() == workspace.fresh_content()


def test_items_of_bundled_sets_are_not_known_before_they_are_read(tmp_path: Path) -> None:
    assert changes_of(Workspace(tmp_path, {"kind": "bundled", "name": "digits"})) is None


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"new": 1200, "changed": 3, "removed": 0}, "1,200 new, 3 changed of 5,000 files"),
        ({"new": 0, "changed": 0, "removed": 1}, "1 removed of 5,000 files"),
        ({"new": 0, "changed": 0, "removed": 0}, "no changed of 5,000 files"),
    ],
)
def test_counts_are_told_in_words(counts: dict[str, Any], told: str) -> None:
    assert str(Changes(total=5000, **counts)) == told
