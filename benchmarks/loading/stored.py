"""The samples as ``sources`` wrote them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Source(Protocol):
    """Samples by row."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Any:
        """One sample as it is stored."""

    def take(self, rows: NDArray[np.int64]) -> Any:
        """Samples as they are stored."""


@dataclass
class Arrays:
    """Samples of one shape, memory-mapped or in memory."""

    folder: Path
    in_memory: bool = False

    @cached_property
    def x(self) -> NDArray[Any]:
        """All samples."""
        x: NDArray[Any] = np.asarray(np.load(self.folder / "x.npy", mmap_mode=None if self.in_memory else "r"))
        return x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> NDArray[Any]:
        sample: NDArray[Any] = self.x[row]
        return sample

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        taken: NDArray[Any] = self.x[rows]
        return taken


@dataclass
class Ragged:
    """Samples of any length, memory-mapped or in memory."""

    folder: Path
    in_memory: bool = False

    @cached_property
    def values(self) -> NDArray[Any]:
        """All samples, end to end."""
        return np.asarray(np.load(self.folder / "values.npy", mmap_mode=None if self.in_memory else "r"))

    @cached_property
    def offsets(self) -> list[int]:
        """Where each sample starts, and the end."""
        offsets: list[int] = np.load(self.folder / "offsets.npy").tolist()
        return offsets

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Elements of each sample."""
        return np.diff(np.load(self.folder / "offsets.npy"))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def take(self, rows: NDArray[np.int64]) -> list[NDArray[Any]]:
        return [self[row] for row in rows.tolist()]
