"""What is known of every sample from one look at its payload: a folder that belongs to a parts folder.

Layout of a features folder::

    <key>.parquet   one row per sample of the samples' part of that key, in its order
    manifest.json   as that of a parts folder, and the digest of the code that made it

Columns: ``sample_id``, ``content_hash``, and the modality's features (``Modality.features``).
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from datamill import files, parts
from datamill.errors import DataError
from datamill.modalities import modality_of
from datamill.parts import Part
from datamill.samples import Dataset

IDENTITY = ("sample_id", "content_hash")
ENCODING: dict[str, Any] = {  # hashes and thumbnails hardly shrink, and took half of the time of writing
    "compression": dict.fromkeys(("size_bytes", "pixel_mean", "moments.list.element"), "lz4"),
    "use_dictionary": ["height", "width", "channels"],
    "write_statistics": False,
}


class Manifest(parts.Manifest):
    """The files of a folder; a folder without it is not finished."""

    code: str
    """Digest of the code that looked; what other code found is not reused."""


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a features folder.

    Raises:
        DataError: It is missing, damaged, of another version, or names a file that is missing or has another size.
    """
    parts.read_manifest(folder)
    try:
        return Manifest.model_validate_json((folder / parts.MANIFEST).read_bytes())
    except ValidationError as error:
        raise DataError(f"{folder / parts.MANIFEST} is not that of a features folder; run extract again") from error


def iter_tables(
    folder: Path, *, columns: Sequence[str] | None = None, rows: int = parts.READ_ROWS
) -> Iterator[pa.Table]:
    """The features in sample order, at most ``rows`` rows at a time; memory does not grow with the folder."""
    return parts.iter_tables(folder, columns=columns, rows=rows)


def look(table: pa.Table, *, dataset: Dataset) -> pa.Table:
    """Features of samples, which ``table`` holds with their payload; without their identity."""
    return modality_of(dataset).features(table, dataset=dataset)


def write_file(folder: Path, tables: Iterable[pa.Table], *, key: str) -> Part:
    """Write the features of the samples' part ``key``; the bytes depend on the rows alone.

    Args:
        folder: Of the features.
        tables: The rows in order, at least one; a group of them is in memory at a time.
        key: Of the part.
    """
    path = folder / f"{key}.parquet"
    num_rows = 0
    with files.atomic_write(path) as partial, contextlib.ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for table in parts.regrouped(tables, rows=parts.READ_ROWS):
            if writer is None:
                writer = pq.ParquetWriter(partial, _as_read(table.schema), **ENCODING)
                stack.enter_context(writer)
            writer.write_table(table.combine_chunks())
            num_rows += table.num_rows
    return Part(key=key, num_rows=num_rows, size_bytes=path.stat().st_size, sha256=files.sha256_file(path))


def _as_read(schema: pa.Schema) -> pa.Schema:
    """``schema`` with the items of lists of one length called as in Parquet: pickled, they forget what they are called.

    The name is in the file, so its bytes would tell whether a worker had looked, or this process.
    """
    for place, field in enumerate(schema):
        if pa.types.is_fixed_size_list(field.type):
            item = field.type.value_field.with_name("element")
            schema = schema.set(place, field.with_type(pa.list_(item, field.type.list_size)))
    return schema
