from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamill import runs
from datamill.runs import SortedRuns

PAIR = np.dtype([("key", np.int64), ("place", np.int64)])


def pairs(keys: list[int], *, start: int = 0) -> np.ndarray:
    records = np.empty(len(keys), PAIR)
    records["key"], records["place"] = keys, start + np.arange(len(keys))
    return records


def all_of(sorted_runs: SortedRuns) -> np.ndarray:
    return np.concatenate([np.empty(0, PAIR), *sorted_runs.merged()])


def test_records_come_back_in_the_order_of_their_keys(tmp_path: Path) -> None:
    numbers = SortedRuns(tmp_path / "numbers", np.float64)
    numbers.add(np.array([3.0, -1.0]))
    numbers.add(np.array([]))
    numbers.add(np.array([2.0, np.inf, -np.inf]))
    assert np.concatenate(list(numbers.merged())).tolist() == [-np.inf, -1.0, 2.0, 3.0, np.inf]
    assert len(numbers) == 5


def test_nothing_comes_back_of_nothing(tmp_path: Path) -> None:
    assert list(SortedRuns(tmp_path / "none", np.float64).merged()) == []


def test_a_file_that_a_killed_run_left_is_overwritten(tmp_path: Path) -> None:
    SortedRuns(tmp_path / "numbers", np.int64).add(np.array([7]))
    again = SortedRuns(tmp_path / "numbers", np.int64)
    again.add(np.array([2, 1]))
    assert np.concatenate(list(again.merged())).tolist() == [1, 2]


@given(st.lists(st.lists(st.integers(0, 6), max_size=30), max_size=8), st.integers(1, 5), st.integers(1, 40))
def test_equal_keys_keep_the_order_in_which_they_came(groups: list[list[int]], held: int, run: int) -> None:
    import tempfile

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(runs, "HELD_ROWS", held)
        patch.setattr(runs, "LEAST_ROWS", 1)
        patch.setattr(runs, "RUN_BYTES", run * PAIR.itemsize)
        sorted_runs = SortedRuns(Path(folder) / "runs", PAIR, key="key")
        for group in groups:
            sorted_runs.add(pairs(group, start=len(sorted_runs)))
        flat = [key for group in groups for key in group]
        expected = sorted(range(len(flat)), key=lambda place: flat[place])
        assert all_of(sorted_runs)["place"].tolist() == expected
        assert all_of(sorted_runs)["place"].tolist() == expected  # and again, from the merged file


def test_a_flood_of_equal_keys_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "HELD_ROWS", 100)
    monkeypatch.setattr(runs, "RUN_ROWS", 250)
    monkeypatch.setattr(runs, "RUN_BYTES", 250 * PAIR.itemsize)
    sorted_runs = SortedRuns(tmp_path / "runs", PAIR, key="key")
    for start in range(0, 1000, 250):
        sorted_runs.add(pairs([5] * 250, start=start))
    pieces = list(sorted_runs.merged())
    assert max(map(len, pieces)) <= 250
    assert np.concatenate(pieces)["place"].tolist() == list(range(1000))


def test_records_may_be_added_after_others_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "RUN_BYTES", 2 * 8)
    numbers = SortedRuns(tmp_path / "numbers", np.int64)
    numbers.add(np.array([5, 1, 4]))
    assert np.concatenate(list(numbers.merged())).tolist() == [1, 4, 5]
    numbers.add(np.array([3]))
    assert np.concatenate(list(numbers.merged())).tolist() == [1, 3, 4, 5]
    assert len(numbers) == 4
