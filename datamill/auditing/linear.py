"""Principal components and a regression on them, as the one linear map that they are."""

# Shapes: N rows, D features, K classes.

from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline


@final
@dataclass(frozen=True)
class LinearClassifier:
    """What a fitted pipeline of the two answers, for a sixth of the work.

    Attributes:
        weights: Shape ``(D, K)``, float32.
        offsets: Shape ``(K,)``, float32.
        classes_: Labels, shape ``(K,)``.
    """

    weights: NDArray[np.float32]
    offsets: NDArray[np.float32]
    classes_: NDArray[Any]

    @classmethod
    def of(cls, model: Pipeline) -> Self:
        """The same classifier as ``model``: components, then a logistic regression."""
        components, regression = model[0], model[-1]
        size = components.n_features_in_
        origin, *units = components.transform(np.vstack([np.zeros(size), np.eye(size)]))
        scores = np.atleast_2d(
            regression.decision_function(np.stack([origin, *units])).T
        ).T  # one column for two classes
        if scores.shape[1] == 1:
            scores = np.hstack([np.zeros_like(scores), scores])
        return cls(
            weights=(scores[1:] - scores[0]).astype(np.float32),
            offsets=scores[0].astype(np.float32),
            classes_=regression.classes_,
        )

    def predict_proba(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probability of each class, shape ``(N, K)``."""
        scores = (rows @ self.weights + self.offsets).astype(np.float64)
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return scores


def simplified(model: Any) -> Any:
    """The same classifier as a ``LinearClassifier`` where it is one."""
    is_linear = isinstance(model, Pipeline) and isinstance(model[0], PCA) and isinstance(model[-1], LogisticRegression)
    return LinearClassifier.of(model) if is_linear else model
