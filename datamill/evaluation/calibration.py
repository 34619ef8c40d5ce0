"""Whether a confidence of 80% is right 80% of the time."""

from dataclasses import dataclass

import numpy as np

from datamill.evaluation.metrics import Predictions, confidence_bin


@dataclass(frozen=True)
class Bin:
    """Samples of similar confidence.

    Attributes:
        confidence: Their mean confidence, in [0, 1].
        accuracy: Share of them that is right, in [0, 1].
        count: How many they are; at least 1.
    """

    confidence: float
    accuracy: float
    count: int


def reliability(predictions: Predictions, *, num_bins: int) -> list[Bin]:
    """The bins of a reliability diagram that hold samples, by rising confidence.

    Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017.
    """
    bin_N = confidence_bin(predictions.confidence, num_bins=num_bins)
    bins = []
    for number in np.unique(bin_N):
        members = bin_N == number
        confidence, accuracy = predictions.confidence[members].mean(), predictions.is_correct[members].mean()
        bins.append(Bin(confidence=float(confidence), accuracy=float(accuracy), count=int(members.sum())))
    return bins
