"""What cleaning knows of every sample: a few numbers each, read from features into files, in one pass."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill import features, parts, reading
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
        ("sketch", np.uint64),  # the four numbers of its sketch in one; 0 for tables
    ]
)
"""What is known of each sample."""
CHUNK_BYTES = 2**20  # of a file that are read at once where many records are wanted
CHUNK_WORTH = 64  # wanted records of a chunk from which on it is faster to read all of it


@dataclass(frozen=True)
class Thumbnails:
    """Grey pixels of samples in a file, ``NUM_PIXELS`` bytes each."""

    path: Path

    def read(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        """Those of some samples, shape ``(len(rows), NUM_PIXELS)``."""
        return records_at(self.path, rows, np.dtype((np.void, NUM_PIXELS))).view(np.uint8).reshape(-1, NUM_PIXELS)


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
            hashes.tofile(file)

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
    looks = ["fingerprint", *(["pixel_std", "thumbnail"] if has_pictures else [])] if is_looking else []
    found = _survivors(folder, decisions=decisions, columns=["sample_id", "content_hash", *looks])
    labels = _survivors(samples, decisions=decisions, columns=["label"])
    ids, contents = SampleIds(scratch / "ids"), SortedRuns(scratch / "contents", CONTENT, key="first")
    constant, names = [np.empty(0, np.int64)], pa.array(classes, pa.string())
    thumbnails, start = Thumbnails(scratch / "thumbnails"), 0
    with thumbnails.path.open("wb") as pictures:
        for table, beside in zip(found, labels, strict=True):
            records = np.zeros(table.num_rows, CONTENT)
            records["first"], records["second"] = halves(table["content_hash"]).T
            records["row"] = start + np.arange(table.num_rows)
            records["label"] = pc.index_in(beside["label"], value_set=names).to_numpy()
            if is_looking:
                records["print"] = table["fingerprint"].to_numpy()
            if has_pictures:
                constant.append(start + np.flatnonzero(table["pixel_std"].to_numpy() == 0))
                pixels = _pixels(table["thumbnail"].combine_chunks())
                records["sketch"] = sketch(pixels).view(np.uint64).ravel()
                pixels.tofile(pictures)
            contents.add(records)
            ids.add(halves(table["sample_id"]))
            start += table.num_rows
    return Observed(ids, contents, constant=np.concatenate(constant), thumbnails=thumbnails if has_pictures else None)


def sketch(pixels: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Four numbers per thumbnail that differ little where the thumbnails do, shape ``(N, 4)``.

    They are the mean of all pixels, and of the left, the upper, and two opposite quarters less that of the others, as
    parts of ``SKETCH_RANGE``: of thumbnails whose mean difference is ``d`` (0 to 1), none differs by more than
    ``d * SKETCH_RANGE + 1``.

    Args:
        pixels: Grey, shape ``(N, NUM_PIXELS)``.
    """
    half = OBSERVED_SIZE // 2
    (a, b), (c, d) = pixels.reshape(-1, 2, half, 2, half).sum(axis=(2, 4), dtype=np.int32).transpose(1, 2, 0)
    sums = np.stack([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], axis=1)
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


def _survivors(folder: Path, *, decisions: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of the samples that survived, some at a time."""
    decided = reading.iter_decided([folder], decisions=decisions, columns=columns)
    return parts.regrouped((table for table, _ in decided), rows=parts.READ_ROWS)


def _pixels(column: pa.FixedSizeBinaryArray) -> NDArray[np.uint8]:
    """Thumbnails as an array, shape ``(N, NUM_PIXELS)``."""
    pixels = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, NUM_PIXELS)
    return pixels[column.offset : column.offset + len(column)]
