"""Images in a folder per class."""

import os
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pytest

from datamill.errors import DataError
from datamill.sources.batches import Batch
from datamill.sources.listing import StoredFile
from datamill.sources.stores import Store
from tests.datamill.sources.drain import drain, make_params, opened


def encode(ending: str, *, brightness: int, size: int = 8) -> bytes:
    return cv2.imencode(ending, np.full((size, size, 3), brightness, np.uint8))[1].tobytes()


def put(path: Path, payload: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(payload)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, four formats, one nested folder."""
    root = tmp_path / "pets"
    put(root / "cat" / "1.png", encode(".png", brightness=10))
    put(root / "cat" / "p7" / "2.jpg", encode(".jpg", brightness=20))
    put(root / "dog" / "1.bmp", encode(".bmp", brightness=30))
    put(root / "dog" / "2.webp", encode(".webp", brightness=40))
    return root


def source(path: object, *, group_from: str = "none") -> dict[str, Any]:
    return {"kind": "image_folder", "path": str(path), "group_from": group_from}


def test_files_become_samples_with_their_bytes_unchanged(folder: Path) -> None:
    dataset, table, rejects = drain(source(folder))
    assert (dataset.name, dataset.classes, rejects) == ("pets", ("cat", "dog"), [])
    assert table["source"].to_pylist() == ["cat/1.png", "cat/p7/2.jpg", "dog/1.bmp", "dog/2.webp"]
    assert table["label"].to_pylist() == ["cat", "cat", "dog", "dog"]
    assert table["group"].to_pylist() == [None] * 4
    images = table["image"].to_pylist()
    assert all(one["bytes"] == (folder / one["path"]).read_bytes() for one in images)


def test_folders_below_the_class_can_be_groups(folder: Path) -> None:
    _, table, _ = drain(source(folder, group_from="folder"))
    assert table["group"].to_pylist() == [None, "p7", None, None]


@pytest.mark.parametrize(
    ("name", "payload", "reason"),
    [
        ("cat/empty.png", b"", "zero_byte"),
        ("cat/text.png", b"once upon a time", "not_an_image"),
        ("cat/notes.txt", b"once upon a time", "not_an_image"),
        ("cat/cut.jpg", encode(".jpg", brightness=50)[:-20], "truncated"),
        ("cat/wide.png", encode(".png", brightness=50, size=101), "too_large"),
        ("cat/heavy.bmp", encode(".bmp", brightness=50, size=90), "too_large"),
        ("stray.png", encode(".png", brightness=50), "no_class"),
    ],
)
def test_a_bad_file_becomes_a_reject(folder: Path, name: str, payload: bytes, reason: str) -> None:
    put(folder / name, payload)
    _, table, rejects = drain(source(folder), max_pixels=10_000, max_file_bytes=20_000)
    assert table.num_rows == 4
    assert [(reject.source, reject.reason) for reject in rejects] == [(name, reason)]


def test_content_decides_and_the_name_does_not(folder: Path) -> None:
    put(folder / "cat" / "3.png", encode(".jpg", brightness=60))
    put(folder / "cat" / "4", encode(".png", brightness=70))
    _, table, rejects = drain(source(folder))
    assert (table.num_rows, rejects) == (6, [])


def test_names_that_start_with_a_dot_are_no_items(folder: Path) -> None:
    put(folder / ".git" / "1.png", b"x")
    put(folder / "cat" / ".DS_Store", b"x")
    assert drain(source(folder))[1].num_rows == 4


def test_links_out_of_the_folder_and_to_nowhere_become_rejects(folder: Path, tmp_path: Path) -> None:
    outside = put(tmp_path / "outside" / "1.png", encode(".png", brightness=80))
    (folder / "cat" / "a.png").symlink_to(outside)
    (folder / "cat" / "b").symlink_to(outside.parent)
    (folder / "cat" / "c.png").symlink_to(folder / "cat" / "1.png")
    (folder / "cat" / "d.png").symlink_to(folder / "cat" / "gone.png")
    (folder / "cat" / "e").symlink_to(folder / "dog")
    os.mkfifo(folder / "cat" / "f.png")
    _, table, rejects = drain(source(folder))
    assert "cat/c.png" in table["source"].to_pylist()
    assert [(reject.source[-5:], reject.reason) for reject in rejects] == [
        ("a.png", "outside_source"),
        ("cat/b", "outside_source"),
        ("d.png", "vanished"),
        ("cat/e", "linked_folder"),
        ("f.png", "not_a_file"),
    ]


def test_a_name_that_is_not_text_is_spelt_out(folder: Path) -> None:
    (folder / "cat" / os.fsdecode(b"\xff.png")).write_bytes(encode(".png", brightness=90))
    assert "cat/\\udcff.png" in drain(source(folder))[1]["source"].to_pylist()


def test_a_file_that_vanishes_or_changes_becomes_a_reject(folder: Path) -> None:
    with opened(make_params(source(folder))) as reading:
        (folder / "cat" / "1.png").unlink()
        (folder / "dog" / "1.bmp").write_bytes(encode(".bmp", brightness=31, size=9))
        (batch,) = reading.batches
        assert isinstance(batch, Batch)
        assert [(reject.source, reject.reason) for reject in batch.rejects] == [
            ("cat/1.png", "vanished"),
            ("dog/1.bmp", "changed_while_read"),
        ]
        assert batch.table.num_rows == 2


def test_a_file_that_comes_while_reading_stops_the_run(folder: Path) -> None:
    with opened(make_params(source(folder))) as reading:
        put(folder / "cat" / "9.png", encode(".png", brightness=99))
        with pytest.raises(
            DataError, match=r"1 of its files came, changed or went while it was read, first cat/9\.png"
        ):
            list(reading.batches)


def test_a_file_without_permission_is_unreadable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Store.read

    def denied(self: Store, file: StoredFile) -> bytes | None:
        if file.key == "cat/1.png":
            raise PermissionError(13, "Permission denied")
        return real(self, file)

    monkeypatch.setattr(Store, "read", denied)
    _, _, rejects = drain(source(folder))
    assert rejects == [("cat/1.png", "unreadable", "permission to read it was denied")]


def test_a_store_gives_the_same_samples_as_a_folder(folder: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in folder.rglob("*.*"):
        memory.pipe(f"/pets/{path.relative_to(folder).as_posix()}", path.read_bytes())
    memory.pipe("/pets/cat/bad.png", b"no")
    dataset, table, rejects = drain(source("memory://pets", group_from="folder"))
    assert dataset.name == "pets"
    assert table.equals(drain(source(folder, group_from="folder"))[1])
    assert [reject.source for reject in rejects] == ["cat/bad.png"]


def test_batches_are_bounded_in_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamill.sources.image_folder.BATCH_BYTES", 100)
    with opened(make_params(source(folder))) as reading:
        assert [batch.table.num_rows for batch in reading.batches if isinstance(batch, Batch)] == [1, 1, 1, 1]


def test_a_source_without_images_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    put(tmp_path / "flat" / "1.png", b"x")
    (tmp_path / "bare").mkdir()
    for path, message in {
        tmp_path / "nowhere": "does not exist; relative paths start at the workspace",
        tmp_path / "bare": "is empty; put one sub-folder with images per class into it",
        tmp_path / "flat": "holds 1 files and no sub-folder",
        folder / "cat" / "1.png": "is not a folder",
        "nosuch://bucket": "nosuch://bucket cannot be opened",
    }.items():
        with pytest.raises(DataError, match=message):
            drain(source(path))
