import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamill.cleaning.missing import impute_category, impute_numbers

Floats = NDArray[np.float64]
NAN = np.nan
VALUES = np.array([[1.0, 2.0], [NAN, 4.0], [3.0, NAN], [3.0, 10.0], [9.0, 2.0]])
ALL = np.ones(5, bool)
POLICIES = ("mean", "median", "mode", "interpolate", "knn", "regression")


def impute(values: Floats, *, policy: str, fit_on: NDArray[np.bool_] | None = None) -> Floats:
    return impute_numbers(
        values,
        policy=policy,  # type: ignore[arg-type]
        fit_on=np.ones(len(values), bool) if fit_on is None else fit_on,
        order=np.arange(len(values)),
        neighbors=2,
    )


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("mean", (4.0, 4.5)), ("median", (3.0, 3.0)), ("mode", (3.0, 2.0)), ("interpolate", (2.0, 7.0))],
)
def test_a_hole_takes_the_value_its_policy_says(policy: str, expected: tuple[float, float]) -> None:
    filled = impute(VALUES, policy=policy)
    assert (filled[1, 0], filled[2, 1]) == expected


def test_only_the_rows_to_fit_on_are_learnt_from() -> None:
    fit_on = np.array([True, True, True, False, False])
    assert impute(VALUES, policy="mean", fit_on=fit_on)[1, 0] == 2.0
    assert impute(VALUES, policy="interpolate", fit_on=np.array([True, True, False, False, True]))[1, 0] == 3.0


def test_regression_recovers_a_linear_relation() -> None:
    x = np.linspace(0, 10, 50)
    values = np.stack([x, 3 * x + 1], axis=1)
    values[7, 1] = NAN
    assert impute(values, policy="regression")[7, 1] == pytest.approx(3 * x[7] + 1, rel=0.01)


def test_nearest_rows_vote_on_standardised_columns() -> None:
    values = np.array([[0.0, 1000.0, 5.0], [0.1, 1010.0, 7.0], [9.0, 1005.0, 50.0], [0.05, 1005.0, NAN]])
    assert impute(values, policy="knn")[3, 2] == 6.0


def test_interpolation_follows_the_given_order() -> None:
    values = np.array([[0.0], [NAN], [10.0], [2.0]])
    filled = impute_numbers(
        values, policy="interpolate", fit_on=np.ones(4, bool), order=np.array([0, 1, 3, 2]), neighbors=1
    )
    assert filled[1, 0] == 1.0


@pytest.mark.parametrize("policy", POLICIES)
def test_a_column_without_values_stays_missing_and_infinity_stays_infinite(policy: str) -> None:
    filled = impute(np.array([[NAN, 1.0], [NAN, np.inf], [NAN, NAN], [NAN, 3.0]]), policy=policy)
    assert np.isnan(filled[:, 0]).all()
    assert filled[1, 1] == np.inf
    assert np.isfinite(filled[2, 1])


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.sampled_from([NAN, 0.0, 1.0, 2.5]), min_size=3, max_size=3), min_size=1, max_size=12))
def test_known_values_never_change(policy: str, rows: list[list[float]]) -> None:
    values = np.array(rows)
    filled = impute(values, policy=policy)
    known = ~np.isnan(values)
    np.testing.assert_array_equal(filled[known], values[known])
    assert np.isfinite(filled[:, known.any(axis=0)]).all()


def test_a_category_takes_the_most_frequent_and_first_name() -> None:
    words = np.array(["b", None, "a", "b", "a"], object)
    assert impute_category(words, fit_on=ALL).tolist() == ["b", "a", "a", "b", "a"]
    assert impute_category(np.array([None, None], object), fit_on=np.ones(2, bool)).tolist() == [None, None]
