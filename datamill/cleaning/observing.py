"""What cleaning knows of every sample: a few numbers each, read from features; pixels stay in a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill import features, reading
from datamill.hashes import digits, halves
from datamill.modalities.image import OBSERVED_SIZE

NUM_PIXELS = OBSERVED_SIZE**2
SKETCH_RANGE = 16_320  # largest number of a sketch


@dataclass(frozen=True)
class Thumbnails:
    """Grey pixels of samples in a file, ``NUM_PIXELS`` bytes each."""

    path: Path

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Those of the samples from one row up to another, shape ``(stop - start, NUM_PIXELS)``."""
        count, offset = (stop - start) * NUM_PIXELS, start * NUM_PIXELS
        return np.fromfile(self.path, np.uint8, count=count, offset=offset).reshape(-1, NUM_PIXELS)


@dataclass(frozen=True)
class Observed:
    """Facts about samples, in their order.

    Attributes:
        fingerprints: Shape ``(N,)``.
        is_constant: Whether all pixels are equal, shape ``(N,)``; false for tables.
        sketches: Of the thumbnails, shape ``(N, 4)``; empty for tables.
        thumbnails: Where they are; ``None`` for tables.
    """

    fingerprints: NDArray[np.uint64]
    is_constant: NDArray[np.bool_]
    sketches: NDArray[np.int16]
    thumbnails: Thumbnails | None


class Ids(Protocol):
    """Ids of samples."""

    def digits(self, rows: NDArray[Any]) -> pa.Array:
        """Those of some rows, as strings."""


@final
class SampleIds:
    """Ids of the samples that survived a ledger; read when the first is asked for, 16 bytes each from then on."""

    def __init__(self, folder: Path, *, decisions: Path, num_rows: int) -> None:
        """Remember where they are: in a features folder."""
        self._read = partial(read_hashes, folder, decisions=decisions, column="sample_id", num_rows=num_rows)

    def digits(self, rows: NDArray[Any] | slice) -> pa.Array:
        """Ids of some rows, as strings."""
        return digits(self._halves[rows])

    @cached_property
    def _halves(self) -> NDArray[np.uint64]:
        return self._read()


def read_hashes(folder: Path, *, decisions: Path, column: str, num_rows: int) -> NDArray[np.uint64]:
    """Ids or content hashes of the samples that survived ``decisions``, shape ``(num_rows, 2)``."""
    hashes, start = np.empty((num_rows, 2), np.uint64), 0
    for table in _survivors(folder, decisions=decisions, columns=[column]):
        hashes[start : start + table.num_rows] = halves(table[column])
        start += table.num_rows
    return hashes


def read_labels(samples: Path, *, decisions: Path, classes: Sequence[str], num_rows: int) -> NDArray[np.int32]:
    """Number of the class of each sample that survived ``decisions``, shape ``(num_rows,)``."""
    labels, start = np.empty(num_rows, np.int32), 0
    names = pa.array(classes, pa.string())
    for table in _survivors(samples, decisions=decisions, columns=["label"]):
        labels[start : start + table.num_rows] = pc.index_in(table["label"], value_set=names).to_numpy()
        start += table.num_rows
    return labels


def observe(folder: Path, *, decisions: Path, scratch: Path, num_rows: int) -> Observed:
    """Facts about the samples that survived ``decisions``.

    Args:
        folder: Features folder.
        decisions: Ledger.
        scratch: Folder for the thumbnails.
        num_rows: How many samples survived.
    """
    has_pictures = features.read_manifest(folder).dataset.modality == "image"
    columns = ["fingerprint", *(["pixel_std", "thumbnail"] if has_pictures else [])]
    prints, is_constant = np.empty(num_rows, np.uint64), np.zeros(num_rows, bool)
    sketches = np.empty((num_rows if has_pictures else 0, 4), np.int16)
    path, start = scratch / "thumbnails", 0
    with path.open("wb") as file:
        for table in _survivors(folder, decisions=decisions, columns=columns):
            place = slice(start, start + table.num_rows)
            prints[place] = table["fingerprint"].to_numpy()
            if has_pictures:
                is_constant[place] = table["pixel_std"].to_numpy() == 0
                pixels = _pixels(table["thumbnail"].combine_chunks())
                sketches[place] = sketch(pixels)
                file.write(pixels.tobytes())
            start += table.num_rows
    thumbnails = Thumbnails(path) if has_pictures else None
    return Observed(fingerprints=prints, is_constant=is_constant, sketches=sketches, thumbnails=thumbnails)


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


def _survivors(folder: Path, *, decisions: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    return (table for table, _ in reading.iter_decided([folder], decisions=decisions, columns=columns))


def _pixels(column: pa.FixedSizeBinaryArray) -> NDArray[np.uint8]:
    """Thumbnails as an array, shape ``(N, NUM_PIXELS)``."""
    pixels = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, NUM_PIXELS)
    return pixels[column.offset : column.offset + len(column)]
