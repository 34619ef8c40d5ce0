"""Writes a shard: rows stream into segments, checksums are computed on the way, the index comes last."""

import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from datamill import files
from datamill.errors import DataError
from datamill.shards.index import KEY, NAME, Field, Index, Segment, read_index, write_index
from datamill.shards.integrity import opened
from datamill.shards.segments import SegmentWriter

if TYPE_CHECKING:
    from datamill.samples import Dataset

BLOCK_BYTES = 4 * 2**20  # bytes under one checksum: small enough to say where damage is, large enough to cost nothing
SEGMENT_BYTES = 128 * 2**20  # where a new segment starts on its own
GROUP_BYTES = 2**20  # rows of varying length are joined to pieces of about this size: fewer calls, in the cache still


class ShardWriter:
    """Streams rows into a shard; leaving the block without an error writes the index."""

    def __init__(
        self,
        folder: Path,
        *,
        split: str,
        fields: Mapping[str, Field],
        dataset: "Dataset | None" = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Start an empty shard in ``folder``, which must not hold anything yet.

        Args:
            folder: Of this one split.
            split: Name of the split.
            fields: What a row is, by field.
            dataset: What holds for every sample; labels must be numbers of its classes.
            meta: Notes for whoever reads it.

        Raises:
            DataError: The folder holds something: a shard is never written over another; or a field's name is none.
        """
        for name in fields:
            if NAME.fullmatch(name) is None:
                raise DataError(f"a field is called {name!r}; use up to 64 small letters, digits and underscores")
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise DataError(f"{folder} is not empty; delete it, or write the shard to a folder of its own")
        self._folder = folder
        self._others: dict[Path, Index] = {}  # of shards that segments are taken over from
        self._index = Index(
            split=split,
            num_rows=0,
            description=None if dataset is None else dataset.model_dump(mode="json"),
            meta=dict(meta or {}),
            block_bytes=BLOCK_BYTES,
            fields=dict(fields),
            segments=dict.fromkeys(fields, ()),
        )
        self._streams = {
            name: _FieldWriter(folder, name, field=field, block_bytes=BLOCK_BYTES) for name, field in fields.items()
        }

    def write(self, rows: Mapping[str, Sequence[Any] | NDArray[Any]]) -> None:
        """Append rows.

        Args:
            rows: By field, equally many: an array of shape ``(n, *shape)``, n byte strings, or n ragged rows of shape
                ``(length, *shape)``. Fields may be written apart; at the end all must have equally many rows.

        Raises:
            DataError: There is no such field, rows have another shape or type, their numbers differ or do not fit the
                field's dtype, or a label is not that of a class.
        """
        if not rows.keys() <= self._streams.keys():
            raise DataError(f"rows of {sorted(rows)} for a shard of {sorted(self._streams)}; name its fields")
        counts = {name: len(some) for name, some in rows.items()}
        if len(set(counts.values())) > 1:
            raise DataError(f"fields differ in their number of rows: {counts}; give equally many of each")
        num_classes, label = self._index.num_classes, np.asarray(rows.get("label", ()))
        if num_classes is not None and label.size and not 0 <= label.min() <= label.max() < num_classes:
            raise DataError(f"labels {label.min()} to {label.max()} for {num_classes} classes; run balance again")
        for name, some in rows.items():
            self._streams[name].write(some)

    def next_segment(self, field: str, *, key: str) -> None:
        """Start a segment of a field; it ends at the next call and is never divided. Without rows it leaves no trace.

        Args:
            field: Name of the field.
            key: Names the segment's files: up to 64 hexadecimal digits, once per field.

        Raises:
            DataError: The key is none, or taken.
        """
        self._streams[field].next_segment(key)

    def reuse(self, field: str, folder: Path, segment: Segment | str) -> None:
        """Append an unchanged segment of another shard: its files are linked, or copied where links are impossible.

        Args:
            field: Name of the field in both shards.
            folder: The other shard.
            segment: Its segment, or that segment's key.

        Raises:
            DataError: The other shard has no such segment, or its files are damaged.
        """
        key = segment if isinstance(segment, str) else segment.key
        index = self._others[folder] = self._others.get(folder) or read_index(folder)
        found = [one for one in index.segments.get(field, ()) if one.key == key]
        same = index.fields.get(field) == self._index.fields[field] and index.block_bytes == self._index.block_bytes
        if not found or not same:
            raise DataError(f"{folder} has no segment {key} of such a field {field}; write its rows instead")
        self._streams[field].reuse(found[0], folder=folder)

    def __enter__(self) -> Self:
        """Start writing."""
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close the files and write the index, unless an error is on its way."""
        if error is not None:
            for stream in self._streams.values():
                stream.abandon()
            return
        try:
            segments = {name: stream.close() for name, stream in self._streams.items()}
        finally:
            for stream in self._streams.values():
                stream.abandon()
        counts = {name: sum(segment.num_rows for segment in some) for name, some in segments.items()}
        if len(set(counts.values())) > 1:
            raise DataError(f"fields differ in their number of rows: {counts}; write equally many of each")
        changes = {"num_rows": max(counts.values(), default=0), "segments": segments}
        write_index(self._folder, self._index.replaced(**changes))


class _FieldWriter:
    """The segments of one field."""

    def __init__(self, folder: Path, name: str, *, field: Field, block_bytes: int) -> None:
        self._folder = folder
        self._block_bytes = block_bytes
        self._name = name
        self._field = field
        self._done: list[Segment] = []
        self._open: SegmentWriter | None = None
        self._key: str | None = None
        step = math.lcm(mmap.ALLOCATIONGRANULARITY, field.element_bytes) // field.element_bytes
        self._rows_per_segment = max(1, SEGMENT_BYTES // field.element_bytes // step) * step  # no holes between them

    def write(self, rows: Any) -> None:
        pieces = self._rows(np.asarray(rows)) if self._field.kind == "array" else self._groups(rows)
        for data, lengths in pieces:
            self._segment().write(data, lengths=lengths)

    def next_segment(self, key: str) -> None:
        self._end()
        if KEY.fullmatch(key) is None or key in {segment.key for segment in self._done}:
            raise DataError(
                f"{self._name}: a segment is called {key!r}; use up to 64 hexadecimal digits, and others for each"
            )
        self._key = key

    def reuse(self, segment: Segment, *, folder: Path) -> None:
        self.next_segment(segment.key)
        self._key = None
        for entry in segment.files:
            with opened(folder / entry.name, entry=entry):
                files.link_or_copy(folder / entry.name, self._folder / entry.name)
        self._done.append(segment)

    def close(self) -> tuple[Segment, ...]:
        self._end()
        return tuple(self._done)

    def abandon(self) -> None:
        if self._open is not None:
            self._open.abandon()

    def _segment(self) -> "SegmentWriter":
        if self._open is None:
            key = self._key or f"{len(self._done):06d}"
            self._open = SegmentWriter(
                self._folder, self._name, key=key, field=self._field, block_bytes=self._block_bytes
            )
        return self._open

    def _end(self) -> None:
        if self._open is not None:
            self._done.append(self._open.close())
        self._open, self._key = None, None

    def _rows(self, array: NDArray[Any]) -> Iterator[tuple[NDArray[Any], None]]:
        if array.ndim == 0 or array.shape[1:] != self._field.shape:
            raise DataError(f"{self._name}: rows of shape {array.shape[1:]}, the field has {self._field.shape}")
        array = _cast(array, dtype=self._field.dtype, name=self._name)
        while len(array):
            room = len(array) if self._key else self._rows_per_segment - self._segment().num_rows
            if not room:
                self._end()
                continue
            yield array[:room], None
            array = array[room:]

    def _groups(self, rows: Sequence[Any]) -> Iterator[tuple[Any, NDArray[np.int64]]]:
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        ends = np.cumsum(lengths)
        size = self._field.element_bytes
        count = max(1, len(rows) * GROUP_BYTES // max(1, int(lengths.sum()) * size))
        start = 0
        while start < len(rows):
            stop = min(start + count, len(rows))
            if not self._key:  # a segment ends with the row that fills it, however rows were batched
                room = -(-SEGMENT_BYTES // size) - self._segment().num_elements
                if room <= 0:
                    self._end()
                    continue
                before = ends[start] - lengths[start]
                stop = min(stop, start + int(np.searchsorted(ends[start:stop], before + room)) + 1)
            yield self._joined(rows[start:stop]), lengths[start:stop]
            start = stop

    def _joined(self, rows: Sequence[Any]) -> Any:
        if self._field.kind == "bytes":
            return b"".join(rows)
        arrays = [np.asarray(row) for row in rows]
        wrong = [array.shape for array in arrays if array.shape[1:] != self._field.shape or not array.ndim]
        if wrong:
            wanted = ", ".join(map(str, ("length", *self._field.shape)))
            raise DataError(f"{self._name}: a row of shape {wrong[0]}, the field has rows of ({wanted})")
        return _cast(np.concatenate(arrays), dtype=self._field.dtype, name=self._name)


def _cast(array: NDArray[Any], *, dtype: str, name: str) -> NDArray[Any]:
    """The array in the field's dtype, C order.

    Raises:
        DataError: That would change numbers by more than rounding.
    """
    if not np.can_cast(array.dtype, dtype, "safe"):
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            raise DataError(f"{name}: numbers of type {array.dtype} for a field of {np.dtype(dtype)}; convert them")
        if array.size and np.dtype(dtype).kind in "iu":
            bounds = np.iinfo(dtype)
            if array.min() < bounds.min or array.max() > bounds.max:
                raise DataError(f"{name}: {array.min()} to {array.max()} do not fit {dtype}; correct the values")
    return np.ascontiguousarray(array, dtype)
