"""What drift is judged on: light features, embeddings, predictions and labels of the same samples, row by row.

A classifier's have ``classes``, ``probabilities`` and ``labels``, a regression's ``predictions`` and ``targets``.
"""

# Shapes: N samples, D embedding, K classes.

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class Observations:
    """Samples as drift detectors see them; every field that is there has N rows, in the same order.

    Attributes:
        sample_ids: Identity of each sample.
        features: Typed light features, ``N`` rows: a table's own columns, or an image's properties (height, width,
            channels, brightness, contrast). ``float64`` columns are numbers, ``string`` columns categories; null where
            a value is missing.
        classes: Class names, ``K`` of them, in the order of their numbers.
        embeddings: What the network's last hidden layer says, float32, shape ``(N, D)``.
        probabilities: What the model answers, float32, shape ``(N, K)``.
        labels: Number of each sample's class; -1 where it is not known, -2 where it is none of ``classes``; int64,
            shape ``(N,)``.
        times: When each sample was taken, ``datetime64[us]`` in UTC, ``NaT`` where that is not known, shape ``(N,)``.
        predictions: What a regression answers instead of probabilities, in the target's unit, float64, shape ``(N,)``.
        targets: What is true, in the same unit, NaN where it is not known, float64, shape ``(N,)``.
    """

    sample_ids: tuple[str, ...]
    features: pa.Table
    classes: tuple[str, ...] = ()
    embeddings: NDArray[np.float32] | None = None
    probabilities: NDArray[np.float32] | None = None
    labels: NDArray[np.int64] | None = None
    times: NDArray[np.datetime64] | None = None
    predictions: NDArray[np.float64] | None = None
    targets: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.sample_ids)


def take(observations: Observations, rows: NDArray[np.int64]) -> Observations:
    """Some of the samples, in the order of ``rows``."""
    arrays = {
        name: None if (array := getattr(observations, name)) is None else array[rows]
        for name in ("embeddings", "probabilities", "labels", "times", "predictions", "targets")
    }
    ids = tuple(observations.sample_ids[row] for row in rows)
    return Observations(ids, observations.features.take(pa.array(rows)), observations.classes, **arrays)
