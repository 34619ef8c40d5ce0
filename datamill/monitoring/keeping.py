"""The few samples of a window whose inputs are kept, to show and to compare models on."""

from typing import Any, NamedTuple, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.sampling import scores


class Kept(NamedTuple):
    """The samples that were chosen.

    Attributes:
        scores: By which they were, uint64, shape ``(K,)``.
        rows: Their rows of the window, ascending, int64, shape ``(K,)``.
        inputs: What the network took, shape ``(K, ...)``; ``None`` where none is kept.
    """

    scores: NDArray[np.uint64] = np.empty(0, np.uint64)
    rows: NDArray[np.int64] = np.empty(0, np.int64)
    inputs: NDArray[Any] | None = None


@final
class Keeper:
    """Keeps the samples of the smallest scores, with their inputs: a choice that depends on ids alone."""

    def __init__(self, size: int, *, key: str) -> None:
        """Keep ``size`` samples; ``key`` makes the choice."""
        self._size = size
        self._key = key
        self.kept = Kept()
        """What may be put back as it was before."""

    def add(self, sample_ids: pa.ChunkedArray, *, inputs: NDArray[Any], first_row: int) -> None:
        """Choose among samples that follow one another in the window, too."""
        found = scores(sample_ids, key=self._key)
        before = self.kept
        is_full = len(before.scores) == self._size
        rows = np.flatnonzero(found < before.scores.max()) if is_full and self._size else np.arange(len(found))
        if not len(rows) or not self._size:
            return
        together = np.concatenate([before.scores, found[rows]])
        chosen = np.sort(np.argsort(together, kind="stable")[: self._size])
        own = inputs[rows] if before.inputs is None else np.concatenate([before.inputs, inputs[rows]])
        self.kept = Kept(together[chosen], np.concatenate([before.rows, first_row + rows])[chosen], own[chosen])
