"""Decoded samples kept in memory up to a number of bytes."""

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


class SampleCache:
    """The first samples that were decoded, until the budget is used; what is kept never changes any result.

    Nothing is thrown out again: an epoch visits every row once, so what was used last is what is needed last.
    """

    def __init__(self, budget_bytes: int) -> None:
        """An empty cache; a budget of 0 keeps nothing."""
        self._budget_bytes = budget_bytes
        self._size_bytes = 0
        self._samples: dict[int, NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """Bytes of the samples that are kept."""
        return self._size_bytes

    def get(self, row: int, *, make: Callable[[int], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The sample of a row: kept, or made by ``make``; then a copy is kept if there is room."""
        kept = self._samples.get(row)
        if kept is not None:
            return kept
        sample = make(row)
        if self._reserve(row, sample.nbytes):
            self._samples[row] = sample.copy()
        return sample

    def _reserve(self, row: int, size_bytes: int) -> bool:
        with self._lock:
            if self._size_bytes + size_bytes > self._budget_bytes or row in self._samples:
                return False
            self._size_bytes += size_bytes
            return True
