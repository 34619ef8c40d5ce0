"""What holds for every format."""

import contextlib
import gzip
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datamill.errors import DataError
from datamill.shards import exchange
from datamill.shards.exchange.packed import open_packed
from datamill.shards.exchange.records import Record, Wanted
from tests.datamill.shards.exchange.made import DATASET, IDS, IMAGES, LABELS, ROWS, entries, export, faults, opened

FORMATS = list(exchange.FORMATS)
UNCHECKED = {"webdataset", "parquet"}  # tar files have no checksum over contents, Parquet none over its footer
SHAPES = {
    "floats": ROWS,
    "bytes": [np.arange(6, dtype=np.uint8).reshape(3, 2) + row for row in range(5)],
    "cubes": [np.arange(24, dtype=np.int16).reshape(2, 3, 4) - row for row in range(5)],
    "doubles": [np.array([row, np.inf]) for row in range(5)],
}


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", FORMATS)
def test_images_come_back_with_their_bytes_labels_and_identities(tmp_path: Path, name: str) -> None:
    read = entries(export(tmp_path, name, max_samples=2), name)
    assert faults(read) == []
    assert [entry.payload for entry in read if isinstance(entry, Record)] == IMAGES
    assert [entry.label for entry in read if isinstance(entry, Record)] == LABELS
    assert [entry.sample_id for entry in read if isinstance(entry, Record)] == IDS


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("name", FORMATS)
def test_rows_come_back_with_their_numbers_shape_and_type(tmp_path: Path, name: str, kind: str) -> None:
    read = entries(export(tmp_path, name, SHAPES[kind], max_samples=3), name)
    assert faults(read) == []
    for entry, written in zip(read, SHAPES[kind], strict=True):
        assert isinstance(entry, Record)
        assert isinstance(entry.payload, np.ndarray)
        assert (entry.payload.dtype, entry.payload.shape) == (written.dtype, written.shape)
        np.testing.assert_array_equal(entry.payload, written)


@pytest.mark.parametrize("name", FORMATS)
def test_class_names_come_with_the_files(tmp_path: Path, name: str) -> None:
    packed = opened(export(tmp_path, name), name)
    assert [packed.class_of(number) for number in (0, 2, 3, -1)] == ["ant", "cat", None, None]


@pytest.mark.parametrize("name", FORMATS)
def test_equal_samples_give_equal_files(tmp_path: Path, name: str) -> None:
    first = digests(export(tmp_path / "a", name, max_samples=2))
    assert first == digests(export(tmp_path / "b", name, max_samples=2))
    assert len(first) == 4 + (name == "mds")  # three files, dataset.json, and the index of MDS


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_ends_after_so_many_bytes_of_payload(tmp_path: Path, name: str) -> None:
    with exchange.writer(name, tmp_path, split="train", dataset=DATASET, max_bytes=1) as out:
        for sample_id, payload, label in zip(IDS, IMAGES, LABELS, strict=True):
            out.write(sample_id, payload, label)
    assert out.num_files == 5
    assert len([path for path in tmp_path.rglob("*") if path.name.endswith(exchange.FORMATS[name].ENDINGS)]) == 5


@pytest.mark.parametrize("name", FORMATS)
def test_a_split_without_samples_makes_no_file(tmp_path: Path, name: str) -> None:
    with exchange.writer(name, tmp_path, split="train", dataset=DATASET):
        pass
    assert list(digests(tmp_path)) == ["dataset.json"]
    with pytest.raises(DataError, match="holds no file that ends with "):
        opened(tmp_path, name)


@pytest.mark.parametrize("name", FORMATS)
def test_splits_share_a_folder_and_are_told_apart(tmp_path: Path, name: str) -> None:
    export(tmp_path, name)
    with exchange.writer(name, tmp_path, split="test", dataset=DATASET) as out:
        out.write(IDS[0], IMAGES[0], 1)
    assert len(entries(tmp_path, name)) == 6
    (only,) = open_packed(str(tmp_path), format=name, wanted=Wanted(), split="test").records(Wanted())
    assert only.place.startswith("test")


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("name", FORMATS)
def test_an_error_takes_the_unfinished_file_back(tmp_path: Path, name: str, label: int) -> None:
    def write() -> None:
        with exchange.writer(name, tmp_path, split="train", dataset=DATASET, max_samples=1) as out:
            out.write(IDS[0], IMAGES[0], 0)
            out.write(IDS[1], IMAGES[1], 1)
            out.write(IDS[2], IMAGES[2], label)

    with pytest.raises(DataError, match=f"sample {IDS[2]} has label {label}, and there are 3 classes"):
        write()
    finished = [file for file in digests(tmp_path) if file != "dataset.json"]
    assert [Path(file).suffix for file in finished] == [exchange.FORMATS[name].ENDINGS[0]]


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"format 'zip' is none of \['webdataset', 'tfrecord', 'parquet', 'mds'\]"):
        exchange.writer("zip", tmp_path, split="train", dataset=None)


def test_an_index_of_something_else_does_not_matter(tmp_path: Path) -> None:
    (export(tmp_path, "webdataset") / "index.json").write_text("[]")
    assert len(entries(tmp_path, "webdataset")) == 5


@pytest.mark.parametrize("name", ["webdataset", "tfrecord"])
def test_compressed_files_are_read_and_cut_ones_refused(tmp_path: Path, name: str) -> None:
    (plain,) = export(tmp_path / "plain", name).glob("train*")
    packed = gzip.compress(plain.read_bytes())
    for folder, content in {"whole": packed, "cut": packed[:-20]}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{plain.name}.gz").write_bytes(content)
    assert len(entries(tmp_path / "whole", name)) == 5
    with pytest.raises(DataError, match=r"\.gz is a damaged or cut gzip file"):
        entries(tmp_path / "cut", name)


@pytest.mark.parametrize("name", FORMATS)
def test_listing_the_labels_reads_no_payload(tmp_path: Path, name: str) -> None:
    read = entries(export(tmp_path, name), name, payloads=False)
    assert [(entry.payload, entry.label) for entry in read if isinstance(entry, Record)] == [(None, n) for n in LABELS]


@pytest.mark.parametrize("name", FORMATS)
def test_a_payload_above_the_limit_is_a_fault(tmp_path: Path, name: str) -> None:
    large = [*IMAGES[:4], IMAGES[4] + bytes(500)]
    read = entries(export(tmp_path, name, large), name, max_bytes=400)
    assert [type(entry).__name__ for entry in read] == ["Record"] * 4 + ["Fault"]
    assert [reason for _, reason in faults(read)] == ["too_large"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_file_is_refused_wherever_it_was_cut(tmp_path: Path, name: str) -> None:
    export(tmp_path, name)
    (path,) = (file for file in tmp_path.rglob("*") if file.name.endswith(exchange.FORMATS[name].ENDINGS))
    whole = path.read_bytes()
    for index in tmp_path.rglob("index.json"):
        index.unlink()
    for length in {1, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
        if name == "webdataset" and length == len(whole) - 1:
            continue  # the end of a tar file is padding
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"truncated|no whole|cut"):
            entries(tmp_path, name)


def test_noise_is_never_read_as_a_sample(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, form in exchange.FORMATS.items():
        (tmp_path / name).mkdir()
        for seed in range(20):
            (tmp_path / name / f"noise{form.ENDINGS[0]}").write_bytes(rng.bytes(600 + seed))
            with pytest.raises(DataError):
                entries(tmp_path / name, name)


def test_damaged_bytes_give_faults_or_a_clear_error_and_no_other_sample(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for name, form in exchange.FORMATS.items():
        written = entries(export(tmp_path / name, name), name)
        (path,) = (file for file in (tmp_path / name).rglob("*") if file.name.endswith(form.ENDINGS))
        whole = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            for place in rng.integers(0, len(whole), 3):
                damaged[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            with contextlib.suppress(DataError):
                some = entries(tmp_path / name, name)
                assert name in UNCHECKED or all(one in written for one in some if isinstance(one, Record))


def test_writing_needs_no_foreign_library() -> None:
    code = (
        "import sys, datamill.shards.exchange; "
        "assert not {'tensorflow', 'datasets', 'streaming', 'webdataset', 'torch', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert importlib.util.find_spec("datamill.shards.exchange.conversion") is not None
