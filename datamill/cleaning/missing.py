"""Missing values of a table: statistics that stand in for them.

Everything here is fitted on the rows it is told to; a caller that has not split yet fits on later test rows as well.
"""

import warnings
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # makes the next import possible
from sklearn.impute import IterativeImputer, KNNImputer

NumberPolicy = Literal["mean", "median", "mode", "interpolate", "knn", "regression"]
ROUNDS = 10  # passes of the regression imputer over the columns


def impute_numbers(
    values: NDArray[np.float64],
    *,
    policy: NumberPolicy,
    fit_on: NDArray[np.bool_],
    order: NDArray[np.int64],
    neighbors: int,
) -> NDArray[np.float64]:
    """``values`` with an estimate for each NaN; infinite values are left as they are and take no part in the fit.

    Args:
        values: Shape ``(N, D)``.
        policy: ``mean``, ``median`` or ``mode`` of the column; ``interpolate`` linearly between the rows before and
            after; ``knn``, the mean of the nearest rows; ``regression`` of each column on the others, in rounds.
        fit_on: Rows the estimates are learnt from, shape ``(N,)``.
        order: The rows in the order in which they follow each other (``interpolate`` only), shape ``(N,)``.
        neighbors: Rows that vote (``knn`` only).

    Returns:
        Shape ``(N, D)``. A column without a finite value among ``fit_on`` stays as it is: nothing is known about it.

    Source: O. Troyanskaya et al., "Missing value estimation methods for DNA microarrays", 2001 (k-NN); S. van Buuren,
    K. Groothuis-Oudshoorn, "mice: Multivariate Imputation by Chained Equations in R", 2011 (regression).
    """
    known = np.where(np.isfinite(values), values, np.nan)
    usable = np.isfinite(known[fit_on]).any(axis=0)
    if policy in ("knn", "regression"):
        estimate = _modelled(known[:, usable], policy=policy, fit_on=fit_on, neighbors=neighbors)
    elif policy == "interpolate":
        columns = [_interpolated(column, fit_on=fit_on, order=order) for column in known[:, usable].T]
        estimate = np.stack(columns, axis=1) if columns else known[:, usable]
    else:
        statistics = {"mean": _means, "median": _medians, "mode": _modes}[policy](known[fit_on][:, usable])
        estimate = np.broadcast_to(statistics, (len(values), len(statistics)))
    filled = values.copy()
    filled[:, usable] = np.where(np.isnan(values[:, usable]), estimate, values[:, usable])
    return filled


def impute_category(values: NDArray[np.object_], *, fit_on: NDArray[np.bool_]) -> NDArray[np.object_]:
    """``values`` with the most frequent one for each ``None``; the first in alphabetical order among equals.

    Args:
        values: Strings or ``None``, shape ``(N,)``.
        fit_on: Rows that are counted, shape ``(N,)``.
    """
    known = [value for value in values[fit_on] if value is not None]
    if not known:
        return values
    names, counts = np.unique(np.array(known, dtype=object), return_counts=True)
    filled = values.copy()
    filled[[value is None for value in values]] = names[counts.argmax()]
    return filled


def _modelled(
    known: NDArray[np.float64], *, policy: str, fit_on: NDArray[np.bool_], neighbors: int
) -> NDArray[np.float64]:
    """Estimates from the other columns, all standardised first so that none outweighs the others."""
    if not known.shape[1]:
        return known
    centre = np.nanmean(known[fit_on], axis=0)
    spread = np.nanstd(known[fit_on], axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    imputer: Any = (
        KNNImputer(n_neighbors=neighbors) if policy == "knn" else IterativeImputer(max_iter=ROUNDS, random_state=0)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last round's estimates serve
        estimate = imputer.fit((known[fit_on] - centre) / scale).transform((known - centre) / scale)
    return np.asarray(estimate * scale + centre, np.float64)


def _interpolated(
    column: NDArray[np.float64], *, fit_on: NDArray[np.bool_], order: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Linear between known neighbours in ``order``; before the first and after the last, their value."""
    ordered = column[order]
    known = np.isfinite(ordered) & fit_on[order]
    places = np.arange(len(column))
    result = np.empty_like(column)
    result[order] = np.interp(places, places[known], ordered[known])
    return result


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.nanmean(values, axis=0), np.float64)


def _medians(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.nanmedian(values, axis=0), np.float64)


def _modes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Most frequent known value of each column; the smallest among equals."""
    modes = []
    for column in values.T:
        distinct, counts = np.unique(column[np.isfinite(column)], return_counts=True)
        modes.append(distinct[counts.argmax()])
    return np.array(modes, np.float64)
