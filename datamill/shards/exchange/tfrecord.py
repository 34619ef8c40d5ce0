"""TFRecord files of ``Example`` messages, as TensorFlow, DALI and JAX's loaders read them; TensorFlow is not needed.

A record is its length (8 bytes, little-endian), the masked CRC-32C of these, the message, and its masked CRC-32C.
Features of an image: ``image/encoded``, ``image/format``, ``image/class/label`` and ``image/class/text``, the names of
TensorFlow's own ImageNet records. Of a row: ``x`` (floats, or raw little-endian bytes), ``x/dtype``, ``x/shape``,
``label``. Every sample has ``sample_id``.

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details".
"""

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from datamill.errors import DataError
from datamill.modalities import image
from datamill.samples import Dataset
from datamill.shards.exchange import example, npy
from datamill.shards.exchange.records import (
    Fault,
    Label,
    Payload,
    Record,
    Wanted,
    known_id,
    parse_label,
    printable,
    read_up_to,
    skip,
    too_large,
)

ENDINGS = (".tfrecord", ".tfrecords", ".tfrecord.gz", ".tfrecords.gz")
MAX_BYTES = 2**28
SHOWN = 20  # names of features that a message repeats, and characters of each
OVERHEAD_BYTES = 2**16  # what a message may hold besides its payload
LENGTH = struct.Struct("<Q")
CRC = struct.Struct("<I")
HEAD_BYTES = LENGTH.size + CRC.size
IMAGES = ("image/encoded", "image")
LABELS = ("image/class/label", "label")
ROW, DTYPE, SHAPE = "x", "x/dtype", "x/shape"
SAMPLE_ID = "sample_id"


def file_name(split: str, number: int) -> str:
    """``train-000000.tfrecord``."""
    return f"{split}-{number:06d}.tfrecord"


def masked_crc32c(data: bytes) -> int:
    """CRC-32C as the format stores it: rotated, and moved by a constant."""
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


class RecordWriter:
    """Writes one TFRecord file."""

    def __init__(self, stream: IO[bytes], *, dataset: Dataset | None) -> None:
        """Write to ``stream``; ``dataset`` names the classes."""
        self._stream = stream
        self._classes = () if dataset is None else dataset.classes
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Bytes written."""
        return self._size_bytes

    def write(self, sample_id: str, payload: Payload, label: int) -> None:
        """Append one sample."""
        features: dict[str, example.Value] = {SAMPLE_ID: [sample_id.encode()]}
        if isinstance(payload, bytes):
            features |= {
                "image/encoded": [payload],
                "image/format": [image.read_header(payload).format.lower().encode()],
                "image/class/label": np.array([label], np.int64),
            }
            if self._classes:
                features["image/class/text"] = [self._classes[label].encode()]
        else:
            features |= {**_row_features(payload), "label": np.array([label], np.int64)}
        self._append(example.encode(features))

    def close(self) -> None:
        """Nothing follows the last record."""

    def _append(self, message: bytes) -> None:
        length = LENGTH.pack(len(message))
        head = length + CRC.pack(masked_crc32c(length))
        self._stream.write(head + message + CRC.pack(masked_crc32c(message)))
        self._size_bytes += len(head) + len(message) + CRC.size


def open_file(stream: IO[bytes], *, dataset: Dataset | None) -> RecordWriter:
    """A writer of one file."""
    return RecordWriter(stream, dataset=dataset)


def finish(folder: Path, *, split: str, names: list[str]) -> None:
    """TFRecords need no description."""


def class_names(stream: IO[bytes], *, name: str, wanted: Wanted) -> None:
    """A TFRecord does not list its classes."""


def read(stream: IO[bytes], *, name: str, wanted: Wanted) -> Iterator[Record | Fault]:
    """Every record; one whose content does not match its checksum is a fault.

    Raises:
        DataError: A length does not match its checksum, or the file is cut, so that the next record cannot be found.
    """
    number, start = 0, 0
    while head := read_up_to(stream, HEAD_BYTES):
        if len(head) < HEAD_BYTES:
            raise _cut(name, start=start)
        (length,), (crc,) = LENGTH.unpack_from(head), CRC.unpack_from(head, LENGTH.size)
        if masked_crc32c(head[: LENGTH.size]) != crc:
            raise DataError(
                f"{name}: the length of the record at byte {start} does not match its checksum; get it again"
            )
        place = f"{name}#{number}"
        if length > wanted.max_bytes + OVERHEAD_BYTES:
            if skip(stream, length + CRC.size) < length + CRC.size:
                raise _cut(name, start=start)
            yield too_large(place, num_bytes=length, wanted=wanted)
        else:
            body = read_up_to(stream, length + CRC.size)
            if len(body) < length + CRC.size:
                raise _cut(name, start=start)
            message = body[:length]
            if masked_crc32c(message) == CRC.unpack_from(body, length)[0]:
                yield _record(message, place=place, wanted=wanted)
            else:
                yield Fault(place, "checksum", f"the {length} bytes at byte {start + HEAD_BYTES} do not match theirs")
        number += 1
        start += HEAD_BYTES + length + CRC.size


def _record(message: bytes, *, place: str, wanted: Wanted) -> Record | Fault:
    images = IMAGES if wanted.image is None else (wanted.image,)
    labels = LABELS if wanted.label is None else (wanted.label,)
    try:
        features = example.decode(message, wanted=(*images, *labels, ROW, DTYPE, SHAPE, SAMPLE_ID))
        label = _label(features, names=labels)
    except ValueError as error:
        return Fault(place, "unreadable", f"no Example message: {error}")
    payload = _payload(features, names=images, place=place)
    if isinstance(payload, Fault):
        return payload
    if label is None:
        return Fault(place, "no_label", f"none, or several, among the features {_named(features)}")
    num_bytes = len(payload) if isinstance(payload, bytes) else payload.nbytes
    if num_bytes > wanted.max_bytes:
        return too_large(place, num_bytes=num_bytes, wanted=wanted)
    ids = features.get(SAMPLE_ID, [])
    sample_id = known_id(ids[0]) if len(ids) == 1 and isinstance(ids[0], bytes) else None
    return Record(place, payload if wanted.payloads else None, label, sample_id)


def _label(features: Mapping[str, Any], *, names: tuple[str, ...]) -> Label | None:
    values = example.first(features, names)
    if values is None or len(values) != 1:
        return None
    value = values[0]
    if isinstance(value, bytes):
        return parse_label(value)
    return int(value) if isinstance(value, np.integer) else None


def _payload(features: Mapping[str, Any], *, names: tuple[str, ...], place: str) -> Payload | Fault:
    images = example.first(features, names)
    if images is None and ROW in features:
        return _row(features, place=place)
    if images is None or not isinstance(images[0], bytes):
        return Fault(place, "no_image", f"none of {', '.join(names)} among the features {_named(features)}")
    if len(images) != 1:
        return Fault(place, "two_images", f"{len(images)} images in one record")
    return images[0]


def _named(features: Mapping[str, Any]) -> str:
    """The first of the names, in order, as far as a message has room for them."""
    names = [printable(name[:SHOWN]) for name in sorted(features)]
    return ", ".join(names[:SHOWN]) + f" and {len(names) - SHOWN} more" * (len(names) > SHOWN)


def _row_features(row: NDArray[Any]) -> dict[str, example.Value]:
    little = row.astype(row.dtype.newbyteorder("<"), copy=False)
    is_float = row.dtype == np.float32
    return {
        ROW: np.ascontiguousarray(little).ravel() if is_float else [little.tobytes()],
        DTYPE: [row.dtype.name.encode()],
        SHAPE: np.array(row.shape, np.int64),
    }


def _row(features: Mapping[str, Any], *, place: str) -> Payload | Fault:
    values, shape = features[ROW], features.get(SHAPE)
    if isinstance(values, np.ndarray):
        row: NDArray[Any] = values
    else:
        names = features.get(DTYPE, [])
        dtype = npy.number_type(names[0]) if len(names) == 1 and isinstance(names[0], bytes) else None
        if dtype is None or len(values) != 1 or len(values[0]) % dtype.itemsize:
            return Fault(place, "unreadable", f"{ROW} holds bytes that {DTYPE} does not explain")
        row = np.frombuffer(values[0], dtype)
    sides = [len(row)] if not isinstance(shape, np.ndarray) else [int(side) for side in shape.tolist()]
    if min(sides, default=0) < 0 or math.prod(sides) != len(row):
        return Fault(place, "unreadable", f"{len(row)} values do not fill the shape {sides}")
    return row.reshape(sides)


def _cut(name: str, *, start: int) -> DataError:
    return DataError(f"{name} is truncated: it ends within the record at byte {start}; get the file again")
