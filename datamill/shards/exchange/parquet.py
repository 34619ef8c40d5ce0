"""Parquet as the Hugging Face hub has it: encoded images beside their classes, and the features named in the schema.

Columns: ``image`` (struct of ``bytes`` and ``path``) or ``x`` (lists of numbers), ``label`` (int64), ``sample_id``.
The schema's metadata under ``huggingface`` says that ``image`` is an image and which names the classes have.

Source: https://huggingface.co/docs/datasets, "Image feature" and "About dataset features".
"""

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datamill.errors import DataError
from datamill.samples import IMAGE_TYPE, Dataset
from datamill.shards.exchange.records import (
    Fault,
    Label,
    Payload,
    Record,
    Wanted,
    known_id,
    parse_label,
    too_large,
)

ENDINGS = (".parquet", ".pq")
MAX_BYTES = 2**29
GROUP_ROWS, GROUP_BYTES = 1_000, 16 * 2**20  # of a row group: small ones let viewers and loaders skip
READ_ROWS = 64
BUFFER_BYTES = 2**20
MAX_PATH_BYTES = 1024
MAX_GROUP_BYTES = 2**31  # unpacked; a larger row group is refused before it is read
METADATA = b"huggingface"
IMAGES = ("image", "img")
LABELS = ("label", "labels")
ROW = "x"
SAMPLE_ID = "sample_id"
UNKNOWN = -1  # the hub's number for a sample without class


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
    with _opened(stream, name=name) as file:
        columns = _columns(file.schema_arrow, name=name, wanted=wanted)
        names = _features(file.schema_arrow).get(columns.label, {}).get("names")
    is_list = isinstance(names, list) and all(isinstance(one, str) for one in names)
    return tuple(names) if is_list and names else None


def read(stream: IO[bytes], *, name: str, wanted: Wanted) -> Iterator[Record | Fault]:
    """Every row.

    Raises:
        DataError: The file is damaged or cut, a page does not match its checksum, or columns are missing.
    """
    with _opened(stream, name=name) as file:
        columns = _columns(file.schema_arrow, name=name, wanted=wanted)
        _check_groups(file, name=name)
        shape = _features(file.schema_arrow).get(columns.payload, {}).get("shape")
        names = [columns.payload] if wanted.payloads else []
        names += [columns.label, *([SAMPLE_ID] if SAMPLE_ID in file.schema_arrow.names else [])]
        places = _Places(name)
        for batch in file.iter_batches(batch_size=READ_ROWS, columns=names, use_threads=False):
            plain = [_plain(column) for column in batch.columns]
            where = places.of(plain[0] if wanted.payloads else None, count=batch.num_rows)
            simple = _simple(dict(zip(names, plain, strict=True)), columns=columns) if wanted.payloads else None
            if simple is not None:
                yield from _sized(map(Record, where, *simple), wanted=wanted)
                continue
            for place, *cells in zip(where, *plain, strict=True):
                row = dict(zip(names, cells, strict=True))
                yield _record(row, columns=columns, place=place, wanted=wanted, shape=shape)


class _Columns(NamedTuple):
    payload: str
    label: str


class _Places:
    """Names of rows: by the path of the image where it has one of its own, so that removed rows rename no other."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._number = 0
        self._seen: set[str] = set()

    def of(self, payload: pa.Array | None, *, count: int) -> list[str]:
        """Places of the next rows."""
        numbers = range(self._number, self._number + count)
        self._number += count
        paths: list[bytes | None] = [None] * count
        if payload is not None and pa.types.is_struct(payload.type) and "path" in payload.type.names:
            column = pc.struct_field(payload, "path")
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                paths = column.cast(pa.binary()).to_pylist()  # a foreign file need not have checked its text
        return [self._place(path, number) for path, number in zip(paths, numbers, strict=True)]

    def _place(self, path: bytes | None, number: int) -> str:
        key = str(number)
        if path and len(path) <= MAX_PATH_BYTES:
            text = path.decode("utf-8", "backslashreplace")
            key = text if text not in self._seen else f"{number}#{text}"
            self._seen.add(text)
        return f"{self._name}#{key}"


def _simple(
    columns_by_name: Mapping[str, pa.Array], *, columns: _Columns
) -> tuple[list[bytes], list[int], list[str | None]] | None:
    """Payloads, classes and ids of rows in which nothing is missing or odd; ``None`` where they must be looked at."""
    payload, label = columns_by_name[columns.payload], columns_by_name[columns.label]
    if pa.types.is_struct(payload.type) and "bytes" in payload.type.names and not payload.null_count:
        payload = pc.struct_field(payload, "bytes")
    is_plain = pa.types.is_binary(payload.type) and pa.types.is_integer(label.type) and SAMPLE_ID not in columns_by_name
    if not is_plain or payload.null_count or label.null_count or pc.any(pc.less(label, 0)).as_py():
        return None
    return payload.to_pylist(), label.to_pylist(), [None] * len(payload)


def _sized(records: Iterable[Record], *, wanted: Wanted) -> Iterator[Record | Fault]:
    for record in records:
        assert isinstance(record.payload, bytes)
        is_large = len(record.payload) > wanted.max_bytes
        yield too_large(record.place, num_bytes=len(record.payload), wanted=wanted) if is_large else record


@contextlib.contextmanager
def _opened(stream: IO[bytes], *, name: str) -> Iterator[pq.ParquetFile]:
    try:
        yield pq.ParquetFile(stream, page_checksum_verification=True, pre_buffer=False, buffer_size=BUFFER_BYTES)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{name} is no whole Parquet file: {reason}; get the file again") from error


def _columns(schema: pa.Schema, *, name: str, wanted: Wanted) -> _Columns:
    payloads = (*IMAGES, ROW) if wanted.image is None else (wanted.image,)
    labels = LABELS if wanted.label is None else (wanted.label,)
    found = [next((one for one in names if schema.names.count(one) == 1), None) for names in (payloads, labels)]
    if None in found:
        missing = payloads if found[0] is None else labels
        raise DataError(f"{name} has no column {' or '.join(missing)}; its columns are {schema.names}")
    return _Columns(str(found[0]), str(found[1]))


def _check_groups(file: pq.ParquetFile, *, name: str) -> None:
    for number in range(file.num_row_groups):
        num_bytes = file.metadata.row_group(number).total_byte_size
        if num_bytes > MAX_GROUP_BYTES:
            raise DataError(
                f"{name}: row group {number} unpacks to {num_bytes} bytes, more than {MAX_GROUP_BYTES}; "
                "write it again in smaller row groups"
            )


def _record(
    cells: Mapping[str, pa.Scalar], *, columns: _Columns, place: str, wanted: Wanted, shape: Any
) -> Record | Fault:
    label = _label(cells[columns.label])
    if label is None:
        return Fault(place, "no_label", "the class is empty, or neither a number nor a name")
    sample_id = known_id(_text(cells[SAMPLE_ID])) if SAMPLE_ID in cells else None
    if not wanted.payloads:
        return Record(place, None, label, sample_id)
    payload = _payload(cells[columns.payload], place=place, shape=shape)
    if isinstance(payload, Fault):
        return payload
    num_bytes = len(payload) if isinstance(payload, bytes) else payload.nbytes
    if num_bytes > wanted.max_bytes:
        return too_large(place, num_bytes=num_bytes, wanted=wanted)
    return Record(place, payload, label, sample_id)


def _label(cell: pa.Scalar) -> Label | None:
    if pa.types.is_integer(cell.type):
        return None if cell.as_py() == UNKNOWN else cell.as_py()
    text = _text(cell)
    return None if text is None else parse_label(text)


def _payload(cell: pa.Scalar, *, place: str, shape: Any) -> Payload | Fault:
    if pa.types.is_struct(cell.type) and cell.is_valid and "bytes" in cell.type.names:
        cell = cell["bytes"]
    if not cell.is_valid:
        return Fault(place, "no_image", "the row holds no bytes; where it names a file instead, embed the images")
    if pa.types.is_binary(cell.type) or pa.types.is_large_binary(cell.type):
        return bytes(cell.as_py())
    row = _numbers(cell.values) if _is_list(cell.type) else None
    if row is None:
        return Fault(place, "no_image", f"a cell of type {cell.type} holds no image and no row of numbers")
    if not isinstance(shape, list):
        return row
    if not all(isinstance(side, int) and side >= 0 for side in shape) or math.prod(shape) != len(row):
        return Fault(place, "unreadable", f"{len(row)} values do not fill the shape {shape}")
    return row.reshape(shape)


def _numbers(values: pa.Array) -> NDArray[Any] | None:
    """The numbers in lists of lists, flat."""
    while _is_list(values.type):
        values = values.flatten()
    is_number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    return np.asarray(values.to_numpy(zero_copy_only=False)) if is_number and not values.null_count else None


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _text(cell: pa.Scalar) -> bytes | None:
    """The bytes of a string, which a foreign file need not have checked."""
    is_text = pa.types.is_string(cell.type) or pa.types.is_large_string(cell.type)
    return cell.as_buffer().to_pybytes() if is_text and cell.is_valid else None


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """What the hub's library says of each column; empty if it says nothing that can be read."""
    try:
        content = json.loads((schema.metadata or {}).get(METADATA, b"{}"))
        features = content["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {name: one for name, one in features.items() if isinstance(one, dict)} if isinstance(features, dict) else {}


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
