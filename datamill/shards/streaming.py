"""Fields of a shard at a URL that are larger than the cache: blocks come when their rows are held, and go again.

The blocks of a field lie in a sparse file without a name, which is memory-mapped, so that rows are gathered from it as
from a file that is there. Those used longest ago make room, by holes punched into it. Nothing of it outlives the
process, and no row is read that is not held.
"""

import contextlib
import ctypes
import errno
import os
import sys
import tempfile
import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, wait
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamill.errors import DataError
from datamill.shards.entries import File
from datamill.shards.mapping import map_files

KEEP_SIZE, PUNCH_HOLE = 0x01, 0x02  # of Linux's fallocate
VERIFIED_AT_ONCE = 8  # blocks, when all are


class Block(NamedTuple):
    """A block of one file of a field."""

    stream: "Stream"
    file: int
    start: int
    size_bytes: int


class Budget:
    """Bytes of blocks that may be here at a time, over all fields of a shard; thread-safe."""

    def __init__(self, limit_bytes: int, *, name: str, pool: Executor) -> None:
        """Nothing is here yet.

        Args:
            limit_bytes: Of all blocks together.
            name: What errors call the shard.
            pool: Fetches several blocks at a time.
        """
        self._limit_bytes = limit_bytes
        self._name = name
        self._pool = pool
        self._here: OrderedDict[Block, None] = OrderedDict()  # the one used longest ago first
        self._here_bytes = 0
        self._coming: set[Block] = set()
        self._holders: Counter[Block] = Counter()
        self._threads: Counter[int] = Counter()  # that hold some
        self._changed = threading.Condition()
        self._pid = os.getpid()

    @contextlib.contextmanager
    def holding(self, blocks: Sequence[Block]) -> Iterator[None]:
        """Blocks, each named once, that are here until the context ends.

        Two threads that hold some and want others could wait for each other: what is used together is held together.

        Raises:
            DataError: They are more than the limit, or one cannot be fetched as it was written; or this is a forked
                child, whose parent would lose what is dropped here.
        """
        if self._pid != os.getpid():
            raise DataError(f"{self._name}: a forked process cannot share a cache; open the shard in each process")
        self._claim(blocks)
        try:
            while mine := self._next(blocks):
                try:
                    self._fetch(mine)
                    self._settle(mine, came=True)
                except BaseException:
                    for block in mine:
                        block.stream.drop(block)
                    self._settle(mine, came=False)
                    raise
            yield
        finally:
            self._release(blocks)

    def _claim(self, blocks: Sequence[Block]) -> None:
        """Wait until the blocks fit beside those that others hold, and hold them."""
        with self._changed:
            while _size(set(blocks) | self._holders.keys()) > self._limit_bytes:
                if self._threads.keys() <= {threading.get_ident()}:
                    raise DataError(
                        f"{self._name}: the rows that are wanted at once lie in blocks of {_size(blocks)} bytes, the "
                        f"cache has {self._limit_bytes} for them; raise cache_bytes, or choose order 'sequential'"
                    )
                self._changed.wait()
            self._holders.update(blocks)
            self._threads[threading.get_ident()] += 1

    def _next(self, blocks: Sequence[Block]) -> list[Block]:
        """Blocks that this thread is to fetch, with room for them; none when all are here."""
        with self._changed:
            self._changed.wait_for(lambda: self._coming.isdisjoint(blocks))
            mine = [block for block in blocks if block not in self._here]
            self._make_room(_size(mine) + _size(self._coming))
            self._coming.update(mine)
            return mine

    def _make_room(self, needed_bytes: int) -> None:
        if self._here_bytes + needed_bytes <= self._limit_bytes:
            return
        for block in [one for one in self._here if one not in self._holders]:
            del self._here[block]
            self._here_bytes -= block.size_bytes
            block.stream.drop(block)
            if self._here_bytes + needed_bytes <= self._limit_bytes:
                return

    def _fetch(self, blocks: Sequence[Block]) -> None:
        fetching = [self._pool.submit(block.stream.bring, block) for block in blocks]
        wait(fetching)  # for all of them, also when one fails: none must write later
        for one in fetching:
            one.result()

    def _settle(self, blocks: Sequence[Block], *, came: bool) -> None:
        with self._changed:
            self._coming.difference_update(blocks)
            if came:
                self._here.update(dict.fromkeys(blocks))
                self._here_bytes += _size(blocks)
            self._changed.notify_all()

    def _release(self, blocks: Sequence[Block]) -> None:
        with self._changed:
            self._holders.subtract(blocks)
            self._threads.subtract([threading.get_ident()])
            self._holders, self._threads = +self._holders, +self._threads  # without those that are at 0
            for block in blocks:
                if block in self._here:
                    self._here.move_to_end(block)
            self._changed.notify_all()


class Stream:
    """The bytes of a field, of which those of the blocks that are held are here; stands where a ``Guard`` does.

    Attributes:
        budget: Of all streamed fields of the shard.
        content: The bytes of all files, one after the other, shape ``(bytes,)``: those of blocks that are not held are
            anything.
        positions: Where each file starts in ``content`` (bytes).
    """

    is_complete: Final = False  # there is always something to do before rows are used
    is_streamed: Final = True

    def __init__(
        self,
        files: Sequence[File],
        *,
        block_bytes: int,
        folder: Path,
        fetch: Callable[[File, Block], bytes],
        budget: Budget,
    ) -> None:
        """Nothing is fetched yet.

        Args:
            files: Of the field, in order.
            block_bytes: Bytes under one checksum.
            folder: Where the blocks are kept.
            fetch: Gives a block's bytes, verified.
            budget: Shared by all fields of the shard.

        Raises:
            DataError: The folder's file system cannot give space back.
        """
        self._files = files
        self._block_bytes = block_bytes
        self._folder = folder
        self._fetch, self.budget = fetch, budget
        self.paths = tuple(Path(one.name) for one in files)
        starts = np.concatenate([[0], np.cumsum([one.size_bytes for one in files], dtype=np.int64)])
        self.positions: Final = tuple(starts[:-1].tolist())
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(int(starts[-1]))
            self._descriptor = os.dup(file.fileno())
            weakref.finalize(self, os.close, self._descriptor)
            self._punch(0, 1)  # now, not when the cache is full
            self.content: Final = map_files([file], sizes=[int(starts[-1])], element_bytes=1).flat

    def touch(self, numbers: NDArray[np.int64], *, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> None:
        """Fetch the blocks under byte ranges of files, shape ``(R,)`` each; they may go again at once.

        Raises:
            DataError: One does not come as it was written, or they are too many at once.
        """
        with self.budget.holding(self.blocks(numbers, starts=starts, stops=stops)):
            pass

    def touch_all(self) -> None:
        """Fetch every block once, which verifies it.

        Raises:
            DataError: One is not what was written.
        """
        for number, file in enumerate(self._files):
            places = np.arange(0, file.size_bytes, self._block_bytes)
            for some in np.array_split(places, max(1, len(places) // VERIFIED_AT_ONCE)):
                self.touch(np.full(len(some), number), starts=some, stops=some + 1)

    def check_unchanged(self) -> None:
        """Pass: a block that comes later is compared with the index that was read at first."""

    def bring(self, block: Block) -> None:
        """Fetch a block.

        Raises:
            DataError: It does not come as it was written, or the disk is full.
        """
        rest = memoryview(self._fetch(self._files[block.file], block))
        position = self.positions[block.file] + block.start
        try:
            while rest:
                written = os.pwrite(self._descriptor, rest, position)
                rest, position = rest[written:], position + written
        except OSError as error:
            raise DataError(
                f"{self._folder} cannot hold another block: {error.strerror}; make room, or lower cache_bytes"
            ) from error

    def drop(self, block: Block) -> None:
        """Give the place of a block on disk back."""
        self._punch(self.positions[block.file] + block.start, block.size_bytes)

    def blocks(self, numbers: NDArray[np.int64], *, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> list[Block]:
        """The blocks under some byte ranges, each once."""
        some = stops > starts
        wanted: set[tuple[int, int]] = set()
        first, last = starts[some] // self._block_bytes, (stops[some] - 1) // self._block_bytes
        for number, start, stop in zip(numbers[some].tolist(), first.tolist(), last.tolist(), strict=True):
            wanted.update((number, place) for place in range(start, stop + 1))
        return [self._block(number, place) for number, place in sorted(wanted)]

    def _block(self, file: int, place: int) -> Block:
        start = place * self._block_bytes
        size = min(self._block_bytes, self._files[file].size_bytes - start)
        return Block(self, file, start, size)

    def _punch(self, start: int, size_bytes: int) -> None:
        number = _fallocate(self._descriptor, start, size_bytes)
        if number:
            raise DataError(
                f"the file system of the cache gives no space back ({os.strerror(number)}), so a shard that is larger "
                "than the cache cannot be read through it; raise cache_bytes, or put the cache on ext4, XFS or tmpfs"
            )


def _fallocate(descriptor: int, start: int, size_bytes: int) -> int:
    """Punch a hole; the system's error number, 0 for none."""
    if sys.platform != "linux":
        return errno.EOPNOTSUPP
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    libc.fallocate.argtypes, libc.fallocate.restype = arguments, ctypes.c_int
    done = libc.fallocate(descriptor, KEEP_SIZE | PUNCH_HOLE, start, size_bytes)
    return ctypes.get_errno() if done else 0


def _size(blocks: Iterable[Block]) -> int:
    return sum(block.size_bytes for block in blocks)
