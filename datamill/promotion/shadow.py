"""Both models on what came in lately: they answer side by side, and only the champion's answer was ever used."""

# Shapes: N recent inputs, K classes of either model.

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamill.evaluation.metrics import Predictions

UNKNOWN = -1


@dataclass(frozen=True)
class Shadow:
    """Two models' answers to the same recent inputs.

    Attributes:
        windows: Names of the windows the inputs are from.
        champion: Probability of every class, shape ``(N, K)``.
        challenger: The same of the other model.
        label: Number of each true class, ``UNKNOWN`` where it is not known, shape ``(N,)``.
        num_taught: Inputs that were left out, because the challenger has been trained on them.
    """

    windows: tuple[str, ...]
    champion: NDArray[np.float64]
    challenger: NDArray[np.float64]
    label: NDArray[np.int64]
    num_taught: int = 0


def estimated_accuracy(answers: NDArray[np.float64], *, predictions: Predictions) -> float:
    """Accuracy to expect on inputs without labels: the test split's, moved by the change of mean confidence, in [0, 1].

    Source: D. Guillory et al., "Predicting with confidence on unseen distributions", ICCV 2021 (difference of
    confidences).
    """
    change = float(answers.max(axis=1).mean() - predictions.confidence.mean())
    return min(1.0, max(0.0, float(predictions.is_correct.mean()) + change))
