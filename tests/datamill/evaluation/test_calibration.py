"""Reliability bins."""

import numpy as np

from datamill.evaluation.calibration import Bin, reliability
from datamill.evaluation.metrics import Predictions


def test_bins_hold_mean_confidence_and_accuracy_and_empty_ones_are_left_out() -> None:
    probabilities = np.array([[0.75, 0.25], [0.25, 0.75], [1.0, 0.0], [0.0, 1.0]])
    bins = reliability(Predictions(np.array([0, 0, 0, 1]), probabilities), num_bins=4)
    assert bins == [Bin(confidence=0.75, accuracy=0.5, count=2), Bin(confidence=1.0, accuracy=1.0, count=2)]
