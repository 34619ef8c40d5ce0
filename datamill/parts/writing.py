"""Writing parts: where one ends and the next begins is decided by the samples themselves.

A part ends after a sample whose id's hash is small enough. So an inserted, changed or removed sample changes its own
part and leaves the others as they were, whatever was done before: equal samples give equal parts, with or without a
history.

Source of the cutting rule: A. Muthitacharoen, B. Chen, D. Mazieres, "A Low-bandwidth Network File System", 2001.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill import files
from datamill.errors import DataError
from datamill.parts.manifest import MANIFEST, MAX_ROWS, Manifest, Part, is_whole, known_parts
from datamill.parts.parquet import READ_ROWS, PartFile, payload_bytes
from datamill.samples import Dataset, id_bytes

KEY_DIGITS = 24  # of its SHA-256, by which a part is named
FRESH = "fresh.parquet"  # a part that was written and is not yet named
TARGET_BYTES = 32 * 2**20  # of payload after which a part ends on average, once it has a quarter of that
MIN_BYTES, MAX_BYTES = TARGET_BYTES // 4, 2 * TARGET_BYTES
LEAST_ROW_BYTES = MAX_BYTES // MAX_ROWS  # what a small row counts for, so that small rows do not make huge parts


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
        self._part: PartFile | None = None  # the one that is being written
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
        row_bytes = payload_bytes(table)
        sizes = np.maximum(row_bytes, LEAST_ROW_BYTES)
        is_end = _hashes(table["sample_id"]) * TARGET_BYTES < sizes << 32
        totals = np.cumsum(sizes)
        start, before = 0, 0  # first row not yet in a part, and the bytes of the rows before it
        while start < table.num_rows:
            filled = self._part_bytes + totals[start:] - before
            ends = np.flatnonzero((is_end[start:] & (filled >= MIN_BYTES)) | (filled >= MAX_BYTES))
            stop = start + int(ends[0]) + 1 if ends.size else table.num_rows
            self._part = self._part or PartFile(self._folder / FRESH)
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
            files.flush_soon(self._folder / part.name)
        self._parts.append(part)


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


def _hashes(sample_ids: pa.ChunkedArray) -> NDArray[np.int64]:
    """Last 32 bits of each id, which is a hash already."""
    return id_bytes(sample_ids)[:, -4:].copy().view(">u4").ravel().astype(np.int64)
