"""Reading parts as streams: memory does not grow with the folder."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datamill.parts.manifest import MAX_ROWS, read_manifest
from datamill.parts.parquet import READ_ROWS

SCAN_ROWS = 1_024  # with payload, decoded at a time where few of many are wanted: memory that is used again and again


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
