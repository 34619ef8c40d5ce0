"""Parquet as the Hugging Face hub has it: encoded images beside their classes, and the features named in the schema.

Columns: ``image`` (struct of ``bytes`` and ``path``) or ``x`` (lists of numbers), ``label`` (int64), ``sample_id``.
The schema's metadata under ``huggingface`` says that ``image`` is an image and which names the classes have.

Source: https://huggingface.co/docs/datasets, "Image feature" and "About dataset features".
"""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
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
    Columns,
    Fault,
    Label,
    Payload,
    Record,
    Wanted,
    columns_of,
    known_id,
    parse_label,
    records_of,
    too_large,
)

ENDINGS = (".parquet", ".pq")
MAX_BYTES = 2**29
GROUP_ROWS, GROUP_BYTES = 1_000, 16 * 2**20  # of a row group: small ones let viewers and loaders skip
READ_ROWS, MAX_READ_ROWS = 64, 8_192  # rows decoded at a time: more where rows are small
READ_BYTES = 2**23  # of a row group, by its own account, that MAX_READ_ROWS may be
LABEL_ROWS = 65_536
BUFFER_BYTES = 2**20
MAX_PATH_BYTES = 1024
MAX_GROUP_BYTES = 2**31  # unpacked; a larger row group is refused before it is read
METADATA = b"huggingface"
IMAGES = ("image", "img")
LABELS = ("label", "labels")
ROW = "x"
SAMPLE_ID = "sample_id"
UNKNOWN = -1  # the hub's number for a sample without class
NO_LABEL = ("no_label", "the class is empty, or neither a number nor a name")
NO_IMAGE = ("no_image", "the row holds no bytes; where it names a file instead, embed the images")


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
    for batch in _read(stream, name=name, wanted=wanted):
        columns = None if SAMPLE_ID in batch.cells else _images(batch, wanted=wanted)
        yield from _records(batch, wanted=wanted) if columns is None else records_of(columns)


def read_columns(stream: IO[bytes], *, name: str, wanted: Wanted) -> Iterator[Columns]:
    """The same as columns.

    Raises:
        DataError: As ``read``.
    """
    for batch in _read(stream, name=name, wanted=wanted):
        yield _images(batch, wanted=wanted) or columns_of(list(_records(batch, wanted=wanted)))


class _Columns(NamedTuple):
    payload: str
    label: str


class _Batch(NamedTuple):
    """Rows that follow one another."""

    places: pa.Array
    cells: Mapping[str, pa.Array]
    columns: _Columns
    shape: Any


def _read(stream: IO[bytes], *, name: str, wanted: Wanted) -> Iterator[_Batch]:
    with _opened(stream, name=name) as file:
        columns = _columns(file.schema_arrow, name=name, wanted=wanted)
        _check_groups(file, name=name)
        shape = _features(file.schema_arrow).get(columns.payload, {}).get("shape")
        names = [columns.payload] if wanted.payloads else []
        names += [columns.label, *([SAMPLE_ID] if SAMPLE_ID in file.schema_arrow.names else [])]
        places = _Places(name)
        rows = _batch_rows(file) if wanted.payloads else LABEL_ROWS
        for batch in file.iter_batches(batch_size=rows, columns=names, use_threads=False):
            plain = [_plain(column) for column in batch.columns]
            where = places.of(plain[0] if wanted.payloads else None, count=batch.num_rows)
            yield _Batch(where, dict(zip(names, plain, strict=True)), columns, shape)


def _records(batch: _Batch, *, wanted: Wanted) -> Iterator[Record | Fault]:
    for place, *cells in zip(batch.places.to_pylist(), *batch.cells.values(), strict=True):
        row = dict(zip(batch.cells, cells, strict=True))
        yield _record(row, columns=batch.columns, place=place, wanted=wanted, shape=batch.shape)


def _batch_rows(file: pq.ParquetFile) -> int:
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    row_bytes = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    return min(MAX_READ_ROWS, max(READ_ROWS, READ_BYTES // max(1, row_bytes)))


class _Places:
    """Names of rows: by the path of the image where it has one of its own, so that removed rows rename no other."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._number = 0
        self._seen: set[str] = set()

    def of(self, payload: pa.Array | None, *, count: int) -> pa.Array:
        """Places of the next rows."""
        numbers = range(self._number, self._number + count)
        self._number += count
        paths = pa.nulls(count, pa.string())
        if payload is not None and pa.types.is_struct(payload.type) and "path" in payload.type.names:
            paths = pc.struct_field(payload, "path")
        is_text = pa.types.is_string(paths.type) or pa.types.is_large_string(paths.type)
        if not is_text or paths.null_count == count:
            keys = pa.array(numbers, pa.int64()).cast(pa.string())
        else:
            keys = paths if self._are_distinct(paths) else pa.array(self._keys(paths, numbers=numbers), pa.string())
        return pc.binary_join_element_wise(self._name, keys, "#")

    def _are_distinct(self, paths: pa.Array) -> bool:
        """Whether each row has a path and it is its own."""
        try:
            some = set(paths.to_pylist())
        except UnicodeDecodeError:  # a foreign file need not have checked its text
            return False
        is_usual = pa.types.is_string(paths.type) and None not in some and "" not in some and len(some) == len(paths)
        if not is_usual or pc.max(pc.binary_length(paths)).as_py() > MAX_PATH_BYTES or not self._seen.isdisjoint(some):
            return False
        self._seen |= some
        return True

    def _keys(self, paths: pa.Array, *, numbers: Sequence[int]) -> list[str]:
        keys = []
        for path, number in zip(paths.cast(pa.large_binary()).to_pylist(), numbers, strict=True):
            key = str(number)
            if path and len(path) <= MAX_PATH_BYTES:
                text = path.decode("utf-8", "backslashreplace")
                key = text if text not in self._seen else f"{number}#{text}"
                self._seen.add(text)
            keys.append(key)
        return keys


def _images(batch: _Batch, *, wanted: Wanted) -> Columns | None:
    """The rows as columns; ``None`` where the payload is no column of encoded images."""
    labels = batch.cells[batch.columns.label]
    codes, distinct = _codes(labels)
    faults = dict.fromkeys(np.flatnonzero(codes < 0).tolist(), NO_LABEL)
    if not wanted.payloads:
        return Columns(batch.places, pa.nulls(len(codes), pa.binary()), codes, distinct, faults)
    payloads = batch.cells[batch.columns.payload]
    if pa.types.is_struct(payloads.type) and "bytes" in payloads.type.names:
        payloads = pc.struct_field(payloads, "bytes")
    if not pa.types.is_binary(payloads.type):
        return None
    sizes = pc.fill_null(pc.binary_length(payloads), -1).to_numpy()
    for row in np.flatnonzero((sizes < 0) & (codes >= 0)).tolist():
        faults[row] = NO_IMAGE
    for row in np.flatnonzero((sizes > wanted.max_bytes) & (codes >= 0)).tolist():
        faults[row] = too_large("", num_bytes=int(sizes[row]), wanted=wanted)[1:]
    return Columns(batch.places, payloads, codes, distinct, faults)


def _codes(labels: pa.Array) -> tuple[NDArray[np.int32], list[Label]]:
    """Place of each row's class among those that occur, -1 where it has none; and those."""
    is_text = pa.types.is_string(labels.type) or pa.types.is_large_string(labels.type)
    if not is_text and not pa.types.is_integer(labels.type):
        return np.full(len(labels), -1, np.int32), []
    encoded = labels.dictionary_encode()
    words = encoded.dictionary
    some = [parse_label(word) for word in words.cast(pa.large_binary()).to_pylist()] if is_text else words.to_pylist()
    classes = [None if label == UNKNOWN and not is_text else label for label in some]
    known = [label for label in classes if label is not None]
    places = np.cumsum([label is not None for label in classes], dtype=np.int32) - 1
    places[[label is None for label in classes]] = -1
    codes = np.append(places, np.int32(-1))[pc.fill_null(encoded.indices, len(words)).to_numpy()]
    return codes.astype(np.int32), known


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
        return Fault(place, *NO_LABEL)
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
        return Fault(place, *NO_IMAGE)
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
