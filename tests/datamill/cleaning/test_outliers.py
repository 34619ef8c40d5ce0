from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from datamill.cleaning.outliers import Isolation, usual_bounds
from datamill.cleaning.policies import OutlierPolicy


def policy(method: str, **changes: Any) -> OutlierPolicy:
    fields = {"action": "flag", "max_zscore": 3.0, "max_iqr": 1.5, "contamination": 0.1} | changes
    return OutlierPolicy(method=method, **fields)  # type: ignore[arg-type]


def test_quartile_bounds_are_tukeys_fences() -> None:
    assert usual_bounds(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), policy=policy("iqr")) == (-1.0, 7.0)


def test_zscore_bounds_are_deviations_from_the_mean() -> None:
    column = np.array([-1.0, 1.0, np.nan, np.inf])
    assert usual_bounds(column, policy=policy("zscore", max_zscore=2.0)) == (-2.0, 2.0)


@pytest.mark.parametrize("method", ["zscore", "iqr"])
@pytest.mark.parametrize("column", [[5.0, 5.0], [np.nan, np.inf], []])
def test_a_column_without_spread_has_no_bounds(method: str, column: list[float]) -> None:
    assert usual_bounds(np.array(column), policy=policy(method)) == (-np.inf, np.inf)


def test_the_forest_finds_the_row_far_away_and_is_repeatable() -> None:
    values = np.random.default_rng(0).normal(size=(60, 3))
    values[17] = [9.0, np.inf, np.nan]
    rows = Isolation(values, contamination=0.02, seed=3).is_unusual(values)
    assert rows[17]
    np.testing.assert_array_equal(rows, Isolation(values, contamination=0.02, seed=3).is_unusual(values))


def test_a_forest_judges_each_row_by_itself() -> None:
    values = np.random.default_rng(0).normal(size=(60, 3))
    forest = Isolation(values, contamination=0.1, seed=3)
    pieces = [forest.is_unusual(values[start : start + 7]) for start in range(0, 60, 7)]
    np.testing.assert_array_equal(np.concatenate(pieces), forest.is_unusual(values))


def test_a_forest_without_a_known_value_finds_nothing() -> None:
    values = np.full((3, 2), np.nan)
    assert not Isolation(values, contamination=0.1, seed=3).is_unusual(values).any()


def test_a_forest_cannot_clip() -> None:
    with pytest.raises(ValidationError, match="no bound to clip to: use action drop or flag"):
        policy("isolation_forest", action="clip")
