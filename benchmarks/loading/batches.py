"""Samples one by one or a batch at a time, and the orders that they come in."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.loading.contender import Batch
from benchmarks.loading.stored import Source
from benchmarks.loading.tasks import Task


class Samples:
    """Sample by sample, as most data sets are written."""

    def __init__(self, task: Task, source: Source) -> None:
        """Samples that ``task.one`` is applied to."""
        self._task, self._source = task, source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return self._task.one(self._source[row]), row


class Batches:
    """A batch at a time, for a DataLoader with ``batch_size=None``."""

    def __init__(self, task: Task, take: Callable[[NDArray[np.int64]], tuple[Any, Any]]) -> None:
        """``take`` gives the stored samples of some rows, and their row numbers."""
        self._task, self._take = task, take

    def __getitem__(self, rows: NDArray[np.int64]) -> Batch:
        samples, ids = self._take(rows)
        return self._task.many(samples, ids)


class Order:
    """Batches of row numbers in a new order each epoch."""

    def __init__(self, num_rows: int, *, batch_size: int) -> None:
        """Rows from 0."""
        self._num_rows, self._batch_size = num_rows, batch_size

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        rows = np.random.default_rng().permutation(self._num_rows)
        return iter(np.split(rows, range(self._batch_size, self._num_rows, self._batch_size)))

    def __len__(self) -> int:
        return -(-self._num_rows // self._batch_size)


class BucketOrder(Order):
    """Batches of rows of like length, after the recipe of AllenNLP and torchtext: sort pools of 100 batches."""

    def __init__(self, lengths: NDArray[np.int64], *, batch_size: int) -> None:
        """Rows of these lengths."""
        super().__init__(len(lengths), batch_size=batch_size)
        self._lengths = lengths

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        rng = np.random.default_rng()
        rows = rng.permutation(self._num_rows)
        step = 100 * self._batch_size
        pools = (rows[start : start + step] for start in range(0, len(rows), step))
        rows = np.concatenate([pool[np.argsort(self._lengths[pool], kind="stable")] for pool in pools])
        batches = np.split(rows, range(self._batch_size, self._num_rows, self._batch_size))
        return (batches[number] for number in rng.permutation(len(batches)))
