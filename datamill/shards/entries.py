"""The entries of a shard's index: what a row of a field is, and the flat files in which rows lie.

Plain dataclasses: see ``members`` for why they are checked by hand.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import numpy as np
from numpy.typing import DTypeLike

from datamill.shards import members

KINDS = ("array", "bytes", "ragged")
DTYPES = ("|b1", "|i1", "|u1", "<i2", "<u2", "<f2", "<i4", "<u4", "<f4", "<i8", "<u8", "<f8")
KEY = re.compile(r"[0-9a-f]{1,64}")
OFFSET = np.dtype("<u8")


@dataclass(frozen=True)
class Field:
    """What one row of a field is; made by ``Field.array``, ``Field.bytes`` and ``Field.ragged``.

    Attributes:
        kind: ``array``, ``bytes`` or ``ragged``.
        dtype: As NumPy writes it, little-endian.
        shape: Of a row of an ``array``; of one element of a ``ragged`` row; () for ``bytes``.
    """

    kind: Literal["array", "bytes", "ragged"]
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def array(cls, dtype: DTypeLike, shape: tuple[int, ...] = ()) -> Self:
        """Rows of one shape: images, tables, labels.

        Raises:
            ValueError: The dtype is none of ``DTYPES``.
        """
        return cls(kind="array", dtype=_little(dtype), shape=tuple(shape))

    @classmethod
    def ragged(cls, dtype: DTypeLike, shape: tuple[int, ...] = ()) -> Self:
        """Rows of any length along their first axis, each element of ``shape``: tokens, audio.

        Raises:
            ValueError: The dtype is none of ``DTYPES``.
        """
        return cls(kind="ragged", dtype=_little(dtype), shape=tuple(shape))

    @classmethod
    def bytes(cls) -> Self:
        """Rows of any number of bytes: encoded images."""
        return cls(kind="bytes", dtype="|u1", shape=())

    @classmethod
    def read(cls, content: Any) -> Self:
        """The field that a piece of JSON describes."""
        kind, dtype, shape = members.values_of(content, cls)
        sides = tuple(members.number(side, least=1) for side in members.listed(shape, limit=8))
        return cls(kind=cast(Any, members.one_of(kind, KINDS)), dtype=members.one_of(dtype, DTYPES), shape=sides)

    @property
    def element_bytes(self) -> int:
        """Size of a row of an ``array``, of one element of the others."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class File:
    """One flat file and its checksums.

    Attributes:
        name: In the shard's folder.
        size_bytes: Its size.
        crc32: CRC-32 of each block of ``block_bytes`` bytes; the last block may be shorter.
        probe: CRC-32 of the few bytes that opening compares; ``integrity.probe_ranges`` says which.
    """

    name: str
    size_bytes: int
    crc32: tuple[int, ...]
    probe: int

    @classmethod
    def read(cls, content: Any) -> Self:
        """The file that a piece of JSON describes."""
        name, size_bytes, crc32, probe = members.values_of(content, cls)
        sums = members.listed(crc32)
        if not all(type(one) is int and 0 <= one < 2**32 for one in sums):
            raise ValueError("a checksum is no number of 32 bits")
        return cls(members.text(name), members.number(size_bytes), tuple(sums), members.number(probe, most=2**32 - 1))


@dataclass(frozen=True)
class Segment:
    """Consecutive rows of one field, in files of their own.

    Attributes:
        key: Names the files.
        num_rows: Rows; at least 1.
        num_elements: Rows of an ``array``, bytes of ``bytes``, elements of ``ragged``.
        data: The rows.
        offsets: Where each row starts in ``data``, counted in elements, and where the last one ends; ``None`` for an
            ``array``.
    """

    key: str
    num_rows: int
    num_elements: int
    data: File
    offsets: File | None

    @classmethod
    def read(cls, content: Any) -> Self:
        """The segment that a piece of JSON describes."""
        key, num_rows, num_elements, data, offsets = members.values_of(content, cls)
        return cls(
            key=members.matching(key, KEY),
            num_rows=members.number(num_rows, least=1),
            num_elements=members.number(num_elements),
            data=File.read(data),
            offsets=None if offsets is None else File.read(offsets),
        )

    def plain(self) -> dict[str, Any]:
        """The segment in JSON's types."""
        offsets = None if self.offsets is None else vars(self.offsets)
        return {**vars(self), "data": vars(self.data), "offsets": offsets}

    @property
    def files(self) -> tuple[File, ...]:
        """Its one or two files."""
        return (self.data,) if self.offsets is None else (self.data, self.offsets)


def file_name(field: str, key: str, *, offsets: bool = False) -> str:
    """The only name that a segment's file may have."""
    return f"{field}-{key}{'.offsets' if offsets else ''}.bin"


def _little(dtype: DTypeLike) -> str:
    """The dtype as the index has it.

    Raises:
        ValueError: It is none of ``DTYPES``: objects and text have no bytes of their own.
    """
    return members.one_of(np.dtype(dtype).newbyteorder("<").str, DTYPES)
