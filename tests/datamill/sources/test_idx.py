"""The IDX format of MNIST."""

import gzip
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from datamill.errors import DataError
from datamill.modalities import image
from tests.datamill.sources.drain import drain, make_params, opened

PIXELS = np.random.default_rng(0).integers(0, 255, (5, 4, 3), dtype=np.uint8)
IMAGES = struct.pack(">BBBBIII", 0, 0, 8, 3, 5, 4, 3) + PIXELS.tobytes()
LABELS = struct.pack(">BBBBI", 0, 0, 8, 1, 5) + bytes([0, 1, 2, 1, 0])


def source(folder: Path, *, images: bytes = IMAGES, labels: bytes = LABELS, **fields: Any) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "images").write_bytes(images)
    (folder / "labels").write_bytes(labels)
    paths = {"images": [str(folder / "images")], "labels": [str(folder / "labels")]}
    return {"kind": "idx", "class_names": None, **paths, **fields}


def test_images_keep_their_pixels_and_get_their_labels(tmp_path: Path) -> None:
    dataset, table, rejects = drain(source(tmp_path / "shapes"))
    assert (dataset.name, dataset.classes, rejects) == ("shapes", ("0", "1", "2"), [])
    assert table["source"].to_pylist() == [f"images#{row}" for row in range(5)]
    assert table["label"].to_pylist() == ["0", "1", "2", "1", "0"]
    decoded = [image.decode(one["bytes"])[..., 0] for one in table["image"].to_pylist()]
    assert np.array_equal(decoded, PIXELS)


def test_compression_is_found_by_content_and_changes_no_sample(tmp_path: Path) -> None:
    plain = drain(source(tmp_path / "plain"))[1]
    zipped = drain(source(tmp_path / "zipped", images=gzip.compress(IMAGES), labels=gzip.compress(LABELS)))[1]
    assert zipped.equals(plain)


def test_class_names_replace_numbers_and_absent_ones_are_no_class(tmp_path: Path) -> None:
    dataset, table, _ = drain(source(tmp_path, class_names=["shirt", "bag", "coat", "boot"]))
    assert dataset.classes == ("bag", "coat", "shirt")
    assert table["label"].to_pylist() == ["shirt", "bag", "coat", "bag", "shirt"]


def test_files_are_concatenated_and_may_be_remote(tmp_path: Path) -> None:
    local = source(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.pipe({"/idx/more": IMAGES, "/idx/more-labels": LABELS})
    both = {"images": [*local["images"], "memory://idx/more"], "labels": [*local["labels"], "memory://idx/more-labels"]}
    assert drain(local | both)[1]["source"].to_pylist()[4:6] == ["images#4", "more#0"]


def test_batches_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drain(source(tmp_path))[1]
    monkeypatch.setattr("datamill.sources.idx.BATCH_ROWS", 2)
    assert drain(source(tmp_path))[1].combine_chunks().equals(whole.combine_chunks())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": LABELS}, "starts with bytes 00000801 and an IDX file of images with 00000803"),
        ({"images": b""}, "starts with bytes "),
        ({"images": IMAGES[:9]}, "truncated: it ends after 9 of 16 bytes of header"),
        ({"images": IMAGES[:-7]}, "truncated: its header says 5 x 4 x 3 = 60 bytes, it holds 53"),
        ({"images": IMAGES + b"x"}, "too long: its header says 5 x 4 x 3 = 60 bytes, it holds 61 or more"),
        ({"images": gzip.compress(IMAGES[:-7])}, "truncated: its header says 5 x 4 x 3 = 60 bytes, it holds 53"),
        ({"images": gzip.compress(IMAGES + b"x")}, "too long: its header says 5 x 4 x 3 = 60 bytes"),
        ({"images": gzip.compress(IMAGES)[:-20]}, "truncated"),
        ({"images": b"\x1f\x8bnonsense"}, "damaged gzip file"),
        ({"labels": struct.pack(">BBBBI", 0, 0, 8, 1, 4) + bytes(4)}, "images holds 5 images and labels 4 labels"),
        ({"labels": gzip.compress(LABELS[:-1])}, "labels is truncated"),
        ({"class_names": ["a", "b"]}, r"labels \[2\] have no name: class_names lists 2"),
    ],
)
def test_damaged_files_are_refused_with_both_sizes(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        drain(source(tmp_path, **fields))


def test_too_large_images_stop_before_any_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"images of 3 x 4 px, but ingest\.max_pixels is 11"):
        drain(source(tmp_path), max_pixels=11)


def test_no_image_at_all_is_refused(tmp_path: Path) -> None:
    none = {"images": struct.pack(">BBBBIII", 0, 0, 8, 3, 0, 4, 3), "labels": struct.pack(">BBBBI", 0, 0, 8, 1, 0)}
    with pytest.raises(DataError, match="hold no image"):
        drain(source(tmp_path, **none))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing-here does not exist"):
        drain({**source(tmp_path), "images": [str(tmp_path / "nothing-here")]})


def test_a_file_that_changes_while_read_stops_the_run(tmp_path: Path) -> None:
    with opened(make_params(source(tmp_path))) as reading:
        (tmp_path / "labels").write_bytes(LABELS + b"x")
        with pytest.raises(DataError, match="labels: 1 of its files came, changed or went while it was read"):
            list(reading.batches)


def test_a_file_that_vanishes_stops_the_run(tmp_path: Path) -> None:
    with opened(make_params(source(tmp_path))) as reading:
        (tmp_path / "images").unlink()
        with pytest.raises(DataError, match="images cannot be read: No such file or directory"):
            list(reading.batches)


def test_labels_are_not_held_before_there_are_images(tmp_path: Path) -> None:
    count = 2**23
    images = gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, count, 1, 1), compresslevel=1)
    labels = gzip.compress(struct.pack(">4BI", 0, 0, 8, 1, count) + bytes(count), compresslevel=1)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="images is truncated: its header says 8388608 x 1 x 1"):
            drain(source(tmp_path, images=images, labels=labels))
        assert tracemalloc.get_traced_memory()[1] < 6_000_000  # of 8,388,608 labels
    finally:
        tracemalloc.stop()


def test_a_label_that_comes_while_read_stops_the_run(tmp_path: Path) -> None:
    with opened(make_params(source(tmp_path))) as reading:
        (tmp_path / "labels").write_bytes(LABELS[:-1] + b"\7")
        with pytest.raises(DataError, match="labels: 1 of its files came, changed or went while it was read"):
            list(reading.batches)
