"""TensorFlow's ``Example`` messages, written and read without TensorFlow: a map from names to lists of values.

Only what the message needs of Protocol Buffers is here: fields of known numbers, of which all but scalars are bytes of
a given length. Names are written in sorted order, so equal samples give equal bytes.

Source: https://github.com/tensorflow/tensorflow, ``core/example/example.proto`` and ``feature.proto``; "Protocol
Buffers Encoding".
"""

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

Value = Sequence[bytes] | NDArray[np.float32] | NDArray[np.int64]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # kinds of fields on the wire
BYTES_LIST, FLOAT_LIST, INT64_LIST = 1, 2, 3  # numbers of the fields of a Feature
MAX_VARINT_BYTES = 10
MAX_FEATURES, MAX_VALUES = 2**16, 2**20  # of a message and of a feature; bytes and packed floats count as one


def encode(features: Mapping[str, Value]) -> bytes:
    """The message with these features; float32 and int64 arrays have one dimension."""
    entries = (_field(1, _field(1, name.encode()) + _field(2, _feature(features[name]))) for name in sorted(features))
    return _field(1, b"".join(entries))


def decode(message: bytes, *, wanted: Collection[str] | None = None) -> dict[str, Value]:
    """The features of a message.

    Args:
        message: Bytes that may be anything.
        wanted: Features whose values matter, all when not given; the others are named and have none.

    Raises:
        ValueError: It is no such message, or has more features or values than ``MAX_FEATURES`` and ``MAX_VALUES``.
    """
    found: dict[str, Value] = {}
    for number, features in _fields(message):
        if number != 1 or not isinstance(features, bytes):
            continue
        for entry_number, entry in _fields(features):
            if entry_number == 1 and isinstance(entry, bytes):
                parts = dict(_fields(entry))
                name, feature = parts.get(1, b""), parts.get(2, b"")
                if not isinstance(name, bytes) or not isinstance(feature, bytes):
                    raise ValueError("a feature's name or value is no message")
                if len(found) == MAX_FEATURES:
                    raise ValueError(f"more than {MAX_FEATURES} features")
                key = name.decode()
                found[key] = _values(feature) if wanted is None or key in wanted else []
    return found


def _feature(value: Value) -> bytes:
    if not isinstance(value, np.ndarray):
        return _field(BYTES_LIST, b"".join(_field(1, item) for item in value))
    if value.dtype == np.float32:
        return _field(FLOAT_LIST, _field(1, value.astype("<f4", copy=False).tobytes()))
    assert value.dtype == np.int64, value.dtype
    packed = b"".join(_varint(number & (2**64 - 1)) for number in value.tolist())
    return _field(INT64_LIST, _field(1, packed))


def _values(feature: bytes) -> Value:
    values: Value = []
    for number, content in _fields(feature):
        if not isinstance(content, bytes):
            raise ValueError("a feature is no list of values")
        items = [item for item_number, item in islice(_fields(content), MAX_VALUES + 1) if item_number == 1]
        if len(items) > MAX_VALUES or any(map(_is_long, items if number == INT64_LIST else ())):
            raise ValueError(f"a feature has more than {MAX_VALUES} values")
        if number == BYTES_LIST:
            values = [item for item in items if isinstance(item, bytes)]
        elif number == FLOAT_LIST:
            packed = b"".join(
                item if isinstance(item, bytes) else struct.pack("<I", item & 0xFFFFFFFF) for item in items
            )
            values = np.frombuffer(packed, "<f4").astype(np.float32, copy=False)
        elif number == INT64_LIST:
            values = np.array([one for item in items for one in _integers(item)], np.uint64).astype(np.int64)
    return values


def _is_long(item: bytes | int) -> bool:
    """Whether a packed list holds more numbers than it may; the last byte of each is below 0x80."""
    return isinstance(item, bytes) and np.count_nonzero(np.frombuffer(item, np.uint8) < 0x80) > MAX_VALUES


def _integers(item: bytes | int) -> Iterator[int]:
    if isinstance(item, int):
        yield item
        return
    start = 0
    while start < len(item):
        number, start = _read_varint(item, start)
        yield number


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Number and content of each field; scalars as integers."""
    start = 0
    while start < len(message):
        key, start = _read_varint(message, start)
        kind, content = key & 7, 0
        if kind == VARINT:
            content, start = _read_varint(message, start)
            yield key >> 3, content
            continue
        if kind == BYTES:
            length, start = _read_varint(message, start)
        else:
            length = {FIXED32: 4, FIXED64: 8}.get(kind, -1)
        if length < 0 or start + length > len(message):
            raise ValueError(f"a field of kind {kind} at byte {start} does not fit its message")
        piece = message[start : start + length]
        yield key >> 3, piece if kind == BYTES else int.from_bytes(piece, "little")
        start += length


def _read_varint(message: bytes, start: int) -> tuple[int, int]:
    """The number that starts there, and where it ends."""
    number = 0
    for place in range(MAX_VARINT_BYTES):
        if start + place >= len(message):
            break
        byte = message[start + place]
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number & (2**64 - 1), start + place + 1
    raise ValueError(f"a number at byte {start} does not end")


def _varint(number: int) -> bytes:
    content = bytearray()
    while number > 0x7F:
        content.append(number & 0x7F | 0x80)
        number >>= 7
    content.append(number)
    return bytes(content)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | BYTES) + _varint(len(content)) + content


def first(features: Mapping[str, Any], names: Sequence[str]) -> Value | None:
    """The first of these features that is there and not empty."""
    return next((features[name] for name in names if name in features and len(features[name])), None)
