"""Virtual concatenation: several files as one array in memory, without reading or copying them.

One range of addresses is reserved and every file is mapped into it, so that one gather reads from all of them. Files
start at multiples of the page size and of the element size; between them lie holes, which read as zeros.
"""

import ctypes
import functools
import math
import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 2**46  # half of what an x86-64 process can address
NO_RESERVE = {"Linux": 0x4000, "Darwin": 0x40}  # MAP_NORESERVE, which Python 3.11 does not name


@dataclass(frozen=True)
class Mapped:
    """Files in memory.

    Attributes:
        flat: Their bytes, in order, with holes between them, shape ``(bytes,)``. Only reading is allowed.
        positions: Where each file starts in ``flat`` (bytes).
    """

    flat: NDArray[np.uint8]
    positions: tuple[int, ...]


class Places:
    """Where the segments of a field stand: in rows or elements, counted without holes, and in slots, with them."""

    def __init__(self, counts: Sequence[int], *, slots: Sequence[int]) -> None:
        """Segments of so many units; ``slots`` is the slot of each one's first unit."""
        self.first: Final = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        self.shift: Final = np.asarray(slots, np.int64) - self.first[:-1]
        self.is_dense: Final = not self.shift.any()

    def find(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of the segment that each unit lies in, shape ``(n,)``."""
        if len(self.shift) == 1:
            return np.zeros(len(units), np.int64)
        return np.searchsorted(self.first[1:-1], units, side="right")

    def slots(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slot of each unit, shape ``(n,)``."""
        return units if self.is_dense else units + self.shift[self.find(units)]

    def pieces(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Segments that a range of units lies in, and its first and last units plus one there, shape ``(R,)`` each."""
        starts, stops = np.maximum(self.first[:-1], start), np.minimum(self.first[1:], stop)
        numbers = np.flatnonzero(stops > starts)
        return numbers, starts[numbers], stops[numbers]


def map_files(opened: Iterable[IO[bytes]], *, sizes: Sequence[int], element_bytes: int) -> Mapped:
    """Open files as one array; each may be closed when the next is taken.

    The memory is unmapped when the last array or tensor over it is gone. A file that is cut later takes the memory
    behind its end away: reading there kills the process with SIGBUS, so whoever fears that asks ``check_unchanged``.
    Where addresses cannot be arranged so (Windows; files too far apart), the files are read into memory instead.

    Args:
        opened: Open for reading, unbuffered.
        sizes: How much of each is wanted (bytes), a multiple of ``element_bytes``.
        element_bytes: Files start at multiples of it, so that all elements together form one array.
    """
    step = math.lcm(mmap.ALLOCATIONGRANULARITY, element_bytes) if len(sizes) > 1 else 1
    positions = _places(sizes, step=step)
    total = positions[-1] + sizes[-1] if sizes else 0
    map_into = _mapper()
    if map_into is None or not 0 < total <= MAX_BYTES:
        return _read(opened, sizes=sizes)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE.get(os.uname().sysname, 0)
    reserved = np.frombuffer(mmap.mmap(-1, total, flags=flags), np.uint8)  # holds the range until the last view is gone
    for file, size, position in zip(opened, sizes, positions, strict=True):
        if size:
            map_into(reserved.ctypes.data + position, size, file.fileno())
    return Mapped(reserved, tuple(positions))


def let_go(array: NDArray[Any]) -> None:
    """Give back the memory behind a mapped array; what is used again comes from the system's cache of files."""
    base: Any = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    if isinstance(base, mmap.mmap) and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_DONTNEED)


def _places(sizes: Sequence[int], *, step: int) -> list[int]:
    positions, end = [], 0
    for size in sizes:
        positions.append(-(-end // step) * step)
        end = positions[-1] + size
    return positions


def _read(opened: Iterable[IO[bytes]], *, sizes: Sequence[int]) -> Mapped:
    positions = _places(sizes, step=1)
    flat = np.empty(sum(sizes), np.uint8)
    for file, size, position in zip(opened, sizes, positions, strict=True):
        file.seek(0)
        rest = flat.data[position : position + size]
        while rest:
            count = file.readinto(rest)  # type: ignore[attr-defined]
            if not count:
                raise OSError(f"{len(rest)} of {size} bytes are missing at its end")
            rest = rest[count:]
    return Mapped(flat, tuple(positions))


@functools.cache
def _mapper() -> Callable[[int, int, int], None] | None:
    """A function that maps (address, size, descriptor), or ``None`` where there is no such thing."""
    if not hasattr(mmap, "PROT_READ"):
        return None
    libc: Any = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
    libc.mmap.argtypes, libc.mmap.restype = arguments, ctypes.c_void_p
    fixed = {"Linux": 0x10, "Darwin": 0x10}.get(os.uname().sysname)  # MAP_FIXED
    if fixed is None:
        return None

    def map_into(address: int, size: int, descriptor: int) -> None:
        if libc.mmap(address, size, mmap.PROT_READ, mmap.MAP_SHARED | fixed, descriptor, 0) != address:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return map_into
