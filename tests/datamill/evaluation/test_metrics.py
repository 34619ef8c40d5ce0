"""Headline metrics under weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from datamill.evaluation.metrics import (
    HEADLINES,
    Predictions,
    class_scores,
    confidence_bin,
    scores,
    weighted_auc,
    weighted_scores,
)


def random_predictions(*, seed: int, num_samples: int = 60, num_classes: int = 4) -> Predictions:
    """Better than chance, with ties."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, num_classes, num_samples)
    logits = np.round(rng.normal(size=(num_samples, num_classes)), 1)
    logits[np.arange(num_samples), label] += 1
    return Predictions(label, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_scores_agree_with_scikit_learn(seed: int) -> None:
    predictions = random_predictions(seed=seed)
    found = scores(predictions, num_bins=15)
    label, predicted = predictions.label, predictions.predicted
    precision, recall, f1, _ = reference.precision_recall_fscore_support(
        label, predicted, average="macro", zero_division=0
    )
    expected = {
        "accuracy": reference.accuracy_score(label, predicted),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "roc_auc": reference.roc_auc_score(label, predictions.probabilities, multi_class="ovr"),
        "log_loss": reference.log_loss(label, predictions.probabilities),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_weight_of_two_is_the_same_as_a_sample_twice(seed: int) -> None:
    predictions = random_predictions(seed=seed, num_samples=30)
    times = np.random.default_rng(seed).integers(0, 3, 30)
    times[0] = 1  # never none at all
    rows = np.repeat(np.arange(30), times)
    repeated = Predictions(predictions.label[rows], predictions.probabilities[rows])
    weighted = weighted_scores(predictions, weight_NR=times[:, None].astype(float), num_bins=10)
    plain = scores(repeated, num_bins=10)
    assert {name: float(weighted[name][0]) for name in plain} == pytest.approx(plain)


def test_brier_and_calibration_error_of_a_known_case() -> None:
    predictions = Predictions(np.array([0, 1]), np.array([[0.8, 0.2], [0.8, 0.2]]))
    found = scores(predictions, num_bins=10)
    assert found["brier"] == pytest.approx((0.04 + 0.04 + 0.64 + 0.64) / 2)
    assert found["calibration_error"] == pytest.approx(0.3)  # 80 % sure, 50 % right
    assert list(found) == list(HEADLINES)


def test_one_class_leaves_the_auc_undefined() -> None:
    found = scores(Predictions(np.array([1, 1]), np.array([[0.1, 0.9], [0.6, 0.4]])), num_bins=5)
    assert "roc_auc" not in found
    assert found["recall"] == 0.5


def test_tied_scores_count_half() -> None:
    area = weighted_auc(np.zeros(4), is_positive_N=np.array([True, True, False, False]), weight_NR=np.ones((4, 1)))
    assert area.tolist() == [0.5]


def test_a_class_nobody_has_or_claims_scores_zero_with_support_zero() -> None:
    predictions = Predictions(np.array([0, 1]), np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]))
    assert class_scores(predictions)[2] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert scores(predictions, num_bins=5)["f1"] == 1.0


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin() -> None:
    assert confidence_bin(np.array([0.0, 0.1, 0.11, 1.0]), num_bins=10).tolist() == [0, 0, 1, 9]
