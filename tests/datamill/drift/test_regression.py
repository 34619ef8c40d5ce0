"""A regression's loss on new samples, and its drift."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamill.drift import Control, Observations, Verdict, judge
from datamill.drift.observations import take
from datamill.drift.regression import LossRule, estimate_loss, loss_performance, losses_of, measure_loss
from tests.datamill.drift.made import params

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MAE = LossRule("mae", level=0.01, margin=0.1, interval=0.95)


def loads(num: int, *, low: float = 0.0, seed: int = 0, bias: float = 0.0) -> Observations:
    """Samples of a model whose errors grow with ``load``, drawn from ``low`` on, and double in the cold."""
    rng = np.random.default_rng(seed)
    load = rng.uniform(low, 1, num)
    place = rng.choice(["cold", "warm"], num, p=[0.2, 0.8])
    noise = rng.normal(0, (0.1 + load) * np.where(place == "cold", 2.0, 1.0))
    return Observations(
        sample_ids=tuple(f"{seed}-{row}" for row in range(num)),
        features=pa.table({"load": load, "place": place}),
        predictions=3 * load,
        targets=3 * load + bias + noise,
    )


REFERENCE = loads(4_000)


def without_targets(window: Observations) -> Observations:
    return dataclasses.replace(window, targets=None)


def verdict(window: Observations, **changes: Any) -> Verdict:
    given = params(max_classifier_rows=10_000, detectors={"embedding": []}, **changes)
    return judge(REFERENCE, window, params=given, control=Control(), now=NOW)[0]


def true_loss(window: Observations, *, metric: str) -> float:
    assert window.predictions is not None
    assert window.targets is not None
    errors = window.predictions - window.targets
    return float(np.abs(errors).mean()) if metric == "mae" else float(np.sqrt((errors**2).mean()))


@pytest.mark.parametrize("metric", ["mae", "rmse"])
@pytest.mark.parametrize("low", [0.0, 0.3, 0.6])
def test_the_loss_is_estimated_without_targets_where_the_inputs_moved(metric: str, low: float) -> None:
    window = loads(2_000, low=low, seed=1)
    told = verdict(without_targets(window), loss=metric).performance
    assert told is not None
    assert (told.metric, told.is_measured) == (metric, False)
    true = true_loss(window, metric=metric)
    assert told.estimated == pytest.approx(true, rel=0.06)
    assert told.low < true < told.high
    assert told.is_at_risk is (low > 0)
    assert told.reference == pytest.approx(true_loss(REFERENCE, metric=metric))


def test_the_interval_holds_the_true_loss_about_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(12):
        window = loads(300, low=0.4, seed=100 + seed)
        told = loss_performance(REFERENCE, without_targets(window), params=params(), level=0.05)
        assert told is not None
        inside += told.low < true_loss(window, metric="mae") < told.high
    assert inside >= 9  # of 12 at 0.95


def test_the_loss_is_measured_where_there_are_targets() -> None:
    window = loads(400, seed=1, bias=2.0)
    told = verdict(window).performance
    assert told is not None
    assert told.is_measured
    assert told.is_at_risk
    assert told.estimated == pytest.approx(true_loss(window, metric="mae"))


def test_too_few_targets_are_not_measured_by() -> None:
    window = loads(400, seed=1, bias=2.0)
    assert window.targets is not None
    few = dataclasses.replace(window, targets=np.where(np.arange(400) < 30, window.targets, np.nan))
    told = verdict(few).performance
    assert told is not None
    assert not told.is_measured


def test_predictions_and_targets_that_moved_are_named_with_where() -> None:
    found = verdict(loads(600, low=0.5, seed=2))
    moved = {(one.kind, one.detector) for one in found.outcomes if one.is_drift}
    assert {("prediction", "ks"), ("label", "ks"), ("input", "ks")} <= moved
    (one,) = [one for one in found.outcomes if one.kind == "prediction"]
    assert one.detail["mean_before"] == pytest.approx(1.5, abs=0.05)
    assert one.detail["mean_after"] == pytest.approx(2.25, abs=0.05)
    assert len(one.detail["examples"]) == 3


def test_an_unchanged_regression_is_neither_drift_nor_at_risk() -> None:
    found = verdict(loads(600, seed=3))
    assert (found.is_drift, found.is_at_risk, found.notes) == (False, False, ())
    assert verdict(without_targets(loads(600, seed=3))).notes == ("fewer than 50 targets: not compared",)


def test_predictions_that_are_no_numbers_are_a_fault_of_the_data_and_left_out_of_the_loss() -> None:
    window = without_targets(loads(400, seed=1))
    assert window.predictions is not None
    broken = dataclasses.replace(window, predictions=np.where(np.arange(400) < 50, np.nan, window.predictions))
    found = verdict(broken)
    assert ("non_finite", "(predictions)") in {(one.detector, one.subject) for one in found.outcomes if one.is_drift}
    assert found.performance is not None
    assert np.isfinite(found.performance.estimated)
    nothing = verdict(dataclasses.replace(window, predictions=np.full(400, np.nan)))
    assert nothing.performance is None


def test_taking_rows_takes_predictions_and_targets_along() -> None:
    some = take(REFERENCE, np.array([3, 1]))
    assert REFERENCE.predictions is not None
    assert REFERENCE.targets is not None
    assert some.predictions is not None
    assert some.targets is not None
    assert some.predictions.tolist() == REFERENCE.predictions[[3, 1]].tolist()
    assert some.targets.tolist() == REFERENCE.targets[[3, 1]].tolist()


def test_a_loss_is_absolute_or_squared_and_unknown_targets_have_none() -> None:
    predictions, targets = np.array([1.0, 2.0, 5.0]), np.array([2.0, np.nan, 2.0])
    assert losses_of(predictions, targets, metric="mae").tolist() == [1.0, 3.0]
    assert losses_of(predictions, targets, metric="rmse").tolist() == [1.0, 9.0]


def test_equal_losses_are_estimated_exactly() -> None:
    known, new = np.arange(100.0)[:, None], np.ones((5, 1))
    told = estimate_loss(known, losses=np.full(100, 2.0), window_MD=new, rule=MAE, seed=0)
    assert (told.reference, told.estimated, told.low, told.high, told.is_at_risk) == (2.0, 2.0, 2.0, 2.0, False)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_a_measured_loss_lies_in_its_interval(before: list[float], after: list[float]) -> None:
    for metric in ("mae", "rmse"):
        rule = LossRule(metric, level=0.01, margin=0.1, interval=0.95)  # type: ignore[arg-type]
        told = measure_loss(np.array(before), np.array(after), rule=rule)
        assert 0 <= told.low <= told.estimated * (1 + 1e-9) + 1e-9
        assert told.estimated <= told.high * (1 + 1e-9) + 1e-9
