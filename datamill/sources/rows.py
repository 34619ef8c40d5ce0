"""From the raw rows of a table to samples and rejects."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill.hashes import digits, hash_each
from datamill.samples import Dataset
from datamill.sources.batches import Batch, Reject, sample_table
from datamill.sources.chunks import Chunk
from datamill.sources.columns import Kind, Parsed, as_json, as_kind, as_label, as_text, as_time, hash_rows
from datamill.sources.occurrences import Occurrences

SHOWN = 40  # characters of a cell that a message repeats

Problems = dict[int, tuple[str, str]]  # first reason and message against a row of a chunk


class Roles(Protocol):
    """What columns are for; ``None`` where none has the role."""

    @property
    def target(self) -> str | None:
        """The class."""

    @property
    def target_kind(self) -> Literal["category", "number"]:
        """Whether classes are texts or numbers."""

    @property
    def group(self) -> str | None:
        """What must share a split."""

    @property
    def time(self) -> str | None:
        """When the row was taken."""

    @property
    def id(self) -> str | None:
        """What names the row for good."""


class _Row(NamedTuple):
    """The columns of a chunk, read according to their roles; ``None`` where no column has the role."""

    labels: Parsed
    times: Parsed | None
    groups: pa.Array | None
    ids: pa.Array | None
    features: dict[str, Parsed]


class RowReader:
    """Makes samples of chunks, which come in order: it remembers ids, or how often a file has held a row."""

    def __init__(
        self, *, source: Roles, dataset: Dataset, kinds: Mapping[str, Kind], needs_labels: bool = True
    ) -> None:
        """Start before the first row.

        Args:
            source: The roles of the columns.
            dataset: The data set the rows belong to.
            kinds: How to read each feature.
            needs_labels: Whether a row without a class is a reject; else its class is the empty string, and no part of
                what names a row, because it may become known later.
        """
        self._needs_labels = needs_labels
        self._source = source
        self._dataset = dataset
        self._kinds = kinds
        self._ids = Occurrences()
        self._rows = Occurrences()
        self._file = ""

    def batch(self, chunk: Chunk, *, file: str) -> Batch:
        """The chunk's rows as samples and rejects; a row with several problems is rejected for the first.

        Args:
            chunk: Rows; those of one file come one after the other.
            file: The file's key.
        """
        row = self._read(chunk)
        problems = self._problems(row, chunk=chunk)
        good = pa.array([place for place in range(len(chunk.places)) if place not in problems], pa.int64())
        rejects = [Reject(chunk.places[place], *problems[place]) for place in sorted(problems)]
        return Batch(self._table(row, good=good, file=file), [*chunk.rejects, *rejects])

    def _read(self, chunk: Chunk) -> _Row:
        source, columns = self._source, chunk.columns
        return _Row(
            labels=_no_labels(len(chunk.places))
            if source.target is None
            else as_label(columns[source.target], kind=source.target_kind),
            times=None if source.time is None else as_time(columns[source.time]),
            groups=None if source.group is None else as_text(columns[source.group]),
            ids=None if source.id is None else as_text(columns[source.id]),
            features={name: as_kind(columns[name], kind=kind) for name, kind in self._kinds.items()},
        )

    def _problems(self, row: _Row, *, chunk: Chunk) -> Problems:
        source = self._source
        problems: Problems = {}
        odd = "target_not_numeric"
        target = str(source.target)
        _note_odd(problems, row.labels, chunk=chunk, column=target, reason=odd, wanted="a finite number")
        for place in _places(pc.is_null(row.labels.values)) if self._needs_labels else ():
            problems.setdefault(place, ("target_missing", f"column {source.target!r} is empty"))
        if row.times is not None:
            odd = "time_unreadable"
            _note_odd(problems, row.times, chunk=chunk, column=str(source.time), reason=odd, wanted="a time")
        for name, parsed in row.features.items():
            _note_odd(problems, parsed, chunk=chunk, column=name, reason="not_a_number", wanted="a number")
        if row.ids is not None:
            self._note_ids(problems, row.ids.to_pylist())
        return problems

    def remember(self, ids: pa.ChunkedArray) -> None:
        """Take ids that other samples have already."""
        self._ids.count(_id_hashes(ids.to_pylist()))

    def _note_ids(self, problems: Problems, ids: Sequence[str | None]) -> None:
        column = self._source.id
        problems.update(
            {
                place: ("id_missing", f"column {column!r} is empty")
                for place, key in enumerate(ids)
                if key is None and place not in problems
            }
        )
        good = [place for place in range(len(ids)) if place not in problems]
        keys = [str(ids[place]) for place in good]
        for place, key, count in zip(good, keys, self._ids.count(_id_hashes(keys)).tolist(), strict=True):
            if count:
                problems[place] = ("duplicate_id", f"an earlier row has {column!r} {key[:SHOWN]!r} too")

    def _table(self, row: _Row, *, good: pa.Array, file: str) -> pa.Table:
        columns = {feature.column: row.features[feature.name].values.take(good) for feature in self._dataset.features}
        contents = hash_rows(columns)
        labels = row.labels.values.take(good)
        groups = None if row.groups is None else row.groups.take(good)
        times = None if row.times is None else row.times.values.take(good)
        named_by = (
            [labels, groups, times] if self._needs_labels else [groups, times]
        )  # a class that comes later is none
        keys = self._keys(contents, roles=named_by, file=file) if row.ids is None else row.ids.take(good)
        return sample_table(
            dataset=self._dataset,
            sources=keys,
            contents=contents,
            labels=pc.fill_null(labels, ""),
            payload=columns,
            groups=groups,
            times=times,
        )

    def _keys(self, contents: pa.Array, *, roles: Sequence[pa.Array | None], file: str) -> pa.Array:
        """``<file>#<hash of the row>#<occurrence>``: rows that share a hash are equal, so their order means nothing."""
        texts = [column.cast(pa.string()) for column in roles if column is not None]
        hashes = hash_each(as_json([contents, *texts]))
        if file != self._file:
            self._file, self._rows = file, Occurrences()
        counts = self._rows.count(hashes[:, 0])
        return pc.binary_join_element_wise(file, digits(hashes), pa.array(counts).cast(pa.string()), "#")


def _no_labels(count: int) -> Parsed:
    return Parsed(pa.nulls(count, pa.string()), pa.array(np.zeros(count, bool)))


def _id_hashes(ids: Sequence[str]) -> NDArray[np.bytes_]:
    return np.array([hashlib.blake2b(key.encode(), digest_size=16).digest() for key in ids], "S16")


def _note_odd(problems: Problems, parsed: Parsed, *, chunk: Chunk, column: str, reason: str, wanted: str) -> None:
    for place in _places(parsed.is_odd):
        cell = _shown(chunk.columns[column][place])
        problems.setdefault(place, (reason, f"column {column!r} holds {cell[:SHOWN]!r}, which is not {wanted}"))


def _shown(cell: pa.Scalar) -> str:
    try:
        return str(cell.as_py())
    except (ValueError, OverflowError):  # a time that Python has no name for
        return str(cell.cast(pa.string()).as_py())


def _places(mask: pa.Array) -> list[int]:
    return [int(place) for place in pc.indices_nonzero(mask).to_pylist()]
