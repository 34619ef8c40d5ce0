"""Outliers of a table: bounds per column, or an isolation forest over whole rows.

Everything here is fitted on the rows it is told to; a caller that has not split yet fits on later test rows as well.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from datamill.cleaning.policies import OutlierPolicy


def usual_bounds(
    values: NDArray[np.float64], *, policy: OutlierPolicy, fit_on: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest and largest usual value of each column, shape ``(D,)`` each; infinite where the column has no spread.

    Args:
        values: Shape ``(N, D)``; only finite values take part.
        policy: Method ``zscore`` (mean and standard deviation) or ``iqr`` (quartiles), and its distance.
        fit_on: Rows the bounds are learnt from, shape ``(N,)``.

    Source: J. W. Tukey, "Exploratory Data Analysis", 1977 (fences of the quartiles).
    """
    bounds = []
    for column in values[fit_on].T:
        finite = column[np.isfinite(column)]
        if not len(finite):
            reach, lower, upper = 0.0, 0.0, 0.0
        elif policy.method == "zscore":
            reach, lower, upper = policy.max_zscore * finite.std(), finite.mean(), finite.mean()
        else:
            lower, upper = np.quantile(finite, [0.25, 0.75])
            reach = policy.max_iqr * (upper - lower)
        bounds.append((lower - reach, upper + reach) if reach > 0 else (-np.inf, np.inf))
    low, high = np.array(bounds, np.float64).reshape(-1, 2).T
    return low, high


def isolated_rows(
    values: NDArray[np.float64], *, contamination: float, fit_on: NDArray[np.bool_], seed: int
) -> NDArray[np.bool_]:
    """Rows that an isolation forest takes for unusual, shape ``(N,)``.

    Args:
        values: Shape ``(N, D)``; missing values count as their column's median, infinite ones as its extreme.
        contamination: Share of ``fit_on`` that is taken for unusual.
        fit_on: Rows the forest is grown on, shape ``(N,)``; others are never unusual.
        seed: Seeds the forest.

    Source: F. T. Liu, K. M. Ting, Z.-H. Zhou, "Isolation Forest", 2008.
    """
    unusual = np.zeros(len(values), bool)
    known = np.where(np.isfinite(values), values, np.nan)[fit_on]
    usable = np.isfinite(known).any(axis=0)
    if not usable.any():
        return unusual
    known, rows = known[:, usable], values[fit_on][:, usable]
    rows = np.where(np.isnan(rows), np.nanmedian(known, axis=0), rows)
    rows = np.clip(rows, np.nanmin(known, axis=0), np.nanmax(known, axis=0))
    forest = IsolationForest(contamination=contamination, random_state=seed)
    unusual[fit_on] = forest.fit_predict(rows) < 0
    return unusual
