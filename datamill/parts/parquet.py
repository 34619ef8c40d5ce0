"""Parquet files whose bytes depend on the rows alone, not on how they were batched."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datamill import files

READ_ROWS = 4_096  # rows of a row group, and rows decoded at a time; bounds memory, not results
GROUP_BYTES = 8 * 2**20  # of a row group, which is what has to be read for the sake of one row
DENSE_SHARE = 0.9  # of its size that compression leaves of a payload that is not worth compressing, as PNG and JPEG are
SAMPLE_BYTES = 2**18  # of a payload, by which that is told
HASHES = ("sample_id", "content_hash")  # half of their size is not worth the time it takes at every writing and reading
UNLIKE = ("sample_id", "source", "content_hash", "image.bytes")  # columns in which no value comes twice, as a rule


def write_parquet(table: pa.Table, path: Path, *, metadata: dict[str, str] | None = None) -> None:
    """Write one Parquet file whose bytes depend on the table alone."""
    schema = table.schema.with_metadata(metadata) if metadata else table.schema.remove_metadata()
    with files.atomic_write(path) as partial:
        pq.write_table(table.cast(schema), partial, row_group_size=_group_rows(table), **_encoding(table))


class RowGroups:
    """Streams tables into one Parquet file whose bytes depend on the rows alone, not on how they were batched.

    A group is written beside other work: what it takes to encode it is a good part of what a ledger costs.
    """

    def __init__(self, path: Path, *, rows: int = 16 * READ_ROWS) -> None:
        """Write ``path``, atomically, in groups of ``rows`` rows."""
        self._partial = files.atomic_write(path)
        self._rows = rows
        self._path = self._partial.__enter__()
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.Table] = []
        self._num_pending = 0
        self._thread = ThreadPoolExecutor(1, "row groups")
        self._writing: Future[None] | None = None

    def write(self, table: pa.Table) -> None:
        """Append rows; the first table's schema is that of all, and it may be empty.

        Raises:
            OSError: An earlier group could not be written.
        """
        if self._writer is None:
            table = table.replace_schema_metadata(None)
            alike = [leaf for leaf in _leaf_names(table.schema) if leaf not in UNLIKE]
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd", use_dictionary=alike)
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
            self._thread.shutdown()
            if error is None:
                self._wait()
            if self._writer is not None:
                self._writer.close()
        except BaseException as failure:
            self._partial.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._partial.__exit__(error, value, tb)

    def _write_group(self, rows: int) -> None:
        assert self._writer is not None
        table = pa.concat_tables(self._pending)
        self._wait()
        group = table.slice(0, rows).combine_chunks()
        self._writing = self._thread.submit(_encode, group, writer=self._writer)
        self._pending = [table.slice(rows)] if table.num_rows > rows else []
        self._num_pending = table.num_rows - rows

    def _wait(self) -> None:
        """Let the group before be written; one at a time is in memory."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None


def _encode(group: pa.Table, *, writer: pq.ParquetWriter) -> None:
    writer.write_table(group, row_group_size=group.num_rows)
    pa.default_memory_pool().release_unused()  # else the heap of this thread grows with the rows


class PartFile:
    """A part that is being written, a row group at a time; its bytes depend on the rows alone."""

    def __init__(self, path: Path) -> None:
        """Write ``path``, which is there once a row is."""
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


def payload_bytes(table: pa.Table) -> NDArray[np.int64]:
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


def _group_rows(table: pa.Table) -> int:
    row_bytes = max(1, int(payload_bytes(table).sum()) // max(1, table.num_rows))
    return int(min(READ_ROWS, max(1, GROUP_BYTES // row_bytes)))


def _encoding(table: pa.Table) -> dict[str, Any]:
    """How the columns are written; it depends on the rows alone."""
    leaves = _leaf_names(table.schema)
    compression = dict.fromkeys(leaves, "zstd") | dict.fromkeys(HASHES, "none")
    if "image.bytes" in leaves and _is_dense(table["image"]):
        compression["image.bytes"] = "none"
    alike = [leaf for leaf in leaves if leaf not in UNLIKE]
    return {"compression": compression, "use_dictionary": alike, "write_statistics": alike}


def _leaf_names(schema: pa.Schema) -> list[str]:
    return [leaf for field in schema for leaf in _leaves(field.name, field.type)]


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
