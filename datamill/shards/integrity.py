"""Finds damage before it is used: probes when a file is opened, checksums of blocks when rows are first touched."""

import contextlib
import os
import stat
import threading
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from datamill.errors import DataError
from datamill.shards.index import File

EDGE_BYTES, PIECE_BYTES, NUM_PIECES = 4096, 64, 64  # of a probe
THREADS = 4  # of a full verification: CRC-32 runs outside the interpreter's lock, then memory is the limit

Stamp = tuple[int, int, int]
"""Inode, size (bytes) and time of the last change (nanoseconds)."""


def stamp(status: os.stat_result) -> Stamp:
    """What tells a file from another, or from what it was."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def probe_ranges(size_bytes: int) -> list[tuple[int, int]]:
    """Start and length of what a probe reads: both ends and 64 pieces between them, or all of a small file."""
    if size_bytes <= 2 * EDGE_BYTES + NUM_PIECES * PIECE_BYTES:
        return [(0, size_bytes)]
    pieces = [(number * size_bytes // (NUM_PIECES + 1), PIECE_BYTES) for number in range(1, NUM_PIECES + 1)]
    return [(0, EDGE_BYTES), *pieces, (size_bytes - EDGE_BYTES, EDGE_BYTES)]


def probe(file: IO[bytes], *, size_bytes: int) -> int:
    """CRC-32 over the probed bytes of an open file."""
    crc = 0
    for start, length in probe_ranges(size_bytes):
        file.seek(start)
        crc = zlib.crc32(file.read(length), crc)
    return crc


@contextlib.contextmanager
def opened(path: Path, *, entry: File) -> Iterator[IO[bytes]]:
    """The file that the index means, open for reading: a regular one, or a link to one, of the right size and probe.

    A link may lead anywhere, as those into a cache of DVC's do: size, probe and checksums say whether it is the file.

    Raises:
        DataError: It is missing, a pipe or a device, cut, replaced or altered.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before it is opened: a pipe would block
            raise DataError(f"{path} is no file, nor a link to one; run shard again")
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry.size_bytes:
                raise DataError(
                    f"{path} has {size} bytes, the index says {entry.size_bytes}; "
                    f"the file was cut or replaced: run shard again"
                )
            found = probe(file, size_bytes=size)
            if found != entry.probe:
                raise DataError(
                    f"{path} was altered or replaced: a probe of it has CRC-32 {found:08x}, "
                    f"the index says {entry.probe:08x}; run shard again"
                )
            yield file
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; run shard again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; correct that, open it again") from error


@dataclass(frozen=True)
class Guarded:
    """A file as it was when it was opened, and its bytes in memory."""

    path: Path
    entry: File
    stamp: Stamp
    content: NDArray[np.uint8]
    is_copy: bool = False
    """Whether the file itself is elsewhere: a damaged copy is deleted, so that it is fetched again."""

    def check_unchanged(self) -> None:
        """Pass when the file is still what was opened.

        Raises:
            DataError: It is gone, or another file, or has another size or time.
        """
        try:
            found = stamp(self.path.stat())
        except OSError as error:
            raise DataError(
                f"{self.path} disappeared while the shard was open ({error.strerror}); open the shard again"
            ) from error
        if found != self.stamp:
            raise DataError(
                f"{self.path} changed while the shard was open: inode, bytes and time were {self.stamp}, "
                f"are {found}; open the shard again"
            )


class Guard:
    """Verifies the blocks of some files, each block once; free of cost when all are verified; thread-safe."""

    is_streamed: Final = False  # what is here stays here

    def __init__(self, guarded: Sequence[Guarded], *, block_bytes: int) -> None:
        """Nothing is verified yet."""
        self._guarded = guarded
        self._block_bytes = block_bytes
        counts = [len(one.entry.crc32) for one in guarded]
        self._first = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        self._done = np.zeros(sum(counts), bool)
        self._busy: set[int] = set()
        self._changed = threading.Condition()
        self.is_complete = not sum(counts)
        self.paths = tuple(one.path for one in guarded)

    def touch(self, numbers: NDArray[np.int64], *, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> None:
        """Verify the blocks under some byte ranges.

        Args:
            numbers: Number of the file of each range, shape ``(R,)``.
            starts: First byte of each range within its file, shape ``(R,)``.
            stops: One past the last byte, shape ``(R,)``; an empty range is verified already.

        Raises:
            DataError: A block is not what was written, or its file changed.
        """
        if self.is_complete:
            return
        some = stops > starts
        first = self._first[numbers[some]] + starts[some] // self._block_bytes
        last = self._first[numbers[some]] + (stops[some] - 1) // self._block_bytes
        width = int((last - first).max(initial=0)) + 1
        self._verify(np.minimum(first[:, None] + np.arange(width), last[:, None]))

    def touch_all(self) -> None:
        """Verify every block, on several threads.

        Raises:
            DataError: A block is not what was written, or its file changed.
        """
        if self.is_complete:
            return
        todo = np.flatnonzero(~self._done)
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            list(pool.map(self._verify, np.array_split(todo, min(len(todo), 4 * THREADS) or 1)))

    def check_unchanged(self) -> None:
        """Pass when every file is still what was opened.

        Raises:
            DataError: One is not.
        """
        for one in self._guarded:
            one.check_unchanged()

    def _verify(self, blocks: NDArray[np.int64]) -> None:
        while (todo := blocks[~self._done[blocks]]).size:
            wanted = set(todo.tolist())
            with self._changed:
                mine = wanted - self._busy  # the others are being verified by other threads
                self._busy |= mine
            try:
                for block in sorted(mine):
                    self._verify_block(block)
                    self._done[block] = True
            finally:
                with self._changed:
                    self._busy -= mine
                    self._changed.notify_all()
            with self._changed:
                self._changed.wait_for(lambda others=wanted - mine: self._busy.isdisjoint(others))  # type: ignore[misc]
        if not self.is_complete:
            self.is_complete = bool(self._done.all())

    def _verify_block(self, block: int) -> None:
        number = int(np.searchsorted(self._first, block, side="right")) - 1
        one, place = self._guarded[number], block - int(self._first[number])
        one.check_unchanged()  # a file that was cut has no memory behind its missing end
        start = place * self._block_bytes
        piece: NDArray[Any] = one.content[start : start + self._block_bytes]
        found, expected = zlib.crc32(piece.data), one.entry.crc32[place]
        if found != expected:
            if one.is_copy:
                one.path.unlink(missing_ok=True)
            raise DataError(
                f"{one.path} was altered: the block from byte {start} to {start + len(piece)} has "
                f"CRC-32 {found:08x}, the index says {expected:08x}; "
                + ("open the shard again, which fetches the file anew" if one.is_copy else "run shard again")
            )
