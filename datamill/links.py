"""Which samples belong together: of each that is tied to an earlier one, the first of its group."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from datamill.runs import RUN_ROWS

Rows = NDArray[Any]


@dataclass(frozen=True)
class Links:
    """The first sample of each sample's group; a sample that is not named is its own. Memory grows with those that are.

    Attributes:
        rows: Samples that are tied to an earlier one, ascending, int64, shape ``(M,)``.
        firsts: The first sample of each one's group, int64, shape ``(M,)``.
    """

    rows: NDArray[np.int64]
    firsts: NDArray[np.int64]

    def __len__(self) -> int:
        """How many samples are tied to an earlier one."""
        return len(self.rows)

    def named(self, rows: Rows) -> NDArray[np.bool_]:
        """Which of some samples are tied to an earlier one, shape ``(N,)``."""
        return contains(self.rows, rows)

    def of(self, rows: Rows) -> NDArray[np.int64]:
        """The first sample of the group of each of some samples, shape ``(N,)``."""
        firsts = np.array(rows, np.int64)
        is_named = self.named(rows)
        firsts[is_named] = self.firsts[np.searchsorted(self.rows, firsts[is_named])]
        return firsts

    def pairs(self) -> NDArray[np.int64]:
        """Each sample that is named, after the first of its group, shape ``(M, 2)``."""
        return np.stack([self.firsts, self.rows], axis=1)


NO_LINKS = Links(np.empty(0, np.int64), np.empty(0, np.int64))


def linked(pairs: NDArray[np.int64]) -> Links:
    """The groups that pairs of samples form, directly or through others.

    Args:
        pairs: Rows that belong together, shape ``(P, 2)``.
    """
    rows, ends = np.unique(pairs), np.empty(pairs.shape, np.int32)
    for start in range(0, len(pairs), RUN_ROWS):  # numpy's own inverse takes five arrays of this length
        ends[start : start + RUN_ROWS] = np.searchsorted(rows, pairs[start : start + RUN_ROWS])
    return joined(rows, *ends.T)


def joined(rows: Rows, left: NDArray[np.int32], right: NDArray[np.int32]) -> Links:
    """The groups that pairs of samples form, directly or through others.

    Args:
        rows: The samples, ascending.
        left: Place among them of the first of each pair, shape ``(P,)``.
        right: Place among them of the second, shape ``(P,)``.
    """
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(len(rows), len(rows)))
    _, component = connected_components(graph, directed=False)
    _, places = np.unique(component, return_index=True)  # rows ascend, so a component's first place is its smallest row
    firsts = rows[places[component]]
    is_tied = firsts != rows
    return Links(rows[is_tied], firsts[is_tied])


def contains(ascending: Rows, values: Rows) -> NDArray[np.bool_]:
    """Which of some values are among others, shape ``(N,)``.

    Args:
        ascending: The others, in order.
        values: Shape ``(N,)``.
    """
    if not len(ascending):
        return np.zeros(len(values), bool)
    near = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[near] == values, np.bool_)
