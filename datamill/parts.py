"""Samples on disk: a folder of Parquet parts and a manifest that is written last.

Layout of a parts folder::

    <key>.parquet   at most 50,000 rows and about 64 MiB, in sample order; the key begins the SHA-256 of the file
    manifest.json   data set, rows, and key, rows, bytes and SHA-256 of every part, in order

Where one part ends and the next begins is decided by the samples themselves: a part ends after a sample whose id's
hash is small enough. So an inserted, changed or removed sample changes its own part and leaves the others as they
were, whatever was done before: equal samples give equal parts, with or without a history.

Source of the cutting rule: A. Muthitacharoen, B. Chen, D. Mazieres, "A Low-bandwidth Network File System", 2001.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from datamill import files
from datamill.errors import DataError
from datamill.samples import Dataset, id_bytes

MANIFEST = "manifest.json"
FRESH = "fresh.parquet"  # a part that was written and is not yet named
VERSION = 2
TARGET_BYTES = 32 * 2**20  # of payload after which a part ends on average, once it has a quarter of that
MIN_BYTES, MAX_BYTES = TARGET_BYTES // 4, 2 * TARGET_BYTES
MAX_ROWS = 50_000
LEAST_ROW_BYTES = MAX_BYTES // MAX_ROWS  # what a small row counts for, so that small rows do not make huge parts
READ_ROWS = 4_096  # rows decoded at a time; bounds memory, not results
SCAN_ROWS = 1_024  # with payload, decoded at a time where few of many are wanted: memory that is used again and again
GROUP_BYTES = 8 * 2**20  # of a Parquet row group, which is what has to be read for the sake of one row
KEY_DIGITS = 24
DENSE_SHARE = 0.9  # of its size that compression leaves of a payload that is not worth compressing, as PNG and JPEG are
SAMPLE_BYTES = 2**18  # of a payload, by which that is told
HASHES = ("sample_id", "content_hash")  # half of their size is not worth the time it takes at every writing and reading
UNLIKE = ("sample_id", "source", "content_hash", "image.bytes")  # columns in which no value comes twice, as a rule


class Part(BaseModel):
    """One Parquet file."""

    model_config = ConfigDict(frozen=True)

    key: str
    num_rows: int
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """Its file's name."""
        return f"{self.key}.parquet"


class Manifest(BaseModel):
    """The parts of a folder; a folder without it is not finished."""

    model_config = ConfigDict(frozen=True)

    version: int = VERSION
    dataset: Dataset
    num_rows: int
    parts: tuple[Part, ...]


class PartsWriter:
    """Writes tables as parts; leaving the block without an error writes the manifest."""

    def __init__(self, folder: Path, *, dataset: Dataset, previous: Path | None = None) -> None:
        """Start an empty parts folder.

        Args:
            folder: Must not hold anything yet.
            dataset: What holds for every sample.
            previous: A finished parts folder; parts that come out the same are linked from there, so that whoever
                knows those files need not read them again.
        """
        self._folder = folder
        self._dataset = dataset
        self._schema = dataset.arrow_schema()
        self._previous = previous
        self._known = known_parts(previous)
        self._part: _PartFile | None = None  # the one that is being written
        self._part_bytes = 0
        self._parts: list[Part] = []
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, table: pa.Table) -> None:
        """Append samples; columns may come in any order, missing nullable ones become null.

        Raises:
            DataError: A column is missing, has another type, or holds null where it must not.
        """
        table = conform(table, schema=self._schema)
        for start in range(0, table.num_rows, READ_ROWS):
            self._append(table.slice(start, READ_ROWS))

    def __enter__(self) -> Self:
        """Start writing."""
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Finish the last part and the manifest, unless an error is on its way."""
        if error is not None and self._part is not None:
            self._part.close()
        if error is None:
            self._finish()
            num_rows = sum(part.num_rows for part in self._parts)
            manifest = Manifest(dataset=self._dataset, num_rows=num_rows, parts=tuple(self._parts))
            files.write_json(self._folder / MANIFEST, manifest.model_dump(mode="json"))

    def _append(self, table: pa.Table) -> None:
        row_bytes = _row_bytes(table)
        sizes = np.maximum(row_bytes, LEAST_ROW_BYTES)
        is_end = _hashes(table["sample_id"]) * TARGET_BYTES < sizes << 32
        totals = np.cumsum(sizes)
        start, before = 0, 0  # first row not yet in a part, and the bytes of the rows before it
        while start < table.num_rows:
            filled = self._part_bytes + totals[start:] - before
            ends = np.flatnonzero((is_end[start:] & (filled >= MIN_BYTES)) | (filled >= MAX_BYTES))
            stop = start + int(ends[0]) + 1 if ends.size else table.num_rows
            self._part = self._part or _PartFile(self._folder / FRESH)
            self._part.write(table.slice(start, stop - start), row_bytes=row_bytes[start:stop])
            self._part_bytes += int(totals[stop - 1]) - before
            if ends.size:
                self._finish()
            start, before = stop, int(totals[stop - 1])

    def _finish(self) -> None:
        if self._part is None:
            return
        num_rows = self._part.finish()
        self._part, self._part_bytes = None, 0
        fresh = self._folder / FRESH
        size_bytes, sha256 = fresh.stat().st_size, files.sha256_file(fresh)
        part = Part(key=sha256[:KEY_DIGITS], num_rows=num_rows, size_bytes=size_bytes, sha256=sha256)
        if self._previous is not None and part.key in self._known and is_whole(self._previous, part):
            fresh.unlink()
            files.link_or_copy(self._previous / part.name, self._folder / part.name)
        else:
            fresh.replace(self._folder / part.name)
        self._parts.append(part)


class _PartFile:
    """A part that is being written, a row group at a time; its bytes depend on the rows alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.Table] = []
        self._pending_rows = self._pending_bytes = 0
        self._num_rows = 0

    def write(self, table: pa.Table, *, row_bytes: NDArray[np.int64]) -> None:
        """Append rows with payloads of these sizes; a row group ends where it is full."""
        totals = np.cumsum(row_bytes)
        start, before = 0, 0
        while start < table.num_rows:
            by_bytes = int(np.searchsorted(totals, before + GROUP_BYTES - self._pending_bytes)) + 1
            stop = min(start + READ_ROWS - self._pending_rows, by_bytes)
            is_full = stop <= table.num_rows
            stop = min(stop, table.num_rows)
            self._pending.append(table.slice(start, stop - start))
            self._pending_rows += stop - start
            self._pending_bytes += int(totals[stop - 1]) - before
            start, before = stop, int(totals[stop - 1])
            if is_full:
                self._write_group()

    def finish(self) -> int:
        """Write what is left; the number of rows."""
        if self._pending_rows:
            self._write_group()
        self.close()
        return self._num_rows

    def close(self) -> None:
        """Let go of the file."""
        if self._writer is not None:
            self._writer.close()

    def _write_group(self) -> None:
        group = pa.concat_tables(self._pending).combine_chunks().replace_schema_metadata(None)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, group.schema, **_encoding(group))
        self._writer.write_table(group, row_group_size=group.num_rows)
        self._num_rows += group.num_rows
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0


def write_parquet(table: pa.Table, path: Path, *, metadata: dict[str, str] | None = None) -> None:
    """Write one Parquet file whose bytes depend on the table alone."""
    schema = table.schema.with_metadata(metadata) if metadata else table.schema.remove_metadata()
    with files.atomic_write(path) as partial:
        pq.write_table(table.cast(schema), partial, row_group_size=_group_rows(table), **_encoding(table))


class RowGroups:
    """Streams tables into one Parquet file whose bytes depend on the rows alone, not on how they were batched."""

    def __init__(self, path: Path, *, rows: int = 16 * READ_ROWS) -> None:
        """Write ``path``, atomically, in groups of ``rows`` rows."""
        self._partial = files.atomic_write(path)
        self._rows = rows
        self._path = self._partial.__enter__()
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.Table] = []
        self._num_pending = 0

    def write(self, table: pa.Table) -> None:
        """Append rows; the first table's schema is that of all, and it may be empty."""
        if self._writer is None:
            table = table.replace_schema_metadata(None)
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd")
        self._pending.append(table.cast(self._writer.schema))
        self._num_pending += table.num_rows
        while self._num_pending >= self._rows:
            self._write_group(self._rows)

    def __enter__(self) -> Self:
        """Start writing."""
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Put the file in its place, unless an error is on its way."""
        try:
            if error is None and self._num_pending:
                self._write_group(self._num_pending)
            if self._writer is not None:
                self._writer.close()
        finally:
            self._partial.__exit__(error, value, tb)

    def _write_group(self, rows: int) -> None:
        assert self._writer is not None
        table = pa.concat_tables(self._pending)
        self._writer.write_table(table.slice(0, rows).combine_chunks(), row_group_size=rows)
        self._pending = [table.slice(rows)] if table.num_rows > rows else []
        self._num_pending = table.num_rows - rows


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a parts folder.

    Raises:
        DataError: It is missing, damaged, of another version, or names a part that is missing or has another size.
    """
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is missing: the folder was not finished; run the stage that writes it again"
        ) from error
    except ValidationError as error:
        raise DataError(
            f"{path} is damaged ({error.error_count()} faults); run the stage that writes it again"
        ) from error
    if manifest.version != VERSION:
        raise DataError(f"{path} has version {manifest.version}, this datamill reads {VERSION}; run the pipeline again")
    for part in manifest.parts:
        file = folder / part.name
        size = file.stat().st_size if file.is_file() else None
        if size != part.size_bytes:
            raise DataError(f"{file} has {size} bytes, the manifest says {part.size_bytes}; run the stage again")
    return manifest


def verify(folder: Path) -> Manifest:
    """The manifest, after every part's bytes were compared with their SHA-256.

    Raises:
        DataError: A part was changed or damaged.
    """
    manifest = read_manifest(folder)
    for part in manifest.parts:
        found = files.sha256_file(folder / part.name)
        if found != part.sha256:
            raise DataError(f"{folder / part.name} has SHA-256 {found[:12]}, the manifest says {part.sha256[:12]}")
    return manifest


def iter_rows(
    url: str, rows: NDArray[np.integer[Any]] | None = None, *, columns: Sequence[str]
) -> Iterator[tuple[slice, pa.Table]]:
    """Some rows of one part, a few at a time; of the part, only the row groups they lie in are read.

    Args:
        url: A path, or where the storage of an engine keeps the part.
        rows: Ascending, none twice; all by default.
        columns: Columns to read.

    Yields:
        Which of ``rows``, and their columns.
    """
    if "://" in url:
        with fsspec.open(url) as stream:
            yield from _some_rows(stream, rows, columns=columns)
    else:
        yield from _some_rows(url, rows, columns=columns)


def _some_rows(
    source: Any, rows: NDArray[np.integer[Any]] | None, *, columns: Sequence[str]
) -> Iterator[tuple[slice, pa.Table]]:
    with pq.ParquetFile(source, pre_buffer=False) as file:
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        wanted = np.arange(file.metadata.num_rows) if rows is None else rows
        groups = np.unique(np.searchsorted(ends, wanted, side="right")).tolist()
        numbers = np.concatenate([np.arange(0), *(np.arange(ends[one] - sizes[one], ends[one]) for one in groups)])
        count = min(SCAN_ROWS, max(sizes, default=1))  # no more than a group, whose bytes are bounded
        for batch in file.iter_batches(count, row_groups=groups, columns=list(columns), use_threads=False):
            read, numbers = np.split(numbers, [batch.num_rows])
            low, high = np.searchsorted(wanted, [read[0], read[-1] + 1])
            if high > low:
                table = pa.Table.from_batches([batch])
                is_all = high - low == len(read)
                yield slice(low, high), table if is_all else table.take(np.searchsorted(read, wanted[low:high]))


def is_whole(folder: Path, part: Part) -> bool:
    """Whether the bytes of ``part`` in ``folder`` are those that were written."""
    file = folder / part.name
    return file.is_file() and file.stat().st_size == part.size_bytes and files.sha256_file(file) == part.sha256


def iter_tables(folder: Path, *, columns: Sequence[str] | None = None, rows: int = READ_ROWS) -> Iterator[pa.Table]:
    """The samples in order, at most ``rows`` at a time; memory does not grow with the folder."""
    for part in read_manifest(folder).parts:
        yield from iter_part(folder / part.name, columns=columns, rows=rows)


def iter_part(path: Path, *, columns: Sequence[str] | None = None, rows: int = READ_ROWS) -> Iterator[pa.Table]:
    """The samples of one part in order, at most ``rows`` at a time."""
    with pq.ParquetFile(path, pre_buffer=False) as file:  # else all of it is in memory at once
        names = list(columns) if columns is not None else None
        for batch in file.iter_batches(rows, columns=names, use_threads=False):  # each thread keeps memory of its own
            yield pa.Table.from_batches([batch])


def iter_blocks(folder: Path, *, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
    """Some columns of the samples in order, exactly ``rows`` rows at a time; the last table may have fewer."""
    return regrouped(iter_tables(folder, columns=columns, rows=rows), rows=rows)


def regrouped(tables: Iterable[pa.Table], *, rows: int) -> Iterator[pa.Table]:
    """The same rows, exactly ``rows`` at a time; the last table may have fewer."""
    waiting: list[pa.Table] = []
    num_waiting = 0
    for table in tables:
        waiting.append(table)
        num_waiting += table.num_rows
        while num_waiting >= rows:
            table = pa.concat_tables(waiting)
            yield table.slice(0, rows)
            waiting, num_waiting = [table.slice(rows)], num_waiting - rows
    if num_waiting:
        yield pa.concat_tables(waiting)


def read_table(folder: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    """The samples, or some of their columns, at once: for light columns and small data."""
    schema = read_manifest(folder).dataset.arrow_schema()
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    return pa.concat_tables([schema.empty_table(), *iter_tables(folder, columns=columns, rows=MAX_ROWS)])


def known_parts(folder: Path | None) -> Mapping[str, Part]:
    """The parts of a folder by key; none where the folder is missing, damaged or of another version."""
    try:
        return {part.key: part for part in read_manifest(folder).parts} if folder is not None else {}
    except DataError:
        return {}


def _group_rows(table: pa.Table) -> int:
    row_bytes = max(1, int(_row_bytes(table).sum()) // max(1, table.num_rows))
    return int(min(READ_ROWS, max(1, GROUP_BYTES // row_bytes)))


def _encoding(table: pa.Table) -> dict[str, Any]:
    """How the columns are written; it depends on the rows alone."""
    leaves = [leaf for field in table.schema for leaf in _leaves(field.name, field.type)]
    compression = dict.fromkeys(leaves, "zstd") | dict.fromkeys(HASHES, "none")
    if "image.bytes" in leaves and _is_dense(table["image"]):
        compression["image.bytes"] = "none"
    alike = [leaf for leaf in leaves if leaf not in UNLIKE]
    return {"compression": compression, "use_dictionary": alike, "write_statistics": alike}


def _leaves(name: str, kind: pa.DataType) -> list[str]:
    """Names of the columns of a Parquet file that hold one of a table."""
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{name}.{field.name}", field.type)]
    is_list = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind)
    return _leaves(f"{name}.list.element", kind.value_type) if is_list else [name]


def _is_dense(images: pa.ChunkedArray) -> bool:
    """Whether compression would save little, as the first images show."""
    payloads = pc.struct_field(images, "bytes")
    sizes = pc.fill_null(pc.binary_length(payloads), 0).to_numpy()
    few = payloads.slice(0, int(np.searchsorted(np.cumsum(sizes), SAMPLE_BYTES)) + 1).to_pylist()
    sample = b"".join(one or b"" for one in few)[:SAMPLE_BYTES]
    return len(pa.compress(sample, codec="zstd", asbytes=True)) > DENSE_SHARE * len(sample)


def _row_bytes(table: pa.Table) -> NDArray[np.int64]:
    """Size of each row's payload, by content alone."""
    sizes = np.zeros(table.num_rows, np.int64)
    for name in table.column_names:
        column = table[name]
        if pa.types.is_struct(column.type):
            column = pc.struct_field(column, "bytes")
        if pa.types.is_binary(column.type) or pa.types.is_string(column.type):
            sizes += pc.fill_null(pc.binary_length(column), 0).to_numpy()
        elif pa.types.is_floating(column.type):
            sizes += 8
    return sizes


def _hashes(sample_ids: pa.ChunkedArray) -> NDArray[np.int64]:
    """Last 32 bits of each id, which is a hash already."""
    return id_bytes(sample_ids)[:, -4:].copy().view(">u4").ravel().astype(np.int64)


def conform(table: pa.Table, *, schema: pa.Schema) -> pa.Table:
    """``table`` with exactly the columns of ``schema``; missing nullable columns become null.

    Raises:
        DataError: A column is missing or unknown, has another type, or holds null where it must not.
    """
    unknown = set(table.column_names) - set(schema.names)
    if unknown:
        raise DataError(f"columns {sorted(unknown)} are not in the schema {schema.names}")
    columns: list[Any] = []
    for field in schema:
        if field.name in table.column_names:
            column = table.column(field.name)
            column = column if column.type == field.type else column.cast(field.type)
        elif field.nullable:
            column = pa.nulls(table.num_rows, field.type)
        else:
            raise DataError(f"column {field.name!r} is missing; the table has {table.column_names}")
        if not field.nullable and column.null_count:
            raise DataError(f"column {field.name!r} holds {column.null_count} nulls and must hold none")
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)
