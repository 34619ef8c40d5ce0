"""Samples on disk: a folder of Parquet parts and a manifest that is written last.

Layout of a parts folder::

    part-00000.parquet   at most 50,000 rows and about 64 MiB, in sample order
    manifest.json        data set, rows, and name, rows, bytes and SHA-256 of every part
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from datamill import files
from datamill.errors import DataError
from datamill.samples import Dataset

MANIFEST = "manifest.json"
VERSION = 1
MAX_ROWS = 50_000
MAX_BYTES = 64 * 2**20
READ_ROWS = 4_096  # rows decoded at a time; bounds memory, not results


class Part(BaseModel):
    """One Parquet file."""

    model_config = ConfigDict(frozen=True)

    name: str
    num_rows: int
    size_bytes: int
    sha256: str


class Manifest(BaseModel):
    """The parts of a folder; a folder without it is not finished."""

    model_config = ConfigDict(frozen=True)

    version: int = VERSION
    dataset: Dataset
    num_rows: int
    parts: tuple[Part, ...]


class PartsWriter:
    """Writes tables as parts; leaving the block without an error writes the manifest."""

    def __init__(self, folder: Path, *, dataset: Dataset) -> None:
        """Start an empty parts folder; ``folder`` must not hold anything yet."""
        self._folder = folder
        self._dataset = dataset
        self._schema = dataset.arrow_schema()
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._pending_bytes = 0
        self._parts: list[Part] = []
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, table: pa.Table) -> None:
        """Append samples; columns may come in any order, missing nullable ones become null.

        Raises:
            DataError: A column is missing, has another type, or holds null where it must not.
        """
        table = conform(table, schema=self._schema)
        for start in range(0, table.num_rows, READ_ROWS):
            piece = table.slice(start, READ_ROWS)
            if self._pending_rows + piece.num_rows > MAX_ROWS or self._pending_bytes + piece.nbytes > MAX_BYTES:
                self._flush()
            self._pending.append(piece)
            self._pending_rows += piece.num_rows
            self._pending_bytes += piece.nbytes

    def __enter__(self) -> Self:
        """Start writing."""
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Finish the last part and the manifest, unless an error is on its way."""
        if error is None:
            self._flush()
            num_rows = sum(part.num_rows for part in self._parts)
            manifest = Manifest(dataset=self._dataset, num_rows=num_rows, parts=tuple(self._parts))
            files.write_json(self._folder / MANIFEST, manifest.model_dump(mode="json"))

    def _flush(self) -> None:
        if not self._pending_rows:
            return
        path = self._folder / f"part-{len(self._parts):05d}.parquet"
        write_parquet(pa.concat_tables(self._pending), path)
        self._parts.append(
            Part(
                name=path.name,
                num_rows=self._pending_rows,
                size_bytes=path.stat().st_size,
                sha256=files.sha256_file(path),
            )
        )
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0


def write_parquet(table: pa.Table, path: Path, *, metadata: dict[str, str] | None = None) -> None:
    """Write one Parquet file whose bytes depend on the table alone."""
    schema = table.schema.with_metadata(metadata) if metadata else table.schema.remove_metadata()
    with files.atomic_write(path) as partial:
        pq.write_table(table.cast(schema), partial, compression="zstd", row_group_size=READ_ROWS)


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


def iter_tables(folder: Path, *, columns: Sequence[str] | None = None, rows: int = READ_ROWS) -> Iterator[pa.Table]:
    """The samples in order, at most ``rows`` at a time; memory does not grow with the folder."""
    for part in read_manifest(folder).parts:
        with pq.ParquetFile(folder / part.name) as file:
            for batch in file.iter_batches(batch_size=rows, columns=list(columns) if columns is not None else None):
                yield pa.Table.from_batches([batch])


def read_table(folder: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    """The samples, or some of their columns, at once: for light columns and small data."""
    schema = read_manifest(folder).dataset.arrow_schema()
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    return pa.concat_tables([schema.empty_table(), *iter_tables(folder, columns=columns, rows=MAX_ROWS)])


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
