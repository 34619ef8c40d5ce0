"""How often each of many hashes was seen before, in 12 to 20 bytes for each that differs."""

from typing import Any, final

import numpy as np
from numpy.typing import NDArray


@final
class Occurrences:
    """Counts hashes that come some at a time.

    They are kept in sorted runs, each at least twice as long as the next, which are merged as they grow.

    Source: P. O'Neil et al., "The Log-Structured Merge-Tree", 1996.
    """

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._runs: list[tuple[NDArray[Any], NDArray[np.uint32]]] = []

    def count(self, hashes: NDArray[Any]) -> NDArray[np.int64]:
        """How often each of these hashes came before, here or in an earlier call; they are of one type at all calls."""
        order = np.argsort(hashes, kind="stable")
        sorted_hashes = hashes[order]
        is_first = np.concatenate([[True], sorted_hashes[1:] != sorted_hashes[:-1]])[: len(hashes)]
        starts = np.flatnonzero(is_first)
        group = np.cumsum(is_first) - 1
        values = sorted_hashes[starts]
        counts = np.empty(len(hashes), np.int64)
        counts[order] = self._earlier(values)[group] + np.arange(len(hashes)) - starts[group]
        self._add(values, np.diff([*starts, len(hashes)]).astype(np.uint32))
        return counts

    def _earlier(self, values: NDArray[Any]) -> NDArray[np.int64]:
        total = np.zeros(len(values), np.int64)
        for known, counts in self._runs:
            places = np.minimum(np.searchsorted(known, values), len(known) - 1)
            total += np.where(known[places] == values, counts[places], 0)
        return total

    def _add(self, values: NDArray[Any], counts: NDArray[np.uint32]) -> None:
        if not len(values):
            return
        while self._runs and len(self._runs[-1][0]) < 2 * len(values):
            values, counts = _merged(self._runs.pop(), (values, counts))
        self._runs.append((values, counts))


def _merged(
    first: tuple[NDArray[Any], NDArray[np.uint32]], second: tuple[NDArray[Any], NDArray[np.uint32]]
) -> tuple[NDArray[Any], NDArray[np.uint32]]:
    values = np.concatenate([first[0], second[0]])
    order = np.argsort(values, kind="stable")
    values, counts = values[order], np.concatenate([first[1], second[1]])[order]
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    return values[starts], np.add.reduceat(counts, starts, dtype=np.uint32)
