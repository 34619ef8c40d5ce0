"""A few of many samples, chosen by a keyed hash of their ids: those whose hash is smallest.

Whether a sample is chosen depends on its id and on how many others come before it in the order of the hashes, not on
where it stands. So a choice made in pieces is the choice of the whole, and where data grows by a hundredth, about a
hundredth of the choice changes.
"""

import hashlib
from typing import Any, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.hashes import halves
from datamill.mixing import mixed

SLACK_ROWS = 4_096  # held beyond the choice before it is cut; saves cutting at every table


def scores(sample_ids: pa.Array | pa.ChunkedArray, *, key: str) -> NDArray[np.uint64]:
    """A number per sample, shape ``(N,)``, uniform over 64 bits: the same for the same id and key."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return mixed(halves(sample_ids)[:, 0] ^ np.frombuffer(digest, np.uint64))


@final
class BottomK:
    """The samples of the smallest scores among all that were added; memory grows with the choice alone."""

    def __init__(self, size: int, *, key: str, num_groups: int = 1) -> None:
        """Choose ``size`` samples of each group; equal keys choose alike."""
        self._size = size
        self._key = key
        self._limits = np.full(num_groups, np.iinfo(np.uint64).max)  # what a score must not exceed, by group
        self._tables: list[pa.Table] = []
        self._scores = np.empty(0, np.uint64)
        self._groups = np.empty(0, np.int64)

    def add(self, table: pa.Table, *, groups: NDArray[Any] | None = None) -> None:
        """Consider some samples.

        Args:
            table: Their ``sample_id``, and what is to be known of the chosen ones.
            groups: Number of each one's group, shape ``(N,)``; all are of group 0 by default.
        """
        its_scores = scores(table["sample_id"], key=self._key)
        its_groups = np.zeros(len(its_scores), np.int64) if groups is None else groups
        rows = np.flatnonzero(its_scores <= self._limits[its_groups])
        if len(rows) or not self._tables:
            self._append(table.take(pa.array(rows)), scores=its_scores[rows], groups=its_groups[rows])

    def update(self, other: "BottomK") -> None:
        """Consider what another one with this size and key has chosen, as samples that come after those so far."""
        if other._tables:
            self._append(pa.concat_tables(other._tables), scores=other._scores, groups=other._groups)

    def table(self) -> pa.Table:
        """The chosen samples in the order they were added; something must have been, be it an empty table."""
        self._cut()
        return self._tables[0]

    def group(self, number: int) -> pa.Table:
        """The chosen samples of a group in the order of their scores, which is random."""
        table = self.table()
        rows = np.flatnonzero(self._groups == number)
        return table.take(pa.array(rows[np.argsort(self._scores[rows], kind="stable")]))

    def _append(self, table: pa.Table, *, scores: NDArray[np.uint64], groups: NDArray[Any]) -> None:
        self._tables.append(table)
        self._scores = np.concatenate([self._scores, scores])
        self._groups = np.concatenate([self._groups, groups])
        if len(self._scores) > 2 * self._size * len(self._limits) + SLACK_ROWS:
            self._cut()

    def _cut(self) -> None:
        """Forget what is not chosen, and lower the limits of the groups that are full."""
        rows = smallest(self._scores, groups=self._groups, size=self._size)
        self._tables = [pa.concat_tables(self._tables).take(pa.array(rows)).combine_chunks()]
        self._scores, self._groups = self._scores[rows], self._groups[rows]
        is_full = np.bincount(self._groups, minlength=len(self._limits)) == self._size
        largest = np.zeros(len(self._limits), np.uint64)
        np.maximum.at(largest, self._groups, self._scores)
        self._limits[is_full] = largest[is_full]


def smallest(values: NDArray[np.uint64], *, groups: NDArray[Any], size: int) -> NDArray[np.int64]:
    """Places of the ``size`` smallest values of each group, ascending; among equal ones the first."""
    order = np.lexsort((values, groups))
    in_order = groups[order]
    rank = np.arange(len(order)) - np.searchsorted(in_order, in_order)
    return np.sort(order[rank < size])
