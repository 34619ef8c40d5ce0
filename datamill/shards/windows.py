"""Rows of varying length as rows of one length: cut out, or padded to the longest of a batch."""

# Shapes: B rows of a batch, L elements of the longest or of a window.

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamill.errors import ParamsError
from datamill.shards.chance import row_chances
from datamill.shards.fields import ArrayField, RaggedField

KEPT_VIEWS = 1024  # one for each length of a batch
STREAM = 0x0C40  # keeps windows apart from other random numbers of a row


@dataclass(frozen=True)
class Window:
    """How rows of any length, or arrays along their first axis, become rows of one length.

    Attributes:
        length: Elements of the result; shorter rows are followed by zeros.
        crop: Where it is cut out of a longer row: ``random``, by row and epoch, ``center`` or ``start``.
    """

    length: int
    crop: Literal["random", "center", "start"] = "random"

    def __post_init__(self) -> None:
        """Refuse what makes no window.

        Raises:
            ParamsError: Naming the value.
        """
        if self.length < 1 or self.crop not in ("random", "center", "start"):
            raise ParamsError(f"{self} makes no window; length is at least 1, crop random, center or start")


class Runs:
    """The rows of a ragged field, or of an array field along its first axis, as runs of elements."""

    def __init__(self, field: RaggedField | ArrayField) -> None:
        """Nothing is read yet."""
        self._field = field
        self.elements = ragged_tensor(field) if isinstance(field, RaggedField) else field.tensor.flatten(0, 1)

    def lengths(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Elements of some rows."""
        if isinstance(self._field, RaggedField):
            lengths: NDArray[np.int64] = self._field.lengths[rows]
            return lengths
        return np.full(len(rows), self._field.shape[0], np.int64)

    def starts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where they begin in ``elements``."""
        if isinstance(self._field, RaggedField):
            return self._field.starts(rows)
        return self._field.slot_of(rows) * self._field.shape[0]


class WindowColumn:
    """A window of each row, read with one gather."""

    def __init__(self, field: RaggedField | ArrayField, *, window: Window, seed: int) -> None:
        """Windows of the rows of ``field``; ``seed`` is that of random windows."""
        self._runs = Runs(field)
        self._window = window
        self._seed = seed
        elements = self._runs.elements
        self._num_starts = max(0, len(elements) - window.length + 1)
        self._windows = overlapping(elements, length=window.length) if self._num_starts else None
        self.shape = (window.length, *elements.shape[1:])
        self.dtype = elements.dtype

    def load(self, rows: NDArray[np.int64], *, out: Tensor, epoch: int) -> None:
        """See ``Column``."""
        lengths = self._runs.lengths(rows)
        starts = self._runs.starts(rows) + self._skipped(rows, lengths=lengths, epoch=epoch)
        if self._windows is not None:
            safe = np.minimum(starts, self._num_starts - 1)  # behind the last rows there is too little
            torch.index_select(self._windows, 0, torch.from_numpy(safe), out=out)
        for place in np.flatnonzero(lengths < self._window.length).tolist():
            start, length = int(starts[place]), int(lengths[place])
            out[place, :length] = self._runs.elements[start : start + length]
            out[place, length:] = 0

    def _skipped(self, rows: NDArray[np.int64], *, lengths: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """Elements before each window."""
        spare = np.maximum(lengths - self._window.length, 0)
        if self._window.crop == "random":
            chances = row_chances(rows, num=1, seed=self._seed, epoch=epoch, stream=STREAM)[0]
            skipped: NDArray[np.int64] = (chances * (spare + 1)).astype(np.int64)
            return skipped
        return spare // 2 if self._window.crop == "center" else np.zeros_like(spare)


class PaddedColumn:
    """Whole rows of a ragged field, padded to the longest of the batch."""

    def __init__(self, field: RaggedField, *, pad: float) -> None:
        """Rows of ``field``, followed by ``pad``."""
        self._field = field
        self._filling = pad
        self._elements = ragged_tensor(field)
        self._num_elements = len(self._elements)
        self._is_maskable = pad == 0 and not self._elements.is_floating_point()
        self._runs = functools.lru_cache(KEPT_VIEWS)(functools.partial(overlapping, self._elements))

    def load(self, rows: NDArray[np.int64], *, sizes: Sequence[int]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Rows, which of their elements are real, and how many, for each batch of a block.

        A row is read with as many elements as the longest of its batch has; what belongs to the next row is blanked.

        Args:
            rows: Row numbers of all batches.
            sizes: Rows of each batch, at least 1.

        Returns:
            Elements, shape (B, L, *shape); mask, bool, shape (B, L); lengths, int64, shape (B,). New memory.
        """
        lengths, starts = self._field.lengths[rows], self._field.starts(rows)
        stops = np.cumsum(sizes)
        longest = np.maximum.reduceat(lengths, stops - sizes)
        is_inside = bool((starts + longest.repeat(sizes)).max() <= self._num_elements)
        ends = lengths.astype(np.min_scalar_type(longest.max()))[:, None]  # of few bits: compared many at a time
        positions = np.arange(longest.max(), dtype=ends.dtype)
        masks = [
            torch.from_numpy(positions[:length] < ends[stop - size : stop])
            for length, size, stop in zip(longest.tolist(), sizes, stops.tolist(), strict=True)
        ]
        by_batch = zip(
            torch.from_numpy(starts).split_with_sizes(list(sizes)),
            torch.from_numpy(lengths).split_with_sizes(list(sizes)),
            masks,
            longest.tolist(),
            strict=True,
        )
        return [
            (self._pad(some_starts, some_lengths, mask=mask, length=length, is_inside=is_inside), mask, some_lengths)
            for some_starts, some_lengths, mask, length in by_batch
        ]

    def _pad(self, starts: Tensor, lengths: Tensor, *, mask: Tensor, length: int, is_inside: bool) -> Tensor:
        if is_inside:
            padded = torch.index_select(self._runs(length=length), 0, starts)
        else:  # behind the last rows there is too little
            padded = torch.index_select(self._runs(length=length), 0, starts.clamp(max=self._num_elements - length))
            for row, start, count in zip(padded, starts.tolist(), lengths.tolist(), strict=True):
                row[:count] = self._elements[start : start + count]
        if self._elements.ndim > 1:
            mask = mask.reshape(*mask.shape, *(1,) * (self._elements.ndim - 1))
        # Multiplying is the faster way; but infinity times 0 is not 0.
        return padded.mul_(mask) if self._is_maskable else padded.masked_fill_(~mask, self._filling)


def ragged_tensor(field: RaggedField) -> Tensor:
    """All elements of a field, shape (slots, *shape), over the mapped file: never write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(field.data)


def overlapping(elements: Tensor, *, length: int) -> Tensor:
    """Every run of ``length`` elements as a row of its own, shape (starts, length, *shape), without copying."""
    shape, strides = elements.shape[1:], elements.stride()
    return elements.as_strided((len(elements) - length + 1, length, *shape), (strides[0], *strides))
