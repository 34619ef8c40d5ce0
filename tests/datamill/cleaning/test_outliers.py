from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from datamill.cleaning.outliers import isolated_rows, usual_bounds
from datamill.cleaning.policies import OutlierPolicy


def policy(method: str, **changes: Any) -> OutlierPolicy:
    fields = {"action": "flag", "max_zscore": 3.0, "max_iqr": 1.5, "contamination": 0.1} | changes
    return OutlierPolicy(method=method, **fields)  # type: ignore[arg-type]


def test_quartile_bounds_are_tukeys_fences() -> None:
    values = np.array([[1.0], [2.0], [3.0], [4.0], [5.0]])
    low, high = usual_bounds(values, policy=policy("iqr"), fit_on=np.ones(5, bool))
    assert (low.tolist(), high.tolist()) == ([-1.0], [7.0])


def test_zscore_bounds_are_deviations_from_the_mean() -> None:
    values = np.array([[-1.0], [1.0], [np.nan], [np.inf]])
    low, high = usual_bounds(values, policy=policy("zscore", max_zscore=2.0), fit_on=np.ones(4, bool))
    assert (low.tolist(), high.tolist()) == ([-2.0], [2.0])


@pytest.mark.parametrize("method", ["zscore", "iqr"])
def test_a_column_without_spread_has_no_bounds(method: str) -> None:
    values = np.array([[5.0, np.nan], [5.0, np.nan]])
    low, high = usual_bounds(values, policy=policy(method), fit_on=np.ones(2, bool))
    assert np.isinf(low).all()
    assert np.isinf(high).all()


def test_bounds_come_from_the_rows_to_fit_on() -> None:
    values = np.array([[-1.0], [1.0], [1000.0]])
    low, high = usual_bounds(values, policy=policy("zscore"), fit_on=np.array([True, True, False]))
    assert (low.tolist(), high.tolist()) == ([-3.0], [3.0])


def test_the_forest_finds_the_row_far_away_and_is_repeatable() -> None:
    values = np.random.default_rng(0).normal(size=(60, 3))
    values[17] = [9.0, np.inf, np.nan]
    fit_on = np.ones(60, bool)
    rows = isolated_rows(values, contamination=0.02, fit_on=fit_on, seed=3)
    assert rows[17]
    np.testing.assert_array_equal(rows, isolated_rows(values, contamination=0.02, fit_on=fit_on, seed=3))


def test_a_forest_cannot_clip() -> None:
    with pytest.raises(ValidationError, match="no bound to clip to: use action drop or flag"):
        policy("isolation_forest", action="clip")
