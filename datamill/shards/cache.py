"""Decoded samples kept in memory up to a number of bytes."""

import numpy as np
from numpy.typing import NDArray

from datamill.shards.forking import OwnLock


class SampleCache:
    """The first samples that were decoded, until the budget is used; what is kept never changes any result.

    Nothing is thrown out again: an epoch visits every row once, so what was used last is what is needed last.
    """

    def __init__(self, budget_bytes: int) -> None:
        """An empty cache; a budget of 0 keeps nothing."""
        self._budget_bytes = budget_bytes
        self._size_bytes = 0
        self._samples: dict[int, NDArray[np.uint8]] = {}
        self._lock = OwnLock()

    @property
    def size_bytes(self) -> int:
        """Bytes of the samples that are kept."""
        return self._size_bytes

    def get(self, row: int) -> NDArray[np.uint8] | None:
        """The sample of a row, if it was kept."""
        return self._samples.get(row)

    def keep(self, row: int, sample: NDArray[np.uint8]) -> None:
        """Keep a copy of the sample of a row if there is room."""
        if self._size_bytes + sample.nbytes > self._budget_bytes:
            return
        with self._lock:
            if self._size_bytes + sample.nbytes <= self._budget_bytes and row not in self._samples:
                self._size_bytes += sample.nbytes
                self._samples[row] = sample.copy()
