import gc
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from datamill.modalities.image import encode_png
from datamill.shards.webdataset import TarWriter, image_member, row_member


def write(folder: Path, *, count: int = 5, max_samples: int = 2) -> list[Path]:
    folder.mkdir()
    with TarWriter(folder, split="train", max_samples=max_samples) as tar:
        for number in range(count):
            extension, payload = row_member(np.full(3, number, np.float32))
            tar.write(f"{number:032x}", extension=extension, payload=payload, label=number % 3)
    return sorted(folder.iterdir())


def test_files_hold_at_most_max_samples(tmp_path: Path) -> None:
    tars = write(tmp_path / "a")
    assert [tar.name for tar in tars] == ["train-000000.tar", "train-000001.tar", "train-000002.tar"]
    with tarfile.open(tars[2]) as tar:
        assert tar.getnames() == [f"{4:032x}.npy", f"{4:032x}.cls"]


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert [tar.read_bytes() for tar in first] == [tar.read_bytes() for tar in second]
    with tarfile.open(first[0]) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}


def test_a_split_without_samples_makes_no_file(tmp_path: Path) -> None:
    assert write(tmp_path / "a", count=0) == []


def test_images_keep_their_own_bytes() -> None:
    payload = encode_png(np.zeros((4, 4, 1), np.uint8))
    assert image_member(payload) == ("png", payload)


def test_rows_are_npy_without_pickles() -> None:
    extension, payload = row_member(np.array([1.5, -2], np.float32))
    assert extension == "npy"
    np.testing.assert_array_equal(np.load(io.BytesIO(payload), allow_pickle=False), np.array([1.5, -2], np.float32))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the library leaves files open
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_webdataset_library_reads_it(tmp_path: Path) -> None:
    import webdataset

    tars = write(tmp_path / "a")
    read = list(webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False).decode())
    assert [sample["__key__"] for sample in read] == [f"{number:032x}" for number in range(5)]
    assert [sample["cls"] for sample in read] == [0, 1, 2, 0, 1]
    np.testing.assert_array_equal(read[3]["npy"], np.full(3, 3, np.float32))
    gc.collect()  # so that the files it left open are closed here, where that may be
