from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.cleaning.missing import Modelled, interpolate, most_frequent, statistic
from datamill.hashes import word_hashes

NAN = np.nan
ALL = np.ones(4, bool)


@pytest.mark.parametrize(("policy", "expected"), [("mean", 4.0), ("median", 3.0), ("mode", 3.0)])
def test_a_statistic_is_that_of_the_finite_values(policy: Any, expected: float) -> None:
    assert statistic(np.array([1.0, NAN, 3.0, 3.0, np.inf, 9.0]), policy=policy) == expected


def test_the_mode_is_the_smallest_of_the_most_frequent() -> None:
    assert statistic(np.array([7.0, 2.0, 7.0, 2.0, 1.0]), policy="mode") == 2.0


@pytest.mark.parametrize("policy", ["mean", "median", "mode"])
def test_a_column_without_a_value_has_no_statistic(policy: Any) -> None:
    assert np.isnan(statistic(np.array([NAN, np.inf]), policy=policy))


def test_interpolation_follows_the_given_order() -> None:
    column = np.array([0.0, NAN, 10.0, 2.0])
    assert interpolate(column, fit_on=ALL, order=np.arange(4))[1] == 5.0
    assert interpolate(column, fit_on=ALL, order=np.array([0, 1, 3, 2]))[1] == 1.0


def test_interpolation_learns_from_the_rows_it_is_told_to() -> None:
    column = np.array([1.0, NAN, 3.0, 100.0])
    fit_on = np.array([True, True, False, True])
    assert interpolate(column, fit_on=fit_on, order=np.arange(4))[1] == 34.0


def test_before_the_first_and_after_the_last_their_value_stands_in() -> None:
    assert interpolate(np.array([NAN, 2.0, 5.0, np.inf]), fit_on=ALL, order=np.arange(4)).tolist() == [2, 2, 5, 5]


def test_nothing_known_gives_no_line() -> None:
    assert np.isnan(interpolate(np.full(4, NAN), fit_on=ALL, order=np.arange(4))).all()


def test_regression_recovers_a_linear_relation() -> None:
    x = np.linspace(0, 10, 50)
    values = np.stack([x, 3 * x + 1], axis=1)
    values[7, 1] = NAN
    estimate = Modelled(values, policy="regression", neighbors=1).estimate(values)
    assert estimate[7, 1] == pytest.approx(3 * x[7] + 1, rel=0.01)


def test_nearest_rows_vote_on_standardised_columns() -> None:
    values = np.array([[0.0, 1000.0, 5.0], [0.1, 1010.0, 7.0], [9.0, 1005.0, 50.0], [0.05, 1005.0, NAN]])
    assert Modelled(values, policy="knn", neighbors=2).estimate(values)[3, 2] == 6.0


@pytest.mark.parametrize("policy", ["knn", "regression"])
def test_a_model_estimates_each_row_by_itself(policy: Any) -> None:
    values = np.random.default_rng(0).normal(size=(40, 3))
    values[::4, 1] = NAN
    model = Modelled(values, policy=policy, neighbors=3)
    pieces = [model.estimate(values[start : start + 7]) for start in range(0, 40, 7)]
    np.testing.assert_allclose(np.concatenate(pieces), model.estimate(values), rtol=1e-9)


@pytest.mark.parametrize("policy", ["knn", "regression"])
def test_a_column_without_values_stays_unknown_and_infinity_is_not_learnt_from(policy: Any) -> None:
    values = np.array([[NAN, 1.0], [NAN, np.inf], [NAN, NAN], [NAN, 3.0]])
    estimate = Modelled(values, policy=policy, neighbors=2).estimate(values)
    assert np.isnan(estimate[:, 0]).all()
    assert np.isfinite(estimate[:, 1]).all()


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["b", None, "a", "b", "a"], "a"), (["c", "b", "b"], "b"), ([None, None], None), ([], None)],
)
def test_a_category_takes_the_most_frequent_and_first_name(words: list[str | None], expected: str | None) -> None:
    column = pa.array(words, pa.string())
    pieces = [column.slice(start, 2) for start in range(0, len(column), 2)]
    assert most_frequent(word_hashes(column), pieces) == expected


def test_words_of_rows_that_are_not_counted_cannot_win() -> None:
    column = pa.array(["a", "a", "a", "b"])
    assert most_frequent(word_hashes(column)[2:], [column]) == "a"
    assert most_frequent(word_hashes(column)[3:], [column]) == "b"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "", "ab"]), min_size=1, max_size=12))
def test_the_most_frequent_word_is_that_of_a_count(words: list[str]) -> None:
    column = pa.array(words)
    most = max(words.count(word) for word in words)
    assert most_frequent(word_hashes(column), [column]) == min(word for word in words if words.count(word) == most)
