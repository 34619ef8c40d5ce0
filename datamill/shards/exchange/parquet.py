"""Parquet as the Hugging Face hub has it: encoded images beside their classes, and the features named in the schema.

Columns: ``image`` (struct of ``bytes`` and ``path``) or ``x`` (lists of numbers), ``label`` (int64), ``sample_id``.
The schema's metadata under ``huggingface`` says that ``image`` is an image and which names the classes have.
``parquet_batches`` reads the files, ``parquet_cells`` says what stands in them.

Source: https://huggingface.co/docs/datasets, "Image feature" and "About dataset features".
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datamill.errors import DataError
from datamill.samples import IMAGE_TYPE, Dataset
from datamill.shards.exchange import parquet_cells
from datamill.shards.exchange.parquet_batches import (
    METADATA,
    ROW,
    SAMPLE_ID,
    features,
    find_names,
    iter_batches,
    opened,
)
from datamill.shards.exchange.records import Columns, Fault, Payload, Record, Wanted

ENDINGS = (".parquet", ".pq")
MAX_BYTES = 2**29
GROUP_ROWS, GROUP_BYTES = 1_000, 16 * 2**20  # of a row group: small ones let viewers and loaders skip


def file_name(split: str, number: int) -> str:
    """``train-000000.parquet``; the hub's library finds the split in the name."""
    return f"{split}-{number:06d}.parquet"


class ParquetWriter:
    """Writes one Parquet file, a row group at a time."""

    def __init__(self, stream: IO[bytes], *, dataset: Dataset | None) -> None:
        """Write to ``stream``; ``dataset`` names the classes."""
        self._stream = stream
        self._dataset = dataset
        self._writer: pq.ParquetWriter | None = None
        self._schema: pa.Schema | None = None
        self._pending: list[tuple[str, Payload, int]] = []
        self._pending_bytes = 0
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of the payloads."""
        return self._size_bytes

    def write(self, sample_id: str, payload: Payload, label: int) -> None:
        """Append one sample."""
        self._pending.append((sample_id, payload, label))
        num_bytes = len(payload) if isinstance(payload, bytes) else payload.nbytes
        self._pending_bytes += num_bytes
        self._size_bytes += num_bytes
        if len(self._pending) == GROUP_ROWS or self._pending_bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the last row group and the footer."""
        if self._pending:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        ids, payloads, labels = zip(*self._pending, strict=True)
        if self._writer is None:
            self._schema = _schema(payloads[0], dataset=self._dataset)
            self._writer = pq.ParquetWriter(
                self._stream, self._schema, compression="zstd", use_dictionary=False, write_page_checksum=True
            )
        assert self._schema is not None
        columns = [_column(payloads, kind=self._schema.field(0).type), pa.array(labels, pa.int64()), pa.array(ids)]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=len(ids))
        self._pending, self._pending_bytes = [], 0


def open_file(stream: IO[bytes], *, dataset: Dataset | None) -> ParquetWriter:
    """A writer of one file."""
    return ParquetWriter(stream, dataset=dataset)


def finish(folder: Path, *, split: str, names: list[str]) -> None:
    """Parquet files describe themselves."""


def class_names(stream: IO[bytes], *, name: str, wanted: Wanted) -> tuple[str, ...] | None:
    """The names in the feature of the label, if the file comes from the hub's library or from here.

    Raises:
        DataError: It is no Parquet file, or has no such column.
    """
    with opened(stream, name=name) as file:
        found = find_names(file.schema_arrow, name=name, wanted=wanted)
        names = features(file.schema_arrow).get(found.label, {}).get("names")
    is_list = isinstance(names, list) and all(isinstance(one, str) for one in names)
    return tuple(names) if is_list and names else None


def read(stream: IO[bytes], *, name: str, wanted: Wanted) -> Iterator[Record | Fault]:
    """Every row.

    Raises:
        DataError: The file is damaged or cut, a page does not match its checksum, or columns are missing.
    """
    for batch in iter_batches(stream, name=name, wanted=wanted):
        yield from parquet_cells.records(batch, wanted=wanted)


def read_columns(stream: IO[bytes], *, name: str, wanted: Wanted) -> Iterator[Columns]:
    """The same as columns.

    Raises:
        DataError: As ``read``.
    """
    for batch in iter_batches(stream, name=name, wanted=wanted):
        yield parquet_cells.columns(batch, wanted=wanted)


def _schema(payload: Payload, *, dataset: Dataset | None) -> pa.Schema:
    if isinstance(payload, bytes):
        column = pa.field("image", IMAGE_TYPE)
        feature: dict[str, Any] = {"_type": "Image"}
    else:
        column, feature = _row_column(payload)
    classes = () if dataset is None else dataset.classes
    label = {"names": list(classes), "_type": "ClassLabel"} if classes else {"dtype": "int64", "_type": "Value"}
    features = {column.name: feature, "label": label, SAMPLE_ID: {"dtype": "string", "_type": "Value"}}
    metadata = {METADATA: json.dumps({"info": {"features": features}}, ensure_ascii=False).encode()}
    return pa.schema([column, pa.field("label", pa.int64()), pa.field(SAMPLE_ID, pa.string())], metadata=metadata)


def _row_column(row: NDArray[Any]) -> tuple[pa.Field, dict[str, Any]]:
    """Lists of fixed length for rows of one dimension, nested ones for more; the hub knows five at most."""
    value = pa.from_numpy_dtype(row.dtype)
    dtype = row.dtype.name
    if not 1 <= row.ndim <= 5:
        raise DataError(f"Parquet takes rows of 1 to 5 dimensions, not of shape {row.shape}; choose another format")
    if row.ndim == 1:
        feature = {"feature": {"dtype": dtype, "_type": "Value"}, "length": len(row), "_type": "Sequence"}
        return pa.field(ROW, pa.list_(value, len(row))), feature
    kind = value
    for _ in row.shape:
        kind = pa.list_(kind)
    return pa.field(ROW, kind), {"shape": list(row.shape), "dtype": dtype, "_type": f"Array{row.ndim}D"}


def _column(payloads: Sequence[Payload], *, kind: pa.DataType) -> pa.Array:
    if isinstance(payloads[0], bytes):
        return pa.array([{"bytes": payload, "path": None} for payload in payloads], kind)
    rows = np.stack([np.asarray(payload) for payload in payloads])
    values = pa.array(rows.ravel())
    if rows.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(values, rows.shape[1])
    for axis in range(rows.ndim - 1, 0, -1):
        count = int(np.prod(rows.shape[:axis]))
        offsets = pa.array(np.arange(count + 1, dtype=np.int32) * rows.shape[axis])
        values = pa.ListArray.from_arrays(offsets, values)
    return values
