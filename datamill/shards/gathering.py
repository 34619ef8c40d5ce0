"""Rows out of mapped memory into a batch's memory, and on the way there to normalised floats."""

# Shapes: R rows, S slots of the source, C channels (the last axis of a row).

import math
import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamill.errors import ParamsError
from datamill.shards.fields import ArrayField

CHUNK_BYTES = 2**20  # gathered before they are normalised: what the L2 cache holds
FULL_SCALE = {torch.uint8: 255.0, torch.int16: 32768.0}  # the value that becomes 1; of other types 1 itself

Statistics = tuple[float | Sequence[float], float | Sequence[float]]
"""Mean and standard deviation, of all values or of each channel, on the scale where the largest value is 1."""


class Column(Protocol):
    """What loads one field whose rows all have one shape."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the numbers it loads."""

    def load(self, rows: NDArray[np.int64], *, out: Tensor, epoch: int) -> None:
        """Load rows into ``out``, shape (R, *shape).

        Raises:
            DataError: A row is damaged.
        """


class Normaliser:
    """(value / full scale - mean) / deviation, as one multiplication and one addition."""

    def __init__(self, statistics: Statistics, *, dtype: torch.dtype, shape: tuple[int, ...], name: str) -> None:
        """Prepare the factors.

        Args:
            statistics: Mean and standard deviation; a deviation of 0 only centres.
            dtype: Type of the values.
            shape: Shape of one row; channels are its last axis.
            name: Of the field, for errors.

        Raises:
            ParamsError: There is not one number, nor one per channel, or one is not finite.
        """
        mean, deviation = (np.atleast_1d(np.asarray(one, np.float64)) for one in statistics)
        channels = shape[-1] if shape else 1
        fits = all(one.shape in {(1,), (channels,)} and np.isfinite(one).all() for one in (mean, deviation))
        if not fits or (deviation < 0).any():
            raise ParamsError(
                f"normalise[{name!r}] is {statistics} for rows of shape {shape}; give a mean and a deviation, "
                f"each one number or one for each of {channels} channels"
            )
        deviation = np.where(deviation > 0, deviation, 1.0)
        scale, offset = 1 / (deviation * FULL_SCALE.get(dtype, 1.0)), -mean / deviation
        self._is_identity = bool((scale == 1).all() and (offset == 0).all())
        self._factor = float(scale[0])
        self._scale: Tensor | None = None
        self._offset = torch.tensor(float(offset[0]), dtype=torch.float32, device="cpu")
        if len(mean) > 1 or len(deviation) > 1:  # by row: an inner loop over three channels would be slow
            self._scale = torch.from_numpy(np.broadcast_to(scale, shape).astype(np.float32))
            self._offset = torch.from_numpy(np.broadcast_to(offset, shape).astype(np.float32))

    def apply(self, values: Tensor, *, out: Tensor) -> None:
        """Write normalised ``values`` into ``out``, float32, of the same shape."""
        out.copy_(values)
        if self._is_identity:
            return
        if self._scale is None:
            torch.add(self._offset, out, alpha=self._factor, out=out)
        else:
            torch.addcmul(self._offset, out, self._scale, out=out)

    def to(self, device: torch.device) -> "Normaliser":
        """The same on another device."""
        other = object.__new__(Normaliser)
        other.__dict__.update(self.__dict__)
        other._offset = self._offset.to(device)
        other._scale = self._scale.to(device) if self._scale is not None else None
        return other


class ArrayColumn:
    """An array field: one gather for any number of rows."""

    def __init__(self, field: ArrayField) -> None:
        """Rows of ``field``."""
        self._field = field
        self.shape = field.shape
        self.dtype = field.tensor.dtype

    def load(self, rows: NDArray[np.int64], *, out: Tensor, epoch: int) -> None:
        """See ``Column``."""
        slots = self._field.slot_of(rows)
        if torch.get_num_threads() > 1:
            torch.index_select(self._field.tensor, 0, torch.from_numpy(slots), out=out)
        else:  # the mode without a check is a tenth faster, and clips nothing
            self._field.numpy.take(slots, axis=0, mode="clip", out=out.numpy())


class NormalisedColumn:
    """Another column's rows, normalised chunk by chunk while they are in the cache."""

    def __init__(self, column: Column, *, normaliser: Normaliser) -> None:
        """Rows of ``column`` as float32."""
        self._column = column
        self._normaliser = normaliser
        self._chunk = max(1, CHUNK_BYTES // max(1, column.dtype.itemsize * math.prod(column.shape)))
        self._memory = threading.local()  # of one chunk, reused
        self.shape = column.shape
        self.dtype = torch.float32

    def load(self, rows: NDArray[np.int64], *, out: Tensor, epoch: int) -> None:
        """See ``Column``."""
        size = self._chunk * torch.get_num_threads()  # every core has a cache of its own
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            raw = self._borrow(size)[: len(some)]
            self._column.load(some, out=raw, epoch=epoch)
            self._normaliser.apply(raw, out=out[start : start + size] if len(out) > size else out)

    def _borrow(self, size: int) -> Tensor:
        memory: Tensor | None = getattr(self._memory, "chunk", None)
        if memory is None or len(memory) < size:
            memory = torch.empty(size, *self.shape, dtype=self._column.dtype, device="cpu")
            self._memory.chunk = memory
        return memory
