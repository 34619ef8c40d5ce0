"""Confident learning in passes over blocks of probabilities, for more of them than memory should hold.

What cleanlab finds in an array, this finds in blocks of its rows. They differ about equal values alone: where
not all of them are wanted, cleanlab takes some and this takes all.

Source: C. Northcutt, L. Jiang, I. Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, final

import numpy as np
from cleanlab.count import calibrate_confident_joint
from cleanlab.filter import _keep_at_least_n_per_class
from cleanlab.internal.constants import CONFIDENT_THRESHOLDS_LOWER_BOUND, FLOATING_POINT_COMPARISON
from numpy.typing import NDArray

Method = Literal["prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given"]
Block = tuple[NDArray[np.int32], NDArray[np.float64]]
"""Class number of the given label, shape ``(B,)``, and class probabilities, shape ``(B, K)``, of some rows."""
Read = Callable[[], Iterable[Block]]
"""Starts reading all rows, block by block."""

NO_ROW = 2.0  # threshold of a class without rows; no probability reaches it
SLACK_VALUES = 65_536  # held beyond what is wanted before it is cut


def confident_thresholds(read: Read, *, num_classes: int) -> NDArray[np.float64]:
    """Probability from which a row confidently belongs to a class, shape ``(K,)``: the mean of its own rows."""
    sums: list[Any] = []
    counts = np.zeros(num_classes, np.int64)
    for given, among in read():
        sums.append(np.bincount(given, weights=_own(given, among), minlength=num_classes))
        counts += np.bincount(given, minlength=num_classes)
    totals = np.array([math.fsum(of_class) for of_class in zip(*sums, strict=True)] or np.zeros(num_classes))
    means = np.where(counts > 0, totals / np.maximum(counts, 1), NO_ROW)
    return np.asarray(np.clip(means, CONFIDENT_THRESHOLDS_LOWER_BOUND, None), np.float64)


@final
class IssueRule:
    """Tells which rows are label issues; learnt in two passes, then applied block by block."""

    def __init__(self, read: Read, *, method: Method, thresholds: NDArray[np.float64]) -> None:
        """Learn the rule.

        Args:
            read: All rows.
            method: cleanlab's rule.
            thresholds: ``confident_thresholds`` of the rows.
        """
        self._method = method
        self._thresholds = thresholds
        self._by_cell = self._by_class = None
        if method not in ("prune_by_noise_rate", "prune_by_class", "both"):
            return
        prune, counts = self._prune_counts(read)
        kept = np.diagonal(prune).copy()
        np.fill_diagonal(prune, 0)
        prune[:, counts <= 1] = 0
        if method != "prune_by_class":
            self._by_cell = _Largest(prune.T)
        if method != "prune_by_noise_rate":
            self._by_class = _Largest(np.where(counts > 1, counts - kept, 0)[:, None])
        for given, among in read():
            if self._by_cell is not None:
                self._by_cell.add(given, _margins(given, among))
            if self._by_class is not None:
                self._by_class.add(given, -_own(given, among)[:, None])

    def find(self, given: NDArray[np.int32], among: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which rows of a block are issues, shape ``(B,)``."""
        favoured = among.copy()
        favoured[np.arange(len(given)), given] += FLOATING_POINT_COMPARISON
        is_issue: NDArray[np.bool_] = favoured.argmax(axis=1) != given
        if self._method == "confident_learning":
            guess = self._confident_class(among)
            is_issue &= (guess >= 0) & (guess != given)
        if self._by_cell is not None:
            is_issue &= self._by_cell.is_among(given, _margins(given, among))
        if self._by_class is not None:
            is_issue &= self._by_class.is_among(given, -_own(given, among)[:, None])
        return is_issue

    def _prune_counts(self, read: Read) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows to remove by true and given class, shape ``(K, K)``, and rows of each given class, shape ``(K,)``."""
        num_classes = len(self._thresholds)
        joint, counts = np.zeros((num_classes, num_classes), np.int64), np.zeros(num_classes, np.int64)
        for given, among in read():
            counts += np.bincount(given, minlength=num_classes)
            guess = self._confident_class(among)
            cells = given[guess >= 0] * num_classes + guess[guess >= 0]
            joint += np.bincount(cells, minlength=num_classes**2).reshape(joint.shape)
        np.fill_diagonal(joint, np.maximum(np.diagonal(joint), 1))
        labels = np.repeat(np.arange(num_classes, dtype=np.int16), counts)  # cleanlab counts them again
        calibrated = calibrate_confident_joint(joint, labels)
        return np.asarray(_keep_at_least_n_per_class(calibrated.T, n=1, frac_noise=1.0), np.int64), counts

    def _confident_class(self, among: NDArray[np.float64]) -> NDArray[np.int64]:
        """The class each row confidently belongs to, the most probable one of several; -1 for none, shape ``(B,)``."""
        is_confident = among >= self._thresholds - 1e-6
        count = is_confident.sum(axis=1)
        guess = np.where(count > 1, among.argmax(axis=1), is_confident.argmax(axis=1))
        return np.asarray(np.where(count > 0, guess, -1), np.int64)


@final
class _Largest:
    """The largest values of each cell of a table; memory grows with how many are wanted."""

    def __init__(self, sizes: NDArray[np.int64]) -> None:
        """Want ``sizes`` values of each cell, shape ``(K, J)``."""
        self._sizes = sizes = np.ascontiguousarray(sizes)
        self._limits = np.where(sizes > 0, -np.inf, np.inf)  # the least value that may be among them
        self._cells = np.empty(0, np.int64)
        self._values = np.empty(0)
        self._num_cut = 0  # values that were left when they were last cut

    def add(self, given: NDArray[np.int32], values: NDArray[np.float64]) -> None:
        """Consider some rows: their line in the table, shape ``(B,)``, and their values in it, shape ``(B, J)``."""
        rows, columns = np.nonzero(values >= self._limits[given])
        cells = given[rows].astype(np.int64) * self._sizes.shape[1] + columns
        self._cells = np.concatenate([self._cells, cells])
        self._values = np.concatenate([self._values, values[rows, columns]])
        if len(self._cells) > 2 * self._sizes.sum() + SLACK_VALUES:
            self._cut()

    def is_among(self, given: NDArray[np.int32], values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether a value of the row is among the largest of its cell, shape ``(B,)``."""
        self._cut()
        return np.asarray((values >= self._limits[given]).any(axis=1), np.bool_)

    def _cut(self) -> None:
        if len(self._cells) == self._num_cut:
            return
        order = np.lexsort((-self._values, self._cells))
        cells = self._cells[order]
        rank = np.arange(len(cells)) - np.searchsorted(cells, cells)
        is_last = rank == self._sizes.ravel()[cells] - 1
        self._limits.ravel()[cells[is_last]] = self._values[order[is_last]]
        chosen = order[rank < self._sizes.ravel()[cells]]
        self._cells, self._values = self._cells[chosen], self._values[chosen]
        self._num_cut = len(chosen)


def _own(given: NDArray[np.int32], among: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of the given label, shape ``(B,)``."""
    return np.asarray(among[np.arange(len(given)), given], np.float64)


def _margins(given: NDArray[np.int32], among: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much more probable each class is than the given one, shape ``(B, K)``."""
    return np.asarray(among - _own(given, among)[:, None], np.float64)
