"""Outliers of a table: bounds per column, or an isolation forest over whole rows."""

from typing import final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from datamill.cleaning.policies import OutlierPolicy


def usual_bounds(column: NDArray[np.float64], *, policy: OutlierPolicy) -> tuple[float, float]:
    """Smallest and largest usual value of a column; infinite where it has no spread.

    Args:
        column: What the bounds are learnt from, shape ``(N,)``; only finite values take part.
        policy: Method ``zscore`` (mean and standard deviation) or ``iqr`` (quartiles), and its distance.

    Source: J. W. Tukey, "Exploratory Data Analysis", 1977 (fences of the quartiles).
    """
    finite = column[np.isfinite(column)]
    if not len(finite):
        return -np.inf, np.inf
    if policy.method == "zscore":
        lower = upper = float(finite.mean())
        reach = policy.max_zscore * float(finite.std())
    else:
        lower, upper = map(float, np.quantile(finite, [0.25, 0.75]))
        reach = policy.max_iqr * (upper - lower)
    return (lower - reach, upper + reach) if reach > 0 else (-np.inf, np.inf)


@final
class Isolation:
    """An isolation forest; missing values count as their column's median, infinite ones as its extreme.

    Source: F. T. Liu, K. M. Ting, Z.-H. Zhou, "Isolation Forest", 2008.
    """

    def __init__(self, rows: NDArray[np.float64], *, contamination: float, seed: int) -> None:
        """Grow the forest.

        Args:
            rows: Shape ``(N, D)``.
            contamination: Share of ``rows`` that is taken for unusual.
            seed: Seeds the forest.
        """
        known = np.where(np.isfinite(rows), rows, np.nan)
        self._usable = np.isfinite(known).any(axis=0)
        known = known[:, self._usable]
        self._forest: IsolationForest | None = None
        if known.size:
            self._median = np.nanmedian(known, axis=0)
            self._low, self._high = np.nanmin(known, axis=0), np.nanmax(known, axis=0)
            self._forest = IsolationForest(contamination=contamination, random_state=seed).fit(self._ready(rows))

    def is_unusual(self, rows: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which rows stand alone, shape ``(N,)``; none where there was nothing to learn from."""
        if self._forest is None or not len(rows):
            return np.zeros(len(rows), bool)
        return np.asarray(self._forest.predict(self._ready(rows)) < 0, bool)

    def _ready(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = rows[:, self._usable]
        return np.clip(np.where(np.isnan(rows), self._median, rows), self._low, self._high)
