"""The fields of an open shard: arrays, byte strings and ragged arrays over memory-mapped segments."""

import functools
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from datamill.errors import DataError
from datamill.shards import mapping
from datamill.shards.entries import Field
from datamill.shards.integrity import Guard
from datamill.shards.mapping import Places
from datamill.shards.streaming import Block, Stream

if TYPE_CHECKING:
    from torch import Tensor

Rows = slice | Sequence[int] | NDArray[np.integer[Any]]
"""Which rows: a slice, or row numbers from 0."""


class ArrayField:
    """Rows of one dtype and shape, all segments as one array.

    The array has *slots*: as many as rows, unless the segments leave holes between them. ``slot_of`` says where a row
    is.
    """

    def __init__(self, field: Field, *, data: NDArray[Any], places: Places, guard: Guard | Stream) -> None:
        """``data`` has one slot per index, shape ``(slots, *field.shape)``."""
        self.dtype: Final = data.dtype
        self.shape: Final = field.shape
        self.num_rows: Final = int(places.first[-1])
        self.guard: Final[Guard | Stream] = guard
        self._data = data
        self._places = places
        self._row_bytes = field.element_bytes

    @functools.cached_property
    def tensor(self) -> "Tensor":
        """All slots as a tensor, shape (slots, *shape), over the mapped files: never write to it."""
        import torch

        return torch.from_numpy(self._data)

    @functools.cached_property
    def numpy(self) -> NDArray[Any]:
        """All slots as a read-only array, shape (slots, *shape), over the mapped files."""
        view = self._data.view()
        view.flags.writeable = False
        return view

    @property
    def is_dense(self) -> bool:
        """Whether the slot of a row is its number."""
        return self._places.is_dense

    def slot_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slot of each row, shape ``(n,)``: its place in ``tensor`` and ``numpy``."""
        return self._places.slots(rows)

    def touch(self, rows: Rows = slice(None)) -> None:
        """Verify the blocks that some rows lie in, each block once.

        Raises:
            DataError: A block is not what was written.
            IndexError: There is no such row.
        """
        if not self.guard.is_complete:
            numbers, starts, stops = self.bytes_of(rows)
            self.guard.touch(numbers, starts=starts, stops=stops)

    def all(self) -> NDArray[Any]:
        """Every row, verified, shape ``(N, *shape)``: a view, or a copy when there are holes.

        Raises:
            DataError: A block is not what was written, or the field is streamed.
        """
        if self.guard.is_streamed:
            raise DataError(
                f"the {self.num_rows} rows of this field are larger than the cache of their shard; index some of them, "
                "load them in batches, or raise cache_bytes"
            )
        self.guard.touch_all()
        return self.numpy if self.is_dense else self.numpy[self.slot_of(np.arange(self.num_rows))]

    def bytes_of(self, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of the files that rows lie in, and the bytes where they begin and end there, shape ``(R,)`` each."""
        numbers, starts, stops = _ranges(rows, places=self._places)
        first, size = self._places.first[numbers], self._row_bytes
        return numbers, (starts - first) * size, (stops - first) * size


class VerifiedRows:
    """An array field as an array whose rows are verified when they are read.

    Indexing gives plain arrays. Whatever else an array can do is done on all rows, which reads them all.
    """

    def __init__(self, field: ArrayField) -> None:
        """Rows of ``field``."""
        self._field = field
        self.dtype: Final = field.dtype
        self.shape: Final = (field.num_rows, *field.shape)

    def __len__(self) -> int:
        return self._field.num_rows

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows, *rest = key if isinstance(key, tuple) else (key,)
        field = self._field
        if isinstance(rows, int | np.integer):
            return self[[int(rows)]][(0, *rest)]  # type: ignore[no-any-return]
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1 and field.is_dense and not field.guard.is_streamed:
                field.touch(slice(start, stop))
                return field.numpy[(slice(start, stop), *rest)]  # type: ignore[no-any-return]
            rows = np.arange(start, stop, step)
        wanted = self._numbers(rows)
        with held([field], wanted.ravel()):
            slots = field.slot_of(wanted.ravel()).reshape(wanted.shape)
            return field.numpy[(slots, *rest)]  # type: ignore[no-any-return]

    def _numbers(self, rows: Any) -> NDArray[np.int64]:
        """Row numbers from 0, of numbers that may count from the end or of a mask."""
        wanted = np.asarray(rows)
        if wanted.dtype == bool and wanted.shape == (len(self),):
            return np.flatnonzero(wanted)
        if wanted.dtype.kind not in "iu" and wanted.size:
            raise IndexError(f"rows are whole numbers or a mask of {len(self)}, not {wanted.dtype} {wanted.shape}")
        wanted = np.where(wanted < 0, wanted + len(self), wanted).astype(np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} of {len(self)}")
        return wanted

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self._field.all(), dtype)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._field.all(), name)


class RaggedField:
    """Rows of any length; a row is a run of elements.

    Attributes:
        data: All elements, shape ``(slots, *shape)``, read-only; ``starts`` says where each row begins.
    """

    def __init__(
        self,
        field: Field,
        *,
        data: NDArray[Any],
        rows: Places,
        elements: Places,
        offsets: Sequence[NDArray[np.uint64]],
        guards: tuple[Guard | Stream, Guard],
    ) -> None:
        """``offsets`` has one array per segment, ``guards`` stand over the data and over the offsets."""
        self.dtype: Final = data.dtype
        self.shape: Final = field.shape
        self.num_rows: Final = int(rows.first[-1])
        self._data = data
        self.data: Final = data.view()
        self.data.flags.writeable = False
        self.guard, self.offsets_guard = guards
        self._element_bytes = field.element_bytes
        self._rows = rows
        self._elements = elements
        self._offsets = offsets

    @functools.cached_property
    def tensor(self) -> "Tensor":
        """``data`` as a tensor over the mapped files: never write to it."""
        import torch

        return torch.from_numpy(self._data)

    @functools.cached_property
    def offsets(self) -> NDArray[np.uint64]:
        """Where each row starts, counted in elements of the rows before it, shape ``(N + 1,)``; verified.

        Raises:
            DataError: They are not what was written, fall, or do not cover the elements.
        """
        self.offsets_guard.touch_all()
        counts = np.diff(self._elements.first)
        for number, (one, count) in enumerate(zip(self._offsets, counts, strict=True)):
            if one[0] != 0 or one[-1] != count or (one[1:] < one[:-1]).any():
                raise DataError(
                    f"{self.offsets_guard.paths[number]} is damaged: offsets from {one[0]} to {one[-1]} for {count} "
                    f"elements must rise from 0 to their number; run shard again"
                )
        if len(self._offsets) == 1:
            return self._offsets[0]
        firsts = self._elements.first[:-1].astype(np.uint64)
        pieces = [one[:-1] + first for one, first in zip(self._offsets, firsts, strict=True)]
        return np.concatenate([*pieces, self._elements.first[-1:].astype(np.uint64)])

    @functools.cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Elements of each row, shape ``(N,)``."""
        return np.diff(self.offsets.view(np.int64))

    def starts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where some rows begin in ``data``, shape ``(n,)``, counted in elements."""
        starts = self.offsets[rows].astype(np.int64)
        return starts if self._elements.is_dense else starts + self._shift_of(rows)

    def view(self, row: int) -> Any:
        """The elements of one row, shape ``(length, *shape)``, over the mapped file; ``touch`` it first.

        Raises:
            IndexError: There is no such row.
        """
        if not 0 <= row < self.num_rows:
            raise IndexError(f"row {row} of {self.num_rows}")
        start, stop = int(self.offsets[row]), int(self.offsets[row + 1])
        if not self._elements.is_dense:
            shift = int(self._shift_of(np.array([row]))[0])
            start, stop = start + shift, stop + shift
        return self.data[start:stop]

    def touch(self, rows: Rows = slice(None)) -> None:
        """Verify the blocks that some rows lie in, each block once.

        Raises:
            DataError: A block is not what was written.
            IndexError: There is no such row.
        """
        if not (self.guard.is_complete and self.offsets_guard.is_complete):
            numbers, starts, stops = self.bytes_of(rows)
            self.guard.touch(numbers, starts=starts, stops=stops)

    def bytes_of(self, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The same of the elements of rows: file numbers, first bytes and ends, shape ``(R,)`` each."""
        numbers, first, last = _ranges(rows, places=self._rows)
        base, size = self._elements.first[numbers], self._element_bytes
        starts, stops = self.offsets[first].astype(np.int64) - base, self.offsets[last].astype(np.int64) - base
        return numbers, starts * size, stops * size

    def _shift_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._elements.shift[self._rows.find(rows)]


class BytesField(RaggedField):
    """Rows of any number of bytes."""

    def view(self, row: int) -> memoryview:
        """The bytes of one row, over the mapped file; ``touch`` it first."""
        return memoryview(super().view(row))

    def views(self, rows: NDArray[np.int64]) -> list[memoryview]:
        """The bytes of each of some rows, as ``view`` gives those of one: a tenth of its cost for each of many."""
        starts = self.starts(rows)
        stops = starts + self.lengths[rows]
        content = self.data.data
        return [content[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]

    def let_go(self) -> None:
        """Give back the memory of the bytes that were read so far, which the mapped file would keep."""
        mapping.let_go(self._data)


def held(fields: Iterable[ArrayField | RaggedField], rows: Rows = slice(None)) -> AbstractContextManager[None]:
    """Some rows of some fields, verified, and here until the context ends; what is not streamed stays here.

    Raises:
        DataError: A block is not what was written, cannot be fetched, or they are too many at once.
        IndexError: There is no such row.
    """
    blocks: list[Block] = []
    for field in fields:
        if isinstance(field.guard, Stream):
            numbers, starts, stops = field.bytes_of(rows)
            blocks += field.guard.blocks(numbers, starts=starts, stops=stops)
        else:
            field.touch(rows)
    return blocks[0].stream.budget.holding(blocks) if blocks else nullcontext()


def _ranges(rows: Rows, *, places: Places) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Segment, start and stop of what is wanted: one range per row, or per segment of a slice."""
    num_rows = int(places.first[-1])
    if isinstance(rows, slice):
        start, stop, step = rows.indices(num_rows)
        if step == 1:
            return places.pieces(start, stop)
        rows = np.arange(start, stop, step)
    wanted = np.asarray(rows, np.int64)
    if wanted.size and not 0 <= wanted.min() <= wanted.max() < num_rows:
        raise IndexError(f"rows {wanted.min()} to {wanted.max()} of {num_rows}")
    return places.find(wanted), wanted, wanted + 1
