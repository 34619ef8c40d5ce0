"""Checks of a window's data itself."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from datamill.drift import Observations, Outcome
from datamill.drift.quality import check, unseen_p_value
from tests.datamill.drift.made import observations


def table(**columns: object) -> Observations:
    features = pa.table(columns)
    return Observations(tuple(map(str, range(features.num_rows))), features)


def found(reference: Observations, window: Observations) -> dict[tuple[str, str], Outcome]:
    return {(one.detector, one.subject): one for one in check(reference, window, num_examples=2)}


def test_missing_new_and_changed_columns_are_drift_by_themselves() -> None:
    outcomes = found(table(a=[1.0], b=[1.0], c=["x"]), table(b=["1"], c=["x"], d=[2.0]))
    assert [key for key, one in outcomes.items() if one.is_drift] == [("schema", "a"), ("schema", "b"), ("schema", "d")]
    assert outcomes["schema", "b"].detail == {"before": "double", "after": "string"}


def test_other_classes_and_other_embeddings_mean_another_model() -> None:
    window = dataclasses.replace(observations(30), classes=("boot", "coat"), embeddings=np.zeros((30, 7), np.float32))
    outcomes = found(observations(30), window)
    assert outcomes["schema", "(classes)"].detail["after"] == ["boot", "coat"]
    assert outcomes["schema", "(embeddings)"].detail == {"before": 4, "after": 7}


def test_a_column_of_nulls_is_told_with_examples() -> None:
    one = found(table(a=[1.0, 2.0] * 20), table(a=pa.nulls(20, pa.float64())))["null_share", "a"]
    assert (one.statistic, one.effect, one.detail["examples"]) == (1.0, 1.0, ["0", "1"])
    assert one.p_value is not None
    assert one.p_value < 1e-10


def test_nan_is_not_finite_and_not_missing() -> None:
    outcomes = found(table(a=[1.0, 2.0] * 20), table(a=[float("nan"), float("inf"), 1.0, 2.0] * 5))
    assert outcomes["null_share", "a"].statistic == 0
    assert outcomes["non_finite", "a"].statistic == 0.5
    assert outcomes["non_finite", "a"].detail["examples"] == ["0", "1"]


def test_probabilities_that_are_no_numbers_are_told() -> None:
    window = observations(30, seed=1)
    assert window.probabilities is not None
    window.probabilities[3] = np.nan
    assert found(observations(30), window)["non_finite", "(probabilities)"].detail["examples"] == ["1-3"]


def test_images_larger_than_any_of_the_reference_are_out_of_range() -> None:
    window = table(height=[28.0] * 8 + [512.0, 600.0])
    one = found(table(height=[28.0] * 500), window)["range", "height"]
    assert (one.statistic, one.detail["count"], one.detail["examples"]) == (0.2, 2, ["8", "9"])
    assert one.p_value is not None
    assert one.p_value < 0.002


def test_a_new_category_is_named() -> None:
    window = table(colour=["red"] * 16 + ["pink"] * 4)
    one = found(table(colour=["red", "blue"] * 100), window)["unseen_category", "colour"]
    assert (one.statistic, one.detail["values"], one.detail["examples"]) == (0.2, ["pink"], ["16", "17"])
    assert one.p_value is not None
    assert one.p_value < 1e-4


def test_where_most_values_occur_once_new_ones_are_no_surprise() -> None:
    reference, window = table(name=[f"n{row}" for row in range(100)]), table(name=[f"m{row}" for row in range(20)])
    p_value = found(reference, window)["unseen_category", "name"].p_value
    assert p_value is not None
    assert p_value > 0.5


def test_an_unknown_class_is_told() -> None:
    window = observations(30, seed=1)
    assert window.labels is not None
    window.labels[:6] = -2
    one = found(observations(300), window)["unknown_class", ""]
    assert (one.statistic, one.detail["count"]) == (0.2, 6)


@pytest.mark.parametrize(("count", "known"), [(0, 1.0), (1, 0.5), (2, 1 / 6)])
def test_exceedances_of_two_new_samples_and_two_old(count: int, known: float) -> None:
    # of 4 samples in random order the oddest is a new one in half of the cases, the two oddest in a sixth
    assert unseen_p_value(count, num=2, num_reference=2, num_allowed=0) == pytest.approx(known)


def test_extremes_beyond_the_reference_are_as_rare_as_told() -> None:
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(2_000):
        reference, window = rng.normal(size=40), rng.normal(size=60)
        count = int(((window < reference.min()) | (window > reference.max())).sum())
        p_values.append(unseen_p_value(count, num=60, num_reference=40, num_allowed=1))
    assert np.mean(np.array(p_values) <= 0.05) <= 0.06
    assert np.mean(np.array(p_values) <= 0.05) >= 0.02
