"""Performance without labels."""

import numpy as np
import pytest

from datamill.drift.detectors import Setting
from datamill.drift.estimation import (
    Calibrator,
    Judged,
    Residual,
    estimate_accuracy,
    judged,
    measure_accuracy,
)


def calibrated(num: int, *, seed: int, low: float = 0.5, bias: float = 0.0) -> Judged:
    """Answers whose confidence, less ``bias``, is the chance that they are right."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(low, 0.99, num)
    return Judged(confidence, (rng.random(num) < confidence - bias).astype(float))


def test_the_calibrator_learns_that_a_model_is_too_sure() -> None:
    known = calibrated(20_000, seed=0, bias=0.2)
    calibrator = Calibrator(known.confidence, is_correct=known.is_correct)
    assert calibrator(np.array([0.6, 0.8])) == pytest.approx([0.4, 0.6], abs=0.04)


def test_a_reference_without_errors_expects_none() -> None:
    assert Calibrator(np.array([0.5, 0.9]), is_correct=np.ones(2))(np.array([0.1])).tolist() == [1.0]


def test_accuracy_is_estimated_from_confidence_alone() -> None:
    reference, window = calibrated(5_000, seed=0), calibrated(5_000, seed=1, low=0.3)
    found = estimate_accuracy(reference, window.confidence, level=0.01, margin=0.05, interval=0.95)
    assert found.estimated == pytest.approx(window.is_correct.mean(), abs=0.02)
    assert found.low < window.is_correct.mean() < found.high
    assert (found.is_measured, found.is_at_risk) == (False, True)


def test_nine_in_ten_intervals_hold_the_accuracy() -> None:
    reference = calibrated(2_000, seed=0)
    held = 0
    for seed in range(60):
        window = calibrated(300, seed=seed + 1)
        found = estimate_accuracy(reference, window.confidence, level=0.01, margin=0.0, interval=0.9)
        held += found.low <= window.is_correct.mean() <= found.high
    assert held >= 48


def test_one_uncertain_sample_puts_no_model_at_risk() -> None:
    found = estimate_accuracy(calibrated(2_000, seed=0), np.array([0.5]), level=0.01, margin=0.0, interval=0.95)
    assert found.estimated < 0.6
    assert not found.is_at_risk


@pytest.mark.parametrize(("num_right", "is_at_risk"), [(180, False), (171, False), (150, True)])
def test_measured_accuracy_is_at_risk_when_it_is_surely_and_much_lower(num_right: int, *, is_at_risk: bool) -> None:
    reference = Judged(np.full(1_000, 0.9), np.repeat([1.0, 0.0], [900, 100]))
    window = Judged(np.full(200, 0.9), np.repeat([1.0, 0.0], [num_right, 200 - num_right]))
    found = measure_accuracy(reference, window, level=0.01, margin=0.05, interval=0.95)
    assert found.is_at_risk is is_at_risk
    assert found.low < num_right / 200 < found.high


def test_wilsons_interval_of_ninety_in_a_hundred() -> None:
    answers = Judged(np.full(100, 0.9), np.repeat([1.0, 0.0], [90, 10]))
    found = measure_accuracy(answers, answers, level=0.01, margin=0.0, interval=0.95)
    assert (found.low, found.high) == (pytest.approx(0.8256, abs=1e-4), pytest.approx(0.9448, abs=1e-4))


def test_a_label_that_is_none_of_the_classes_is_wrong_and_an_absent_one_does_not_count() -> None:
    answers = judged(np.tile(np.array([[0.8, 0.2]], np.float32), (4, 1)), np.array([0, 1, -1, -2]))
    assert answers.is_correct.tolist() == [1.0, 0.0, 0.0]


def test_concept_drift_is_being_wrong_at_the_same_confidence() -> None:
    setting = Setting(100, 0.05, 0)
    detector = Residual(calibrated(3_000, seed=0).rows, setting=setting)
    harder = detector.test(calibrated(1_000, seed=1, low=0.3).rows)
    other = detector.test(calibrated(1_000, seed=1, bias=0.15).rows)
    assert harder.p_value is not None
    assert other.p_value is not None
    assert harder.p_value > 0.01
    assert other.p_value < 1e-6
    assert other.detail["accuracy_gap"] == pytest.approx(-0.15, abs=0.04)
