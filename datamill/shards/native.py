"""The native shard: flat little-endian files that are memory-mapped, and an index that is written last.

The byte layout is specified in ``README.md`` beside this file.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from datamill import files
from datamill.errors import DataError
from datamill.samples import HASH_BYTES, Dataset

INDEX = "index.json"
VERSION = 1
BLOCK_BYTES = 4 * 2**20  # bytes under one checksum: small enough to say where damage is, large enough to cost nothing


class ArrayFile(BaseModel):
    """One flat file: an array in C order without a header."""

    model_config = ConfigDict(frozen=True)

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    crc32: tuple[int, ...]
    """CRC-32 of each block of ``block_bytes`` bytes; the last block may be shorter."""


class Index(BaseModel):
    """What a shard's folder holds; a folder without it is not finished."""

    model_config = ConfigDict(frozen=True)

    version: int = VERSION
    split: str
    num_rows: int
    dataset: Dataset
    block_bytes: int = BLOCK_BYTES
    arrays: dict[str, ArrayFile]


@dataclass(frozen=True)
class Shard:
    """One split, memory-mapped: opening costs nothing, rows are read when they are indexed.

    Attributes:
        split: Name of the split.
        dataset: What holds for every sample.
        x: Samples, shape ``(N, *shape)``: images uint8 (H, W, C), tables float32 (D,).
        label: Class of each sample as a number, an index into ``classes``, int32, shape ``(N,)``.
        weight: Weight of each sample's loss, float32, shape ``(N,)``.
        draw: Relative probability to be drawn in an epoch, float32, shape ``(N,)``.
        sample_id: Identity of each sample, uint8, shape ``(N, 16)``.
    """

    split: str
    dataset: Dataset
    x: NDArray[Any]
    label: NDArray[np.int32]
    weight: NDArray[np.float32]
    draw: NDArray[np.float32]
    sample_id: NDArray[np.uint8]

    @property
    def num_rows(self) -> int:
        """Number of samples."""
        return len(self.label)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.x.shape[1:]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their numbers."""
        return self.dataset.classes

    def ids(self, rows: Sequence[int] | NDArray[np.integer[Any]] | slice = slice(None)) -> list[str]:
        """Identities of some rows, 32 hexadecimal digits each."""
        return [row.tobytes().hex() for row in self.sample_id[rows]]


class ShardWriter:
    """Streams rows into a shard; leaving the block without an error writes the index."""

    def __init__(self, folder: Path, *, split: str, dataset: Dataset, shape: tuple[int, ...], dtype: str) -> None:
        """Start an empty shard of samples with this shape and dtype; ``folder`` must not hold anything yet."""
        self._folder = folder
        self._split = split
        self._dataset = dataset
        folder.mkdir(parents=True, exist_ok=True)
        self._streams = {
            name: _Stream(folder / f"{name}.bin", dtype=kind, shape=row)
            for name, (kind, row) in _layout(shape, dtype=dtype).items()
        }

    def write(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Append rows.

        Args:
            arrays: ``x``, ``label``, ``weight``, ``draw`` and ``sample_id`` with equally many rows.

        Raises:
            DataError: A label's number is not that of a class.
        """
        assert arrays.keys() == self._streams.keys(), f"arrays {sorted(arrays)}, wanted {sorted(self._streams)}"
        assert len({len(array) for array in arrays.values()}) == 1
        label = arrays["label"]
        if label.size and not 0 <= label.min() <= label.max() < len(self._dataset.classes):
            raise DataError(
                f"labels {label.min()} to {label.max()} for {len(self._dataset.classes)} classes; run balance again"
            )
        for name, stream in self._streams.items():
            stream.write(arrays[name])

    def __enter__(self) -> Self:
        """Start writing."""
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close the files and write the index, unless an error is on its way."""
        arrays = {name: stream.close() for name, stream in self._streams.items()}
        if error is None:
            num_rows = arrays["label"].shape[0]
            index = Index(split=self._split, num_rows=num_rows, dataset=self._dataset, arrays=arrays)
            files.write_json(self._folder / INDEX, index.model_dump(mode="json"))


def open_shard(folder: Path, *, verify: bool = False) -> Shard:
    """A shard, memory-mapped.

    Args:
        folder: Folder of one split.
        verify: Compare every block with its checksum, not only the sizes of the files with the index.

    Raises:
        DataError: A file is missing, truncated or altered, or the format has another version.
    """
    index = read_index(folder)
    for entry in index.arrays.values():
        _check_size(folder / entry.name, entry=entry)
        if verify:
            _check_blocks(folder / entry.name, entry=entry, block_bytes=index.block_bytes)
    arrays = {name: _map(folder / entry.name, entry=entry) for name, entry in index.arrays.items()}
    return Shard(split=index.split, dataset=index.dataset, **arrays)


def read_index(folder: Path) -> Index:
    """The index of a shard.

    Raises:
        DataError: It is missing, damaged, of another version, or does not fit the layout of the format.
    """
    path = folder / INDEX
    try:
        index = Index.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: the shard was not finished; run shard again") from error
    except ValidationError as error:
        raise DataError(f"{path} is damaged ({error.error_count()} faults); run shard again") from error
    if index.version != VERSION:
        raise DataError(f"{path} has version {index.version}, this datamill reads {VERSION}; run shard again")
    x = index.arrays.get("x")
    wanted = _layout(x.shape[1:], dtype=x.dtype) if x is not None else {}
    found = {name: (entry.dtype, entry.shape[1:]) for name, entry in index.arrays.items()}
    if found != wanted or any(entry.shape[0] != index.num_rows for entry in index.arrays.values()):
        raise DataError(f"{path} is damaged: its arrays {found} do not make {index.num_rows} samples; run shard again")
    return index


class _Stream:
    """One flat file and the checksums of its blocks, computed while it is written."""

    def __init__(self, path: Path, *, dtype: str, shape: tuple[int, ...]) -> None:
        self._path = path
        self._dtype = np.dtype(dtype)
        self._shape = shape
        self._file: IO[bytes] = path.open("wb")
        self._rows = 0
        self._size = 0
        self._crc = 0
        self._blocks: list[int] = []

    def write(self, array: NDArray[Any]) -> None:
        assert array.shape[1:] == self._shape, f"{self._path.name}: rows of shape {array.shape[1:]}, not {self._shape}"
        data = memoryview(np.ascontiguousarray(array, self._dtype).tobytes())
        self._file.write(data)
        self._rows += len(array)
        while data:
            piece = data[: BLOCK_BYTES - self._size % BLOCK_BYTES]
            self._crc = zlib.crc32(piece, self._crc)
            self._size += len(piece)
            data = data[len(piece) :]
            if self._size % BLOCK_BYTES == 0:
                self._end_block()

    def close(self) -> ArrayFile:
        self._file.close()
        if self._size % BLOCK_BYTES:
            self._end_block()
        return ArrayFile(
            name=self._path.name,
            dtype=self._dtype.str,
            shape=(self._rows, *self._shape),
            size_bytes=self._size,
            crc32=tuple(self._blocks),
        )

    def _end_block(self) -> None:
        self._blocks.append(self._crc)
        self._crc = 0


def _layout(shape: tuple[int, ...], *, dtype: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of one row, by array."""
    return {
        "x": (np.dtype(dtype).newbyteorder("<").str, shape),
        "label": ("<i4", ()),
        "weight": ("<f4", ()),
        "draw": ("<f4", ()),
        "sample_id": ("|u1", (HASH_BYTES,)),
    }


def _map(path: Path, *, entry: ArrayFile) -> NDArray[Any]:
    if entry.size_bytes == 0:  # nothing cannot be mapped
        return np.zeros(entry.shape, entry.dtype)
    return np.memmap(path, dtype=entry.dtype, mode="r", shape=entry.shape)


def _check_size(path: Path, *, entry: ArrayFile) -> None:
    size = path.stat().st_size if path.is_file() else None
    if size is None:
        raise DataError(f"{path} is missing; run shard again")
    if size != entry.size_bytes or size != math.prod(entry.shape) * np.dtype(entry.dtype).itemsize:
        raise DataError(
            f"{path} has {size} bytes, the index says {entry.size_bytes} for shape {entry.shape} of {entry.dtype}; "
            f"the file was cut or replaced: run shard again"
        )


def _check_blocks(path: Path, *, entry: ArrayFile, block_bytes: int) -> None:
    with path.open("rb") as file:
        for number, expected in enumerate(entry.crc32):
            found = zlib.crc32(file.read(block_bytes))
            if found != expected:
                start = number * block_bytes
                end = min(start + block_bytes, entry.size_bytes)
                raise DataError(
                    f"{path} was altered: the block from byte {start} to {end} has "
                    f"CRC-32 {found:08x}, the index says {expected:08x}; run shard again"
                )
        if file.read(1):
            raise DataError(
                f"{path} has more blocks than the {len(entry.crc32)} checksums of the index; run shard again"
            )
