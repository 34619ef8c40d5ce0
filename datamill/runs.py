"""Sorting beyond memory: sorted runs in a file, merged while they are read back.

Source: D. E. Knuth, "The Art of Computer Programming", volume 3, 1998, section 5.4 (merging of sorted runs).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill import arrays

RUN_ROWS = 65_536  # records that are given back at a time; bounds memory, not results
RUN_BYTES = 2 * 2**20  # of records that are sorted at a time: fewer runs are merged faster; bounds memory, not results
HELD_ROWS = 2**17  # records of all runs together that are in memory while they are merged, if each run has a few
TRIMMED_EVERY = 3  # blocks that were given back
LEAST_ROWS = 64  # of a run that are read at a time

Records = NDArray[Any]


@final
class SortedRuns:
    """Records of one type that come some at a time and are read back in the order of their keys.

    Records with equal keys keep the order in which they came. Memory holds ``RUN_BYTES`` of records, and while they are
    read back about ``HELD_ROWS`` of them, however many there are.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any] | type, *, key: str | None = None) -> None:
        """Start with none.

        Args:
            path: A file to keep them in; what is there is overwritten.
            dtype: Of a record; it may have fields.
            key: The field to sort by; a record without fields is its own key. No key is NaN.
        """
        self._path = path
        self._dtype = np.dtype(dtype)
        self._key = key
        self._ends = [0]
        self._waiting: Records = np.empty(0, self._dtype)  # one array for all runs: many small ones fragment memory
        self._num_waiting = 0
        path.write_bytes(b"")

    def __len__(self) -> int:
        """How many records there are."""
        return self._ends[-1] + self._num_waiting

    def add(self, records: Records) -> None:
        """Take some records, shape ``(N,)``, which do not change any more."""
        if len(records) and not len(self._waiting):
            self._waiting = np.empty(max(RUN_BYTES // self._dtype.itemsize, 1), self._dtype)
        while len(records):
            taken = records[: len(self._waiting) - self._num_waiting]
            self._waiting[self._num_waiting : self._num_waiting + len(taken)] = taken
            self._num_waiting += len(taken)
            records = records[len(taken) :]
            if self._num_waiting == len(self._waiting):
                self._write_run()

    def merged(self) -> Iterator[Records]:
        """All records in the order of their keys, ``RUN_ROWS`` at a time; equal keys may lie in several blocks."""
        self._write_run()
        self._waiting = self._waiting[:0].copy()
        if len(self._ends) > 2:  # merged once, and read as it is from then on
            merging = self._path.with_name(f"{self._path.name}.merging")
            with merging.open("wb") as file:
                for piece in self._pieces():
                    arrays.append(file, piece)
            merging.replace(self._path)
            self._ends = [0, self._ends[-1]]
        for number, block in enumerate(regrouped(self._pieces()), 1):
            yield block
            if number % TRIMMED_EVERY == 0:  # else the heap grows with what is done to each of them
                pa.default_memory_pool().release_unused()

    def shared(self) -> Iterator[Records]:
        """The records whose key occurs more than once, in order; all of a key are in one block."""
        waiting = np.empty(0, self._dtype)
        for block in self.merged():
            block = np.concatenate([waiting, block])
            keys = self._keys(block)
            whole = int(np.searchsorted(keys, keys[-1]))
            yield self._repeated(block[:whole])
            waiting = block[whole:].copy()
        yield self._repeated(waiting)

    def _write_run(self) -> None:
        if self._num_waiting:
            with self._path.open("ab") as file:
                arrays.append(file, self._in_order(self._waiting[: self._num_waiting]))
            self._ends.append(self._ends[-1] + self._num_waiting)
            self._num_waiting = 0
            pa.default_memory_pool().release_unused()

    def _repeated(self, records: Records) -> Records:
        keys = self._keys(records)
        is_same = keys[1:] == keys[:-1]
        return records[np.append(is_same, False) | np.append(False, is_same)] if len(records) else records

    def _pieces(self) -> Iterator[Records]:
        """All records in order, in blocks of any length."""
        at_once = max(LEAST_ROWS, HELD_ROWS // (len(self._ends) - 1 or 1))
        runs = [
            _Run(self._path, self._dtype, start=start, end=end, at_once=at_once)
            for start, end in zip(self._ends[:-1], self._ends[1:], strict=True)
        ]
        while runs := [run for run in runs if run.fill()]:
            bound = min((self._keys(run.head)[-1] for run in runs if run.has_more), default=None)
            if len(self._ends) == 2:
                yield runs[0].take(len(runs[0].head))
                continue
            if bound is None:
                yield self._in_order(np.concatenate([run.take(len(run.head)) for run in runs]))
                continue
            pieces = [run.take(int(np.searchsorted(self._keys(run.head), bound))) for run in runs]
            if any(len(piece) for piece in pieces):
                yield self._in_order(np.concatenate(pieces))
            else:
                for run in runs:
                    yield from self._equal(run, bound)

    def remove(self) -> None:
        """Delete the file; there are no records any more."""
        self._path.unlink(missing_ok=True)
        self._ends, self._waiting, self._num_waiting = [0], self._waiting[:0].copy(), 0

    def _equal(self, run: "_Run", bound: Any) -> Iterator[Records]:
        """The records at the head of a run whose key is ``bound``, be they more than memory should hold."""
        while run.fill() and self._keys(run.head)[0] == bound:
            yield run.take(int(np.searchsorted(self._keys(run.head), bound, side="right")))

    def _in_order(self, records: Records) -> Records:
        if self._key is None:
            return np.sort(records)  # nobody can tell equal ones apart
        return records.take(np.argsort(self._keys(records), kind="stable"))

    def _keys(self, records: Records) -> Records:
        return records if self._key is None else np.ascontiguousarray(records[self._key])


def regrouped(pieces: Iterable[Records]) -> Iterator[Records]:
    """The same records, ``RUN_ROWS`` at a time; the last array may have fewer."""
    waiting: list[Records] = []
    count = 0
    for piece in pieces:
        waiting, count = [*waiting, piece], count + len(piece)
        if count >= RUN_ROWS:
            records = np.concatenate(waiting)
            for start in range(0, count - RUN_ROWS + 1, RUN_ROWS):
                yield records[start : start + RUN_ROWS]
            count %= RUN_ROWS
            waiting = [records[len(records) - count :].copy()]
    if count:
        yield np.concatenate(waiting)


@final
class _Run:
    """A sorted part of the file, of which the next records are in memory."""

    def __init__(self, path: Path, dtype: np.dtype[Any], *, start: int, end: int, at_once: int) -> None:
        self._path = path
        self._next = start
        self._end = end
        self._at_once = at_once
        self.head: Records = np.empty(0, dtype)

    @property
    def has_more(self) -> bool:
        """Whether there are records beyond the head."""
        return self._next < self._end

    def fill(self) -> bool:
        """Read on where the head is empty; whether anything is left."""
        if not len(self.head) and self.has_more:
            count = min(self._at_once, self._end - self._next)
            offset = self._next * self.head.dtype.itemsize
            self.head = np.fromfile(self._path, self.head.dtype, count=count, offset=offset)
            self._next += count
        return len(self.head) > 0

    def take(self, count: int) -> Records:
        """The first records of the head, which go."""
        taken, self.head = self.head[:count], self.head[count:]
        return taken
