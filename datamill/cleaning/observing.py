"""What cleaning knows of every sample: a few numbers each, read from features into files, in one pass."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datamill import arrays, features, ledger, parts, reading
from datamill.hashes import digits, halves
from datamill.modalities.image import OBSERVED_SIZE
from datamill.runs import SortedRuns
from datamill.samples import HASH_BYTES

NUM_PIXELS = OBSERVED_SIZE**2
SKETCH_RANGE = 16_320  # largest number of a sketch

CONTENT = np.dtype(
    [
        ("first", np.uint64),  # of the two halves of its content hash
        ("second", np.uint64),
        ("row", np.int64),
        ("label", np.int32),  # its number
        ("print", np.uint64),  # its fingerprint
    ]
)
"""What is known of each sample."""
ROWS = 4 * parts.READ_ROWS  # of light columns looked at together; bounds memory, not results
MANY = 8  # thumbnails of one sample in so many, from which on it is cheaper to put all of them into a file
_HALF = np.repeat([1, -1], OBSERVED_SIZE // 2)
SIGNS = np.stack([np.outer(*one).ravel() for one in itertools.product([abs(_HALF), _HALF], repeat=2)], axis=1).astype(
    np.float32
)
"""Sides of a thumbnail on which the pixels count, in each number of its sketch."""
CHUNK_BYTES = 2**20  # of a file that are read at once where many records are wanted
CHUNK_WORTH = 64  # wanted records of a chunk from which on it is faster to read all of it


@final
class Thumbnails:
    """Grey pixels of samples, ``NUM_PIXELS`` bytes each, and what is told from them."""

    def __init__(self, folder: Path, *, num_samples: int, lost: NDArray[np.int64], scratch: Path) -> None:
        """Read them from features.

        Args:
            folder: Features folder.
            num_samples: Samples that survived (count); rows count these alone.
            lost: Places in the features of samples that did not survive, ascending.
            scratch: Folder for a file that holds all of them where many are wanted.
        """
        self._folder = folder
        self._num_samples = num_samples
        self._shifts = lost - np.arange(len(lost))  # as many that did not survive came before each of these rows
        self._flat = scratch / "thumbnails"
        self._is_flat = False

    def sketches(self, rows: NDArray[np.int64] | None) -> NDArray[np.uint64]:
        """The four numbers of each sketch in one, shape ``(num_samples,)``; only those of ``rows``, or all, are filled.

        Args:
            rows: Which are wanted, ascending; ``None`` for all.
        """
        found = np.zeros(self._num_samples, np.uint64)
        if rows is not None and len(rows) * MANY < self._num_samples:
            for some, pixels in self._pictures(rows):
                found[some] = sketch(pixels).view(np.uint64).ravel()
            return found
        with self._flat.open("wb") as file:
            for some, pixels in self._pictures(np.arange(self._num_samples)):
                found[some] = sketch(pixels).view(np.uint64).ravel()
                arrays.append(file, pixels)
        self._is_flat = True
        return found

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Those of some samples, ascending, shape ``(len(rows), NUM_PIXELS)``."""
        if self._is_flat:
            return records_at(self._flat, rows, np.dtype((np.void, NUM_PIXELS))).view(np.uint8).reshape(-1, NUM_PIXELS)
        found, stop = np.empty((len(rows), NUM_PIXELS), np.uint8), 0
        for some, pixels in self._pictures(rows):
            start, stop = stop, stop + len(some)
            found[start:stop] = pixels
        return found

    def _pictures(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
        """Some rows at a time and their pixels; only row groups with one of them are read."""
        places, start = rows + np.searchsorted(self._shifts, rows, side="right"), 0
        for part in features.read_manifest(self._folder).parts:
            with pq.ParquetFile(self._folder / part.name, pre_buffer=False) as file:
                for group in range(file.num_row_groups):
                    stop = start + file.metadata.row_group(group).num_rows
                    low, high = np.searchsorted(places, [start, stop])
                    if high > low:
                        column = file.read_row_group(group, columns=["thumbnail"], use_threads=False)["thumbnail"]
                        yield rows[low:high], _pixels(column.combine_chunks())[places[low:high] - start]
                    start = stop
            pa.default_memory_pool().release_unused()


@dataclass(frozen=True)
class Observed:
    """Facts about samples.

    Attributes:
        ids: Id of each.
        contents: A ``CONTENT`` of each, to be had in the order of contents.
        constant: Rows all of whose pixels are equal, ascending; none for tables.
        thumbnails: Where they are; ``None`` for tables, and where nobody looks.
    """

    ids: "SampleIds"
    contents: SortedRuns
    constant: NDArray[np.int64]
    thumbnails: Thumbnails | None


class Ids(Protocol):
    """Ids of samples."""

    def digits(self, rows: NDArray[Any]) -> pa.Array:
        """Those of some rows, as strings."""


@final
class SampleIds:
    """Ids of samples in a file, 16 bytes each."""

    def __init__(self, path: Path) -> None:
        """Start an empty file."""
        self._path = path
        path.write_bytes(b"")

    def add(self, hashes: NDArray[np.uint64]) -> None:
        """Append ids, as ``halves`` gives them."""
        with self._path.open("ab") as file:
            arrays.append(file, hashes)

    def between(self, start: int, stop: int) -> pa.Array:
        """Ids of the rows from ``start`` up to ``stop``, as strings."""
        count, offset = 2 * (stop - start), start * HASH_BYTES
        return digits(np.fromfile(self._path, np.uint64, count=count, offset=offset).reshape(-1, 2))

    def digits(self, rows: NDArray[Any]) -> pa.Array:
        """Ids of some rows, as strings."""
        return digits(records_at(self._path, rows, np.dtype((np.void, HASH_BYTES))).view(np.uint64).reshape(-1, 2))


def observe(
    folder: Path, *, samples: Path, decisions: Path, classes: Sequence[str], is_looking: bool, scratch: Path
) -> Observed:
    """Facts about the samples that survived ``decisions``.

    Args:
        folder: Features folder.
        samples: Parts folder.
        decisions: Ledger.
        classes: Class names by number.
        is_looking: Whether fingerprints and pictures are wanted too.
        scratch: Folder for the files.
    """
    has_pictures = is_looking and features.read_manifest(folder).dataset.modality == "image"
    columns = ["sample_id", "content_hash", *(["fingerprint"] if is_looking else [])]
    found = reading.iter_decided(
        [folder],
        decisions=decisions,
        columns=[*columns, *(["pixel_std"] if has_pictures else [])],
        decided=["fate"],
        where=lambda table: pa.repeat(True, table.num_rows),
    )
    labels = parts.iter_tables(samples, columns=["label"], rows=ROWS)
    ids, contents = SampleIds(scratch / "ids"), SortedRuns(scratch / "contents", CONTENT, key="first")
    constant, lost, names = [np.empty(0, np.int64)], [np.empty(0, np.int64)], pa.array(classes, pa.string())
    start = num_lost = 0
    for (table, verdicts), beside in zip(together(found), parts.regrouped(labels, rows=ROWS), strict=True):
        is_surviving = ledger.is_surviving(verdicts)
        lost.append(start + num_lost + np.flatnonzero(~is_surviving.to_numpy()))
        num_lost += len(lost[-1])
        table, beside = ledger.chosen(table, is_surviving), ledger.chosen(beside, is_surviving)
        records = np.zeros(table.num_rows, CONTENT)
        records["first"], records["second"] = halves(table["content_hash"]).T
        records["row"] = start + np.arange(table.num_rows)
        records["label"] = pc.index_in(beside["label"], value_set=names).to_numpy()
        if is_looking:
            records["print"] = table["fingerprint"].to_numpy()
        if has_pictures:
            constant.append(start + np.flatnonzero(table["pixel_std"].to_numpy() == 0))
        contents.add(records)
        ids.add(halves(table["sample_id"]))
        start += table.num_rows
    thumbnails = Thumbnails(folder, num_samples=start, lost=np.concatenate(lost), scratch=scratch)
    return Observed(ids, contents, constant=np.concatenate(constant), thumbnails=thumbnails if has_pictures else None)


def together(pairs: Iterable[tuple[pa.Table, pa.Table]]) -> Iterator[tuple[pa.Table, pa.Table]]:
    """The same rows of both, exactly ``ROWS`` at a time; the last tables may have fewer."""
    left, right = itertools.tee(pairs)
    return zip(
        parts.regrouped((table for table, _ in left), rows=ROWS),
        parts.regrouped((table for _, table in right), rows=ROWS),
        strict=True,
    )


def sketch(pixels: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Four numbers per thumbnail that differ little where the thumbnails do, shape ``(N, 4)``.

    They are the mean of all pixels, and of the left, the upper, and two opposite quarters less that of the others, as
    parts of ``SKETCH_RANGE``: of thumbnails whose mean difference is ``d`` (0 to 1), none differs by more than
    ``d * SKETCH_RANGE + 1``.

    Args:
        pixels: Grey, shape ``(N, NUM_PIXELS)``.
    """
    sums = (pixels.astype(np.float32) @ SIGNS).astype(np.float64)  # whole numbers that float32 holds exactly
    return np.asarray(np.floor(sums * (SKETCH_RANGE / (255 * NUM_PIXELS))), np.int16)


def records_at(path: Path, rows: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Some records of a file of records, shape ``(N,)``; the file is never mapped, so it takes no memory."""
    per_chunk = CHUNK_BYTES // dtype.itemsize
    order = np.argsort(rows, kind="stable")
    chunks, starts = np.unique(rows[order] // per_chunk, return_index=True)
    found = np.empty(len(rows), dtype)
    if not len(rows):
        return found
    with path.open("rb", buffering=0) as file:
        for chunk, places in zip(chunks.tolist(), np.split(order, starts[1:]), strict=True):
            if len(places) >= CHUNK_WORTH:
                file.seek(chunk * per_chunk * dtype.itemsize)
                found[places] = np.fromfile(file, dtype, count=per_chunk)[rows[places] - chunk * per_chunk]
            else:
                size = dtype.itemsize
                pieces = [os.pread(file.fileno(), size, row * size) for row in rows[places].tolist()]
                found[places] = np.frombuffer(b"".join(pieces), dtype)
    return found


def _pixels(column: pa.FixedSizeBinaryArray) -> NDArray[np.uint8]:
    """Thumbnails as an array, shape ``(N, NUM_PIXELS)``."""
    pixels = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, NUM_PIXELS)
    return pixels[column.offset : column.offset + len(column)]
