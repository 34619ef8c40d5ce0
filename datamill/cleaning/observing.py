"""What cleaning knows of every sample: a few numbers each, read from features into files."""

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
from datamill.runs import RUN_ROWS, SortedRuns
from datamill.samples import HASH_BYTES

NUM_PIXELS = OBSERVED_SIZE**2
SKETCH_RANGE = 16_320  # largest number of a sketch

CONTENT = np.dtype([("first", np.uint64), ("second", np.uint64), ("row", np.int64), ("label", np.int32)])
"""Of each sample: its content hash in halves, its row, and the number of its label."""
SEEN = np.dtype([("row", np.int64), ("print", np.uint64), ("sketch", np.uint64)])
"""Of each sample: its row, its fingerprint, and the four numbers of its sketch in one; 0 for tables."""


@dataclass(frozen=True)
class Thumbnails:
    """Grey pixels of samples in a file, ``NUM_PIXELS`` bytes each."""

    path: Path

    def read(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        """Those of some samples, shape ``(len(rows), NUM_PIXELS)``."""
        return np.frombuffer(_records(self.path, rows, size=NUM_PIXELS), np.uint8).reshape(-1, NUM_PIXELS)


@dataclass(frozen=True)
class Observed:
    """Facts about samples, in their order.

    Attributes:
        path: A file of one ``SEEN`` per sample.
        constant: Rows all of whose pixels are equal, ascending; none for tables.
        thumbnails: Where they are; ``None`` for tables.
    """

    path: Path
    constant: NDArray[np.int64]
    thumbnails: Thumbnails | None

    def read(self) -> Iterator[NDArray[Any]]:
        """The samples, ``RUN_ROWS`` at a time."""
        with self.path.open("rb") as file:
            while len(block := np.fromfile(file, SEEN, count=RUN_ROWS)):
                yield block


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
        return digits(np.frombuffer(_records(self._path, rows, size=HASH_BYTES), np.uint64).reshape(-1, 2))


def identify(
    folder: Path, *, samples: Path, decisions: Path, classes: Sequence[str], scratch: Path
) -> tuple[SampleIds, SortedRuns]:
    """Ids and contents (``CONTENT``) of the samples that survived ``decisions``.

    Args:
        folder: Features folder.
        samples: Parts folder.
        decisions: Ledger.
        classes: Class names by number.
        scratch: Folder for both.
    """
    ids, contents = SampleIds(scratch / "ids"), SortedRuns(scratch / "contents", CONTENT, key="first")
    names = pa.array(classes, pa.string())
    hashes = _survivors(folder, decisions=decisions, columns=["sample_id", "content_hash"])
    labels = _survivors(samples, decisions=decisions, columns=["label"])
    start = 0
    for table, beside in zip(hashes, labels, strict=True):
        records = np.empty(table.num_rows, CONTENT)
        records["first"], records["second"] = halves(table["content_hash"]).T
        records["row"] = start + np.arange(table.num_rows)
        records["label"] = pc.index_in(beside["label"], value_set=names).to_numpy()
        contents.add(records)
        ids.add(halves(table["sample_id"]))
        start += table.num_rows
    return ids, contents


def observe(folder: Path, *, decisions: Path, scratch: Path) -> Observed:
    """Facts about the samples that survived ``decisions``.

    Args:
        folder: Features folder.
        decisions: Ledger.
        scratch: Folder for the files.
    """
    has_pictures = features.read_manifest(folder).dataset.modality == "image"
    columns = ["fingerprint", *(["pixel_std", "thumbnail"] if has_pictures else [])]
    constant = [np.empty(0, np.int64)]
    path, thumbnails, start = scratch / "seen", Thumbnails(scratch / "thumbnails"), 0
    with path.open("wb") as file, thumbnails.path.open("wb") as pictures:
        for table in _survivors(folder, decisions=decisions, columns=columns, rows=parts.READ_ROWS):
            seen = np.zeros(table.num_rows, SEEN)
            seen["row"] = start + np.arange(table.num_rows)
            seen["print"] = table["fingerprint"].to_numpy()
            if has_pictures:
                constant.append(start + np.flatnonzero(table["pixel_std"].to_numpy() == 0))
                pixels = _pixels(table["thumbnail"].combine_chunks())
                seen["sketch"] = sketch(pixels).view(np.uint64).ravel()
                pictures.write(pixels.tobytes())
            seen.tofile(file)
            start += table.num_rows
    return Observed(path=path, constant=np.concatenate(constant), thumbnails=thumbnails if has_pictures else None)


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


def _survivors(folder: Path, *, decisions: Path, columns: Sequence[str], rows: int = RUN_ROWS) -> Iterator[pa.Table]:
    """Some columns of the samples that survived, ``rows`` at a time."""
    decided = reading.iter_decided([folder], decisions=decisions, columns=columns)
    return parts.regrouped((table for table, _ in decided), rows=rows)


def _records(path: Path, rows: NDArray[Any], *, size: int) -> bytes:
    """Some records of a file of records of ``size`` bytes; the file is never mapped, so it takes no memory."""
    with path.open("rb") as file:
        return b"".join([os.pread(file.fileno(), size, row * size) for row in rows.tolist()])


def _pixels(column: pa.FixedSizeBinaryArray) -> NDArray[np.uint8]:
    """Thumbnails as an array, shape ``(N, NUM_PIXELS)``."""
    pixels = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, NUM_PIXELS)
    return pixels[column.offset : column.offset + len(column)]
