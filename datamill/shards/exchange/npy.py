"""Rows as NPY files without pickles."""

import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

KINDS = "biuf"
NUMBER_TYPES = frozenset(
    ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
)


def encode(row: NDArray[Any]) -> bytes:
    """One row as an NPY file."""
    buffer = io.BytesIO()
    np.save(buffer, row, allow_pickle=False)
    return buffer.getvalue()


def decode(content: bytes) -> NDArray[Any] | None:
    """The row of an NPY file; ``None`` if it is damaged, of another size than it says, or no array of numbers."""
    stream = io.BytesIO(content)
    try:
        version = npy_format.read_magic(stream)
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, is_fortran, dtype = read(stream)
    except (ValueError, EOFError, SyntaxError):
        return None
    body = content[stream.tell() :]
    if dtype.kind not in KINDS or math.prod(shape) * dtype.itemsize != len(body):
        return None
    return np.frombuffer(body, dtype).reshape(shape, order="F" if is_fortran else "C")


def number_type(name: bytes | str) -> np.dtype[Any] | None:
    """The little-endian type of numbers of this name; ``None`` if it names none."""
    text = name.decode("ascii", "replace") if isinstance(name, bytes) else name
    return np.dtype(text).newbyteorder("<") if text in NUMBER_TYPES else None
