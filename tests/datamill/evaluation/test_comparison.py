"""A network beside a baseline."""

import numpy as np

from datamill.evaluation.comparison import Resampling, compare, headlines, positive_class
from datamill.evaluation.metrics import Predictions

RESAMPLING = Resampling(np.arange(40), num_resamples=300, level=0.95, num_bins=10, seed=1)


def constant(*, confidence: float) -> Predictions:
    """Forty samples of alternating class; the first thirty are right with this confidence."""
    label = np.arange(40) % 2
    says = np.where(np.arange(40) < 30, label, 1 - label)
    probabilities = np.full((40, 2), 1 - confidence)
    probabilities[np.arange(40), says] = confidence
    return Predictions(label, probabilities)


def test_two_equal_models_differ_by_nothing_on_every_resample() -> None:
    result = compare(constant(confidence=0.9), baseline=constant(confidence=0.9), resampling=RESAMPLING)
    assert result["accuracy"] == 0.75
    assert result["baseline"]["difference"]["accuracy"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_the_difference_is_paired() -> None:
    result = compare(constant(confidence=0.75), baseline=constant(confidence=0.9), resampling=RESAMPLING)
    assert result["baseline"]["difference"]["accuracy"]["high"] == 0.0
    assert result["baseline"]["difference"]["brier"]["value"] < 0


def test_without_samples_there_are_no_headlines() -> None:
    assert headlines(Predictions(np.zeros(0, np.int64), np.zeros((0, 3))), num_bins=5) == {}


def test_the_second_of_two_classes_is_the_positive_one() -> None:
    assert positive_class(constant(confidence=0.9), classes=("no", "yes"))["positive"] == "yes"
    assert positive_class(constant(confidence=0.9), classes=("a", "b", "c")) == {}
