"""How well class probabilities match the truth; one weighted implementation serves the value and its resamples."""

# Shapes: N samples, K classes, R resamples (columns of sample weights), G distinct scores, B confidence bins.

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HEADLINES = ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss", "brier", "calibration_error")
LOWER_IS_BETTER = ("log_loss", "brier", "calibration_error")
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)  # what the log loss takes for a probability of zero


@dataclass(frozen=True)
class Predictions:
    """Class probabilities beside the truth.

    Attributes:
        label: Class numbers, shape ``(N,)``.
        probabilities: Probability of each class, shape ``(N, K)``, rows sum to 1.
    """

    label: Ints
    probabilities: Floats

    @property
    def num_samples(self) -> int:
        """Samples, N."""
        return len(self.label)

    @property
    def num_classes(self) -> int:
        """Classes, K, whether or not they occur."""
        return int(self.probabilities.shape[1])

    @property
    def predicted(self) -> Ints:
        """The most probable class, the first one of equals, shape ``(N,)``."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def confidence(self) -> Floats:
        """Probability of the predicted class, shape ``(N,)``."""
        return np.asarray(self.probabilities.max(axis=1))

    @property
    def is_correct(self) -> NDArray[np.bool_]:
        """Whether the predicted class is the true one, shape ``(N,)``."""
        return np.asarray(self.predicted == self.label)


def scores(predictions: Predictions, *, num_bins: int) -> dict[str, float]:
    """The headline metrics that are defined for these samples, in the order of ``HEADLINES``."""
    weight_NR = np.ones((predictions.num_samples, 1))
    values = weighted_scores(predictions, weight_NR=weight_NR, num_bins=num_bins)
    return {name: float(value_R[0]) for name, value_R in values.items() if np.isfinite(value_R[0])}


def weighted_scores(predictions: Predictions, *, weight_NR: Floats, num_bins: int) -> dict[str, Floats]:
    """Every headline metric under each column of sample weights, shape ``(R,)`` each, NaN where undefined.

    Precision, recall and F1 are means over the classes that occur; a class never predicted has precision 0. The area
    under the ROC curve is the mean of one class against the rest, over classes with samples on both sides.

    Args:
        predictions: What to score.
        weight_NR: How often each sample counts, shape ``(N, R)``: ones for the metric itself.
        num_bins: Equal-width confidence bins of the calibration error.

    Source: G. W. Brier, "Verification of forecasts expressed in terms of probability", 1950 (sum over classes, 0 to 2).
    C. Guo et al., "On calibration of modern neural networks", ICML 2017 (expected calibration error).
    """
    total_R = weight_NR.sum(axis=0)
    precision_KR, recall_KR, f1_KR, support_KR = weighted_class_scores(predictions, weight_NR=weight_NR)
    occurs_KR = support_KR > 0
    own_N = predictions.probabilities[np.arange(predictions.num_samples), predictions.label]
    log_loss_N = -np.log(np.clip(own_N, SMALLEST_PROBABILITY, 1))
    brier_N = (predictions.probabilities**2).sum(axis=1) - 2 * own_N + 1
    return {
        "accuracy": predictions.is_correct.astype(np.float64) @ weight_NR / total_R,
        "precision": _mean_over(precision_KR, occurs_KR),
        "recall": _mean_over(recall_KR, occurs_KR),
        "f1": _mean_over(f1_KR, occurs_KR),
        "roc_auc": _macro_auc(predictions, weight_NR=weight_NR),
        "log_loss": log_loss_N @ weight_NR / total_R,
        "brier": brier_N @ weight_NR / total_R,
        "calibration_error": _calibration_error(predictions, weight_NR=weight_NR, num_bins=num_bins) / total_R,
    }


def weighted_class_scores(predictions: Predictions, *, weight_NR: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Precision, recall, F1 and support of every class, shape ``(K, R)`` each; 0 for nothing divided by nothing."""
    num_classes, right = predictions.num_classes, predictions.is_correct
    support_KR = sum_by(predictions.label, values_NR=weight_NR, num_groups=num_classes)
    claimed_KR = sum_by(predictions.predicted, values_NR=weight_NR, num_groups=num_classes)
    true_KR = sum_by(predictions.label[right], values_NR=weight_NR[right], num_groups=num_classes)
    precision_KR = _divide(true_KR, claimed_KR)
    recall_KR = _divide(true_KR, support_KR)
    return precision_KR, recall_KR, _divide(2 * true_KR, claimed_KR + support_KR), support_KR


def class_scores(predictions: Predictions) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of every class, in class order; a class without samples has a support of 0."""
    weight_NR = np.ones((predictions.num_samples, 1))
    columns = weighted_class_scores(predictions, weight_NR=weight_NR)
    rows = zip(*(column_KR[:, 0].tolist() for column_KR in columns), strict=True)
    return [{"precision": p, "recall": r, "f1": f, "support": int(support)} for p, r, f, support in rows]


def weighted_auc(score_N: Floats, *, is_positive_N: NDArray[np.bool_], weight_NR: Floats) -> Floats:
    """Chance that a positive sample outscores a negative one, ties half, shape ``(R,)``; NaN without both kinds.

    Source: J. A. Hanley and B. J. McNeil, "The meaning and use of the area under a ROC curve", 1982.
    """
    distinct, rank_N = np.unique(score_N, return_inverse=True)
    positive_GR, negative_GR = (
        sum_by(rank_N[rows], values_NR=weight_NR[rows], num_groups=len(distinct))
        for rows in (is_positive_N, ~is_positive_N)
    )
    outscored_GR = np.cumsum(negative_GR, axis=0)
    num_negative_R = outscored_GR[-1].copy()
    outscored_GR -= negative_GR / 2
    pairs_R = positive_GR.sum(axis=0) * num_negative_R
    wins_R = np.einsum("gr,gr->r", positive_GR, outscored_GR)
    return np.divide(wins_R, pairs_R, out=np.full(len(pairs_R), np.nan), where=pairs_R > 0)


def confidence_bin(confidence: Floats, *, num_bins: int) -> Ints:
    """Number of the equal-width bin of [0, 1] that each confidence falls in, upper edge included."""
    return np.asarray(np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1))


def sum_by(group_N: Ints, *, values_NR: Floats, num_groups: int) -> Floats:
    """Sums of the rows of each group, shape ``(num_groups, R)``."""
    count = len(group_N)
    selector = sparse.csr_array((np.ones(count), (group_N, np.arange(count))), shape=(num_groups, count))
    return np.asarray(selector @ values_NR)


def _macro_auc(predictions: Predictions, *, weight_NR: Floats) -> Floats:
    areas_KR = np.stack(
        [
            weighted_auc(predictions.probabilities[:, k], is_positive_N=predictions.label == k, weight_NR=weight_NR)
            for k in np.unique(predictions.label)
        ]
    )
    return _mean_over(np.nan_to_num(areas_KR), np.isfinite(areas_KR))


def _calibration_error(predictions: Predictions, *, weight_NR: Floats, num_bins: int) -> Floats:
    gap_N = predictions.is_correct - predictions.confidence
    bin_N = confidence_bin(predictions.confidence, num_bins=num_bins)
    gap_BR = sum_by(bin_N, values_NR=gap_N[:, None] * weight_NR, num_groups=num_bins)
    return np.asarray(np.abs(gap_BR).sum(axis=0))


def _mean_over(values_KR: Floats, chosen_KR: NDArray[np.bool_]) -> Floats:
    num_R = chosen_KR.sum(axis=0)
    return np.divide((values_KR * chosen_KR).sum(axis=0), num_R, out=np.full(len(num_R), np.nan), where=num_R > 0)


def _divide(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
