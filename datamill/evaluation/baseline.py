"""The simple model that a network has to beat to be worth its cost: logistic regression on the raw inputs."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from datamill.shards.native import Shard

PIXEL_SCALE = np.float32(1 / 255)


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline.

    Attributes:
        classifier: Maps inputs to probabilities of the classes it saw.
        num_classes: Classes of the data set, K; a class it never saw has probability 0.
        num_rows: Training rows it saw.
        has_converged: Whether the fit ended before its limit of iterations.
    """

    classifier: LogisticRegression | DummyClassifier
    num_classes: int
    num_rows: int
    has_converged: bool

    def probabilities(self, shard: Shard) -> NDArray[np.float32]:
        """Probability of every class for every row of a shard, shape ``(N, K)``."""
        probabilities = np.zeros((shard.num_rows, self.num_classes), np.float32)
        if shard.num_rows:
            with threadpool_limits(1):
                probabilities[:, self.classifier.classes_] = self.classifier.predict_proba(flatten(shard.x[:]))
        return probabilities


def fit_baseline(
    shard: Shard, *, max_rows: int, max_iterations: int, regularisation: float, rng: np.random.Generator
) -> Baseline:
    """Logistic regression on at most ``max_rows`` rows of a training shard, drawn without replacement.

    Runs on one thread: sums in another order would give other last digits.

    Args:
        shard: Training rows with their loss weights; at least one.
        max_rows: Bound on the rows, and so on the time.
        max_iterations: Bound on the steps of the solver.
        regularisation: Strength of the L2 penalty, relative to the mean loss of a row.
        rng: Draws the rows.
    """
    rows = np.sort(rng.permutation(shard.num_rows)[:max_rows])
    label, weight = np.asarray(shard.label[rows], np.int64), np.asarray(shard.weight[rows], np.float64)
    inverse_penalty = 1 / (regularisation * len(rows))
    classifier = LogisticRegression(C=inverse_penalty, max_iter=max_iterations)
    if len(np.unique(label)) == 1:
        classifier = DummyClassifier(strategy="prior")
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(flatten(shard.x[rows]), label, sample_weight=weight)
    steps = int(np.max(getattr(classifier, "n_iter_", 0)))
    return Baseline(classifier, len(shard.classes), num_rows=len(rows), has_converged=steps < max_iterations)


def flatten(x: NDArray[np.generic]) -> NDArray[np.float32]:
    """Shard rows as one vector each, shape ``(N, D)``: pixels in [0, 1], a table's features as they are."""
    flat = x.reshape(len(x), -1).astype(np.float32)
    return flat * PIXEL_SCALE if x.dtype == np.uint8 else flat
