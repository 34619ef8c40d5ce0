from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamill import extracting, ledger, parts
from datamill.cleaning import observing
from datamill.cleaning.observing import NUM_PIXELS, Observed, observe, records_at, sketch
from tests.builders import CLASSES, image_table, write_parts
from tests.fakes import InlineEngine

NUM_SAMPLES = 64
LOST = [0, 5, 6, 40, 63]
KEPT = [row for row in range(NUM_SAMPLES) if row not in LOST]


@pytest.fixture
def observed(tmp_path: Path) -> Observed:
    """Facts about 64 images of which five were quarantined."""
    dataset, table = image_table(num_samples=NUM_SAMPLES)
    write_parts(tmp_path / "samples", dataset, table)
    extracting.extract(tmp_path / "samples", folder=tmp_path / "features", engine=InlineEngine())
    fates = ["quarantined" if row in LOST else "kept" for row in range(NUM_SAMPLES)]
    nothing = [""] * NUM_SAMPLES
    verdicts = {"sample_ids": table["sample_id"], "fates": fates, "reasons": nothing, "details": nothing}
    ledger.write(tmp_path / "verdicts", **verdicts)
    return observe(
        tmp_path / "features",
        samples=tmp_path / "samples",
        decisions=tmp_path / "verdicts",
        classes=CLASSES,
        is_looking=True,
        scratch=tmp_path,
    )


def pixels_of(folder: Path) -> np.ndarray:
    """Thumbnails of the samples that survived."""
    tables = parts.iter_tables(folder / "features", columns=["thumbnail"])
    found = [thumbnail for table in tables for thumbnail in table["thumbnail"].to_pylist()]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, NUM_PIXELS)[KEPT]


def test_only_survivors_are_known_by_rows_of_their_own(observed: Observed, tmp_path: Path) -> None:
    (records,) = observed.contents.merged()
    assert sorted(records["row"].tolist()) == list(range(len(KEPT)))
    by_row = records[np.argsort(records["row"])]
    assert by_row["label"].tolist() == [row % 3 for row in KEPT]
    ids = [key for table in parts.iter_tables(tmp_path / "samples") for key in table["sample_id"].to_pylist()]
    assert observed.ids.between(0, 3).to_pylist() == [ids[row] for row in KEPT[:3]]


@pytest.mark.parametrize("rows", [[3], [0, 1, 4, 38, 58], list(range(59))])
def test_thumbnails_are_read_by_row_from_features_or_from_a_file_of_all(
    observed: Observed, tmp_path: Path, rows: list[int]
) -> None:
    assert observed.thumbnails is not None
    pixels = pixels_of(tmp_path)
    np.testing.assert_array_equal(observed.thumbnails.read(np.array(rows)), pixels[rows])
    observed.thumbnails.sketches(None)
    assert (tmp_path / "thumbnails").stat().st_size == len(KEPT) * NUM_PIXELS
    np.testing.assert_array_equal(observed.thumbnails.read(np.array(rows)), pixels[rows])


@pytest.mark.parametrize(("rows", "is_flat"), [([2, 50], False), (list(range(59)), True), ([], False)])
def test_sketches_of_a_few_are_read_alone(observed: Observed, tmp_path: Path, rows: list[int], is_flat: bool) -> None:
    assert observed.thumbnails is not None
    found = observed.thumbnails.sketches(np.array(rows, np.int64))
    expected = sketch(pixels_of(tmp_path)).view(np.uint64).ravel()
    assert found[rows].tolist() == expected[rows].tolist()
    assert (tmp_path / "thumbnails").exists() == is_flat


def test_a_sketch_is_the_mean_and_three_differences() -> None:
    pixels = np.zeros((1, 16, 16), np.uint8)
    pixels[0, :8, 8:] = 255  # the upper right quarter
    assert sketch(pixels.reshape(1, -1)).tolist() == [[4080, -4080, 4080, -4080]]


@given(st.lists(st.integers(0, 199), max_size=60), st.integers(1, 70), st.integers(1, 5))
def test_records_are_found_wherever_they_lie(rows: list[int], per_chunk: int, worth: int) -> None:
    import tempfile

    numbers = np.arange(200, dtype=np.int64) ** 2
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(observing, "CHUNK_BYTES", 8 * per_chunk)
        patch.setattr(observing, "CHUNK_WORTH", worth)
        numbers.tofile(Path(folder) / "numbers")
        found = records_at(Path(folder) / "numbers", np.array(rows, np.int64), np.dtype(np.int64))
    assert found.tolist() == [row**2 for row in rows]
