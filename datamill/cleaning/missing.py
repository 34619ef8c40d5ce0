"""Missing values of a table: what stands in for them."""

import warnings
from collections.abc import Iterable
from typing import Any, Literal, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # makes the next import possible
from sklearn.impute import IterativeImputer, KNNImputer

from datamill.hashes import word_hashes

Statistic = Literal["mean", "median", "mode"]
ROUNDS = 10  # passes of the regression imputer over the columns


def statistic(column: NDArray[np.float64], *, policy: Statistic) -> float:
    """Mean, median or most frequent value (the smallest among equals) of the finite values; NaN if there is none."""
    finite = column[np.isfinite(column)]
    if not len(finite):
        return np.nan
    if policy == "mode":
        distinct, counts = np.unique(finite, return_counts=True)
        return float(distinct[counts.argmax()])
    return float(finite.mean() if policy == "mean" else np.median(finite))


def interpolate(
    column: NDArray[np.float64], *, fit_on: NDArray[np.bool_], order: NDArray[np.int64]
) -> NDArray[np.float64]:
    """A value for every row, on the line between its known neighbours; before the first and after the last, theirs.

    Args:
        column: Shape ``(N,)``; NaN and infinite values are not known.
        fit_on: Rows that may be learnt from, shape ``(N,)``.
        order: The rows in the order in which they follow each other, shape ``(N,)``.

    Returns:
        Shape ``(N,)``; NaN where nothing is known at all.
    """
    ordered = column[order]
    known = np.flatnonzero(np.isfinite(ordered) & fit_on[order])
    result = np.full(len(column), np.nan)
    if len(known):
        result[order] = np.interp(np.arange(len(column)), known, ordered[known])
    return result


@final
class Modelled:
    """Estimates from the other columns, all standardised first so that none outweighs the others.

    ``knn`` takes the mean of the nearest rows, ``regression`` each column from the others, in rounds.

    Source: O. Troyanskaya et al., "Missing value estimation methods for DNA microarrays", 2001 (k-NN); S. van Buuren,
    K. Groothuis-Oudshoorn, "mice: Multivariate Imputation by Chained Equations in R", 2011 (regression).
    """

    def __init__(self, rows: NDArray[np.float64], *, policy: Literal["knn", "regression"], neighbors: int) -> None:
        """Learn.

        Args:
            rows: Shape ``(N, D)``; NaN and infinite values are not known.
            policy: The method.
            neighbors: Rows that vote (``knn`` only).
        """
        known = np.where(np.isfinite(rows), rows, np.nan)
        self._usable = np.isfinite(known).any(axis=0)
        known = known[:, self._usable]
        self._imputer: Any = None
        if known.size:
            self._centre, spread = np.nanmean(known, axis=0), np.nanstd(known, axis=0)
            self._scale = np.where(spread > 0, spread, 1.0)
            knn = policy == "knn"
            imputer = KNNImputer(n_neighbors=neighbors) if knn else IterativeImputer(max_iter=ROUNDS, random_state=0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the last round's estimates serve
                self._imputer = imputer.fit((known - self._centre) / self._scale)

    def estimate(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """A value for every place of these rows, shape ``(M, D)``; NaN in columns of which nothing is known."""
        result = np.full(rows.shape, np.nan)
        if self._imputer is not None and len(rows):
            known = np.where(np.isfinite(rows), rows, np.nan)[:, self._usable]
            estimates = self._imputer.transform((known - self._centre) / self._scale)
            result[:, self._usable] = estimates * self._scale + self._centre
        return result


def most_frequent(hashes: NDArray[np.uint64], words: Iterable[pa.Array]) -> str | None:
    """The most frequent word, the first in alphabetical order among equals; ``None`` if there is none.

    Args:
        hashes: ``word_hashes`` of what is counted, shape ``(N,)``.
        words: The same words, and possibly others, piece by piece; read to the end.
    """
    distinct, counts = np.unique(hashes[hashes != 0], return_counts=True)
    if not len(distinct):
        return None
    winners = distinct[counts == counts.max()]
    best: str | None = None
    for piece in words:
        known = piece.unique().drop_null()
        names = known.filter(pa.array(np.isin(word_hashes(known), winners))).to_pylist()
        best = min([*names, *([best] if best is not None else [])], default=None)
    return best
