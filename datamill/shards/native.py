"""The native shard: flat little-endian files that are memory-mapped, and an index that is written last.

The byte layout is specified in ``README.md`` beside this file.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from datamill.errors import DataError
from datamill.shards.fields import ArrayField, BytesField, RaggedField, Rows, VerifiedRows
from datamill.shards.index import OFFSET, Field, File, Index, Segment, read_index
from datamill.shards.integrity import Guard, Guarded, Stamp, opened, stamp
from datamill.shards.mapping import Places, map_files
from datamill.shards.streaming import Stream

if TYPE_CHECKING:
    from datamill.samples import Dataset

AnyField = ArrayField | BytesField | RaggedField


@dataclass(frozen=True)
class Shard:
    """One split, memory-mapped: opening costs next to nothing, rows are read when they are indexed.

    Attributes:
        folder: Where it lies; of a shard in memory, a name.
        index: What the folder holds.
        fields: Its fields by name.
    """

    folder: Path
    index: Index
    fields: Mapping[str, AnyField]

    @property
    def split(self) -> str:
        """Name of the split."""
        return self.index.split

    @property
    def num_rows(self) -> int:
        """Number of samples."""
        return self.index.num_rows

    @property
    def meta(self) -> Mapping[str, Any]:
        """What the writer noted."""
        return self.index.meta

    @property
    def fingerprint(self) -> str:
        """Identity of this very data (32 hexadecimal digits): equal data, keys and notes, equal fingerprint."""
        return self.index.fingerprint

    @property
    def dataset(self) -> "Dataset":
        """What holds for every sample.

        Raises:
            DataError: The shard was written without it.
        """
        if self.index.dataset is None:
            raise DataError(f"{self.folder} describes no data set; write the shard with one to train on it")
        return self.index.dataset

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their numbers."""
        return self.dataset.classes

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self._array("x").shape

    @functools.cached_property
    def x(self) -> NDArray[Any]:
        """Samples, shape (N, *shape): images uint8 (H, W, C), tables float32 (D,); verified when they are indexed."""
        return cast("NDArray[Any]", VerifiedRows(self._array("x")))

    @functools.cached_property
    def label(self) -> NDArray[np.int32]:
        """Class of each sample as a number, an index into ``classes``, int32, shape (N,); verified.

        Raises:
            DataError: A number is not that of a class.
        """
        label = self._array("label").all()
        num_classes = self.index.num_classes
        if num_classes is not None and label.size and not 0 <= label.min() <= label.max() < num_classes:
            raise DataError(f"{self.folder}: labels {label.min()} to {label.max()} for {num_classes} classes")
        return label

    @functools.cached_property
    def weight(self) -> NDArray[np.float32]:
        """Weight of each sample's loss, float32, shape (N,); verified."""
        return self._array("weight").all()

    @functools.cached_property
    def draw(self) -> NDArray[np.float32]:
        """Relative probability of each sample to be drawn in an epoch, float32, shape (N,); verified."""
        return self._array("draw").all()

    @functools.cached_property
    def sample_id(self) -> NDArray[np.uint8]:
        """Identity of each sample, uint8, shape (N, 16); verified."""
        return self._array("sample_id").all()

    def ids(self, rows: Rows = slice(None)) -> list[str]:
        """Identities of some rows, 32 hexadecimal digits each."""
        return [row.tobytes().hex() for row in self.sample_id[rows]]

    def touch(self, field: str, rows: Rows = slice(None)) -> None:
        """Verify the blocks that some rows of a field lie in, each block once; free when all are verified.

        Raises:
            DataError: A block is not what was written, or its file changed.
            IndexError: There is no such row.
        """
        self.fields[field].touch(rows)

    def is_streamed(self, field: str) -> bool:
        """Whether the rows of a field are here only while they are held: they are larger than the cache."""
        return self.fields[field].guard.is_streamed

    def check_unchanged(self) -> None:
        """Pass when every file is still what was opened.

        Raises:
            DataError: One was cut, altered, replaced or deleted.
        """
        for guard in self._guards():
            guard.check_unchanged()

    def verify(self) -> None:
        """Compare every block that was not touched yet with its checksum.

        Raises:
            DataError: One differs.
        """
        for guard in self._guards():
            guard.touch_all()
        for field in self.fields.values():
            if isinstance(field, RaggedField):
                _ = field.offsets

    def _guards(self) -> list[Guard | Stream]:
        guards: list[Guard | Stream] = [field.guard for field in self.fields.values()]
        return [*guards, *(field.offsets_guard for field in self.fields.values() if isinstance(field, RaggedField))]

    def _array(self, name: str) -> ArrayField:
        field = self.fields.get(name)
        if not isinstance(field, ArrayField):
            raise DataError(f"{self.folder} has no array {name!r} but {sorted(self.fields)}; run shard again")
        return field


def open_shard(folder: Path, *, verify: bool = False) -> Shard:
    """A shard, memory-mapped; sizes and probes of its files are compared with the index.

    Args:
        folder: Folder of one split.
        verify: Compare every block with its checksum now, not when rows of it are first touched.

    Raises:
        DataError: A file is missing, truncated or altered, or the format has another version.
    """
    folder = Path(folder)
    shard = open_files(read_index(folder), folder=folder, locate=lambda entry: folder / entry.name)
    if verify:
        shard.verify()
    return shard


def open_files(
    index: Index,
    *,
    folder: Path,
    locate: Callable[[File], Path],
    streams: Mapping[str, Stream] | None = None,
    are_copies: bool = False,
) -> Shard:
    """A shard whose files may lie under other names, and the data of some fields elsewhere.

    Args:
        index: What the shard holds.
        folder: Where it lies.
        locate: Path of a file.
        streams: Fields whose data comes in blocks.
        are_copies: The files came from elsewhere, and can be fetched again.

    Raises:
        DataError: A file is missing, truncated or altered.
    """
    fields = {
        name: _open_field(
            field,
            segments=index.segments[name],
            open_all=functools.partial(_map, locate=locate, block_bytes=index.block_bytes, are_copies=are_copies),
            stream=(streams or {}).get(name),
        )
        for name, field in index.fields.items()
    }
    return Shard(folder, index, fields)


def memory_shard(arrays: Mapping[str, NDArray[Any]], *, split: str, dataset: "Dataset | None" = None) -> Shard:
    """A shard of arrays that are in memory already; equally many rows each, at least the field of one."""
    fields = {name: Field.array(array.dtype, array.shape[1:]) for name, array in arrays.items()}
    (num_rows,) = {len(array) for array in arrays.values()}
    guard = Guard([], block_bytes=1)
    index = Index(
        split=split,
        num_rows=num_rows,
        description=None if dataset is None else dataset.model_dump(mode="json"),
        meta={},
        block_bytes=1,
        fields=fields,
        segments=dict.fromkeys(fields, ()),
    )
    return Shard(
        Path("memory"),
        index.sealed(),
        {
            name: ArrayField(fields[name], data=array, places=Places([num_rows], slots=[0]), guard=guard)
            for name, array in arrays.items()
        },
    )


def _open_field(
    field: Field,
    *,
    segments: tuple[Segment, ...],
    open_all: Callable[..., tuple[NDArray[np.uint8], tuple[int, ...], Guard]],
    stream: Stream | None,
) -> AnyField:
    size = field.element_bytes
    guard: Guard | Stream
    if stream is None:
        flat, positions, guard = open_all([segment.data for segment in segments], element_bytes=size)
    else:
        flat, positions, guard = stream.content, stream.positions, stream
    data = flat.view(field.dtype).reshape(-1, *field.shape)
    slots = [position // size for position in positions]
    rows = Places([segment.num_rows for segment in segments], slots=slots)
    if field.kind == "array":
        return ArrayField(field, data=data, places=rows, guard=guard)
    offset_files = [one.offsets for one in segments if one.offsets is not None]
    offsets, places, offsets_guard = open_all(offset_files, element_bytes=OFFSET.itemsize)
    starts = [place // OFFSET.itemsize for place in places]
    return (BytesField if field.kind == "bytes" else RaggedField)(
        field,
        data=data,
        rows=rows,
        elements=Places([segment.num_elements for segment in segments], slots=slots),
        offsets=[
            offsets.view(OFFSET)[start : start + segment.num_rows + 1]
            for start, segment in zip(starts, segments, strict=True)
        ],
        guards=(guard, offsets_guard),
    )


def _map(
    entries: Sequence[File],
    *,
    element_bytes: int,
    locate: Callable[[File], Path],
    block_bytes: int,
    are_copies: bool,
) -> tuple[NDArray[np.uint8], tuple[int, ...], Guard]:
    """Files one after the other: their bytes, where each starts among them, and what verifies them."""
    paths = [locate(entry) for entry in entries]
    stamps: list[Stamp] = []

    def one_by_one() -> Iterator[IO[bytes]]:
        for path, entry in zip(paths, entries, strict=True):
            with opened(path, entry=entry) as file:
                stamps.append(stamp(os.fstat(file.fileno())))
                yield file

    sizes = [entry.size_bytes for entry in entries]
    mapped = map_files(one_by_one(), sizes=sizes, element_bytes=element_bytes)
    contents = [mapped.flat[start : start + size] for start, size in zip(mapped.positions, sizes, strict=True)]
    guarded = [Guarded(*one, are_copies) for one in zip(paths, entries, stamps, contents, strict=True)]
    return mapped.flat, mapped.positions, Guard(guarded, block_bytes=block_bytes)
