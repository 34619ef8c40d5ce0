import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill import runs
from datamill.validation.profiling import ColumnProfile, Profile, profile_of

NUMBERS = st.sampled_from([0.0, -0.0, 1.0, 2.5, 7.0, np.nan, np.inf, -np.inf])


def profile(frame: pd.DataFrame, *, rows: int = 4) -> Profile:
    """The profile of a frame that comes in blocks of ``rows`` rows."""
    with tempfile.TemporaryDirectory() as folder:
        blocks = [frame[start : start + rows] for start in range(0, len(frame), rows)]
        return profile_of(blocks, scratch=Path(folder))


def test_the_profile_says_types_ranges_holes_and_classes() -> None:
    frame = pd.DataFrame(
        {
            "width": [8, 9, 8, 9, 7],
            "height": [1.5, np.nan, 7.0, np.inf, 2.0],
            "colour": ["red", None, "blue", "red", "green"],
            "label": ["1", "0", "0", "10", "0"],
        }
    )
    found = profile(frame, rows=2)
    assert found.as_json() == {
        "num_samples": 5,
        "columns": {
            "width": {"type": "int64", "nulls": 0, "distinct": 3, "min": 7, "max": 9},
            "height": {"type": "float64", "nulls": 1, "distinct": 4, "min": 1.5, "max": 7.0},
            "colour": {"type": "string", "nulls": 1, "distinct": 3},
        },
        "classes": {"0": 3, "1": 1, "10": 1},
    }
    assert found.columns["width"].usual == (8, 2)
    assert found.columns["height"].quartiles == (1.75, 4.5)


def test_a_column_without_a_finite_value_has_no_range() -> None:
    found = profile(pd.DataFrame({"x": [np.inf, np.nan], "label": ["0", "1"]}))
    assert found.columns["x"] == ColumnProfile(type="float64", nulls=1, distinct=1, has_infinite=True)
    assert found.as_json()["columns"]["x"] == {"type": "float64", "nulls": 1, "distinct": 1}


def test_values_are_counted_for_labels_and_class_sizes_too() -> None:
    found = profile(pd.DataFrame({"x": [1.0, np.nan, 1.0], "label": ["a", "b", "a"]}))
    assert [found.count(name) for name in ("x", "label", "class_size")] == [(1, 2), (2, 3), (2, 3)]


@given(st.lists(NUMBERS, min_size=1, max_size=40), st.integers(1, 9))
@settings(deadline=None)
def test_blocks_give_what_numpy_says_of_the_whole(numbers: list[float], rows: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "HELD_ROWS", 5)
        patch.setattr(runs, "LEAST_ROWS", 1)
        patch.setattr(runs, "RUN_BYTES", 8 * rows)
        found = profile(pd.DataFrame({"x": numbers, "label": ["a"] * len(numbers)}), rows=rows).columns["x"]
    values = pd.Series(numbers)
    finite = values[np.isfinite(values)]
    assert (found.nulls, found.distinct) == (values.isna().sum(), values.nunique())
    if len(finite):
        assert found.bounds == (finite.min(), finite.max())
        assert found.quartiles == tuple(np.quantile(finite, [0.25, 0.75]))
    else:
        assert (found.bounds, found.quartiles) == (None, None)
