"""What stands in the rows of a Parquet file: classes by number or name, encoded images, rows of numbers."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill.shards.exchange.parquet_batches import SAMPLE_ID, Batch, Names
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

UNKNOWN = -1  # the hub's number for a sample without class
NO_LABEL = ("no_label", "the class is empty, or neither a number nor a name")
NO_IMAGE = ("no_image", "the row holds no bytes; where it names a file instead, embed the images")


def records(batch: Batch, *, wanted: Wanted) -> Iterator[Record | Fault]:
    """The rows, one after the other."""
    images = None if SAMPLE_ID in batch.cells else _images(batch, wanted=wanted)
    return _records(batch, wanted=wanted) if images is None else records_of(images)


def columns(batch: Batch, *, wanted: Wanted) -> Columns:
    """The rows as columns."""
    return _images(batch, wanted=wanted) or columns_of(list(_records(batch, wanted=wanted)))


def _records(batch: Batch, *, wanted: Wanted) -> Iterator[Record | Fault]:
    for place, *cells in zip(batch.places.to_pylist(), *batch.cells.values(), strict=True):
        row = dict(zip(batch.cells, cells, strict=True))
        yield _record(row, names=batch.names, place=place, wanted=wanted, shape=batch.shape)


def _images(batch: Batch, *, wanted: Wanted) -> Columns | None:
    """The rows as columns; ``None`` where the payload is no column of encoded images."""
    labels = batch.cells[batch.names.label]
    codes, distinct = _codes(labels)
    faults = dict.fromkeys(np.flatnonzero(codes < 0).tolist(), NO_LABEL)
    if not wanted.payloads:
        return Columns(batch.places, pa.nulls(len(codes), pa.binary()), codes, distinct, faults)
    payloads = batch.cells[batch.names.payload]
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


def _record(cells: Mapping[str, pa.Scalar], *, names: Names, place: str, wanted: Wanted, shape: Any) -> Record | Fault:
    label = _label(cells[names.label])
    if label is None:
        return Fault(place, *NO_LABEL)
    sample_id = known_id(_text(cells[SAMPLE_ID])) if SAMPLE_ID in cells else None
    if not wanted.payloads:
        return Record(place, None, label, sample_id)
    payload = _payload(cells[names.payload], place=place, shape=shape)
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
