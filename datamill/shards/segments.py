"""Writes one segment of one field: its files, and the checksums of their blocks."""

import contextlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamill import files
from datamill.shards.entries import OFFSET, Field, File, Segment, file_name
from datamill.shards.integrity import probe


class SegmentWriter:
    """The files of one segment."""

    def __init__(self, folder: Path, name: str, *, key: str, field: Field, block_bytes: int) -> None:
        """Start the segment ``key`` of the field ``name``."""
        self.num_rows = self.num_elements = 0
        self._key = key
        self._element_bytes = field.element_bytes
        self._data = Stream(folder / file_name(name, key), block_bytes=block_bytes)
        self._offsets: Stream | None = None
        if field.kind != "array":
            self._offsets = Stream(folder / file_name(name, key, offsets=True), block_bytes=block_bytes)
            self._offsets.write(np.zeros(1, OFFSET))

    def write(self, data: Any, *, lengths: NDArray[np.int64] | None) -> None:
        """Append elements, contiguous in memory; ``lengths`` says how they divide into rows, ``None`` one by one."""
        count = len(data)
        self._data.write(data)
        if self._offsets is not None and lengths is not None:
            self._offsets.write((np.cumsum(lengths) + self.num_elements).astype(OFFSET))
            self.num_rows += len(lengths)
        else:
            self.num_rows += count
        self.num_elements += count

    def close(self) -> Segment:
        """Finish the files; what the index says of them."""
        return Segment(
            key=self._key,
            num_rows=self.num_rows,
            num_elements=self.num_elements,
            data=self._data.close(),
            offsets=self._offsets.close() if self._offsets is not None else None,
        )

    def abandon(self) -> None:
        """Close the files as they are."""
        self._data.abandon()
        if self._offsets is not None:
            self._offsets.abandon()


class Stream:
    """One flat file and the checksums of its blocks, computed while it is written."""

    def __init__(self, path: Path, *, block_bytes: int) -> None:
        """Start the file ``path``, which must not exist."""
        self._path = path
        self._block_bytes = block_bytes
        self._file = path.open("x+b")  # never over a file: another shard may share its bytes
        self._size = 0
        self._crc = 0
        self._blocks: list[int] = []

    def write(self, data: Any) -> None:
        """Append bytes, or an array that is contiguous, without copying them."""
        view = memoryview(data)
        if not view.nbytes:
            return
        rest = view.cast("B")
        self._file.write(rest)
        while rest:
            piece = rest[: self._block_bytes - self._size % self._block_bytes]
            self._crc = zlib.crc32(piece, self._crc)
            self._size += len(piece)
            rest = rest[len(piece) :]
            if self._size % self._block_bytes == 0:
                self._end_block()

    def close(self) -> File:
        """Finish the file; what the index says of it."""
        if self._size % self._block_bytes:
            self._end_block()
        self._file.flush()
        entry = File(
            name=self._path.name,
            size_bytes=self._size,
            crc32=tuple(self._blocks),
            probe=probe(self._file, size_bytes=self._size),
        )
        self._file.close()
        files.flush_soon(self._path)
        return entry

    def abandon(self) -> None:
        """Close the file as it is."""
        with contextlib.suppress(OSError):  # the disk is full: what is missing does not matter any more
            self._file.close()

    def _end_block(self) -> None:
        self._blocks.append(self._crc)
        self._crc = 0
