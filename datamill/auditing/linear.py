"""Principal components and a regression on them, as the one linear map that they are."""

# Shapes: N rows, D features, K classes.

from collections.abc import Sequence
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

    @classmethod
    def mean(cls, models: Sequence[Self]) -> Self:
        """Classifiers of the same classes as one, which answers with the mean of their scores."""
        return cls(
            weights=np.mean([model.weights for model in models], axis=0),
            offsets=np.mean([model.offsets for model in models], axis=0),
            classes_=models[0].classes_,
        )

    def predict_proba(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probability of each class, shape ``(N, K)``."""
        scores = (rows @ self.weights + self.offsets).astype(np.float64)
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return scores


def is_linear(model: Any) -> bool:
    """Whether a pipeline is components and a logistic regression on them."""
    return isinstance(model, Pipeline) and isinstance(model[0], PCA) and isinstance(model[-1], LogisticRegression)


def simplified(model: Any) -> Any:
    """The same classifier as a ``LinearClassifier`` where it is one."""
    return LinearClassifier.of(model) if is_linear(model) else model
