"""The index of a shard: what its folder holds, and the checks that make a hostile one harmless.

Plain dataclasses, checked by hand: a loader opens shards before anything else, and a validation library takes longer to
import than the first batch takes to load.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import numpy as np
from numpy.typing import DTypeLike

from datamill import files
from datamill.errors import DataError

if TYPE_CHECKING:
    from datamill.samples import Dataset

INDEX = "index.json"
VERSION = 2
MAX_INDEX_BYTES = 256 * 2**20  # checksums of some 80 TiB
MAX_ELEMENT_BYTES = 2**40
MAX_BLOCK_BYTES = 2**30
MAX_NUMBER = 2**62
OFFSET = np.dtype("<u8")

KINDS = ("array", "bytes", "ragged")
DTYPES = ("|b1", "|i1", "|u1", "<i2", "<u2", "<f2", "<i4", "<u4", "<f4", "<i8", "<u8", "<f8")
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
KEY = re.compile(r"[0-9a-f]{1,64}")


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
        """Rows of one shape: images, tables, labels."""
        return cls(kind="array", dtype=_little(dtype), shape=tuple(shape))

    @classmethod
    def ragged(cls, dtype: DTypeLike, shape: tuple[int, ...] = ()) -> Self:
        """Rows of any length along their first axis, each element of ``shape``: tokens, audio."""
        return cls(kind="ragged", dtype=_little(dtype), shape=tuple(shape))

    @classmethod
    def bytes(cls) -> Self:
        """Rows of any number of bytes: encoded images."""
        return cls(kind="bytes", dtype="|u1", shape=())

    @classmethod
    def read(cls, content: Any) -> Self:
        """The field that a piece of JSON describes."""
        kind, dtype, shape = _members(content, cls)
        sides = tuple(_number(side, least=1) for side in _listed(shape, limit=8))
        return cls(kind=cast(Any, _one_of(kind, KINDS)), dtype=_one_of(dtype, DTYPES), shape=sides)

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
        name, size_bytes, crc32, probe = _members(content, cls)
        sums = _listed(crc32)
        if not all(type(one) is int and 0 <= one < 2**32 for one in sums):
            raise ValueError("a checksum is no number of 32 bits")
        return cls(_text(name), _number(size_bytes), tuple(sums), _number(probe, most=2**32 - 1))


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
        key, num_rows, num_elements, data, offsets = _members(content, cls)
        return cls(
            key=_matching(key, KEY),
            num_rows=_number(num_rows, least=1),
            num_elements=_number(num_elements),
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


@dataclass(frozen=True)
class Index:
    """What a shard's folder holds; a folder without it is not finished.

    Attributes:
        split: Name of the split.
        num_rows: Rows of every field.
        description: The data set in JSON's types; ``dataset`` makes it one.
        meta: Notes of whoever wrote it.
        block_bytes: Bytes under one checksum.
        fields: What a row is, by field.
        segments: Where its rows are, by field.
        fingerprint: Hash of all the rest (32 hexadecimal digits): the identity of this very data.
    """

    split: str
    num_rows: int
    description: Mapping[str, Any] | None
    meta: Mapping[str, Any]
    block_bytes: int
    fields: Mapping[str, Field]
    segments: Mapping[str, tuple[Segment, ...]]
    fingerprint: str = field(default="")

    @classmethod
    def read(cls, content: Any) -> Self:
        """The index that JSON describes; its numbers have been looked at, and may still contradict each other.

        Raises:
            ValueError: Something is missing, unknown, of another type, or out of range.
        """
        names = ("version", "split", "num_rows", "dataset", "meta", "block_bytes", "fields", "segments", "fingerprint")
        members = _named(content, names)
        fields, segments = _table(members["fields"]), _table(members["segments"])
        return cls(
            split=_text(members["split"]),
            num_rows=_number(members["num_rows"]),
            description=_description(members["dataset"]),
            meta=_table(members["meta"]),
            block_bytes=_number(members["block_bytes"], least=1, most=MAX_BLOCK_BYTES),
            fields={_matching(name, NAME): Field.read(one) for name, one in fields.items()},
            segments={name: tuple(Segment.read(one) for one in _listed(some)) for name, some in segments.items()},
            fingerprint=_text(members["fingerprint"]),
        )

    def plain(self) -> dict[str, Any]:
        """The index in JSON's types."""
        return {
            "version": VERSION,
            "split": self.split,
            "num_rows": self.num_rows,
            "dataset": self.description,
            "meta": self.meta,
            "block_bytes": self.block_bytes,
            "fields": {name: vars(one) for name, one in self.fields.items()},
            "segments": {name: [one.plain() for one in some] for name, some in self.segments.items()},
            "fingerprint": self.fingerprint,
        }

    def replaced(self, **changes: Any) -> Self:
        """The same with other members."""
        return dataclasses.replace(self, **changes)

    @cached_property
    def dataset(self) -> "Dataset | None":
        """What holds for every sample; ``None`` where the shard does not say.

        Raises:
            DataError: What it says is no data set.
        """
        if self.description is None:
            return None
        from pydantic import ValidationError

        from datamill.samples import Dataset

        try:
            return Dataset.model_validate(self.description)
        except ValidationError as error:
            raise DataError(f"{INDEX} describes no data set: {error.errors()[0]['msg']}; run shard again") from error

    @property
    def num_classes(self) -> int | None:
        """Number of classes; ``None`` where the shard does not say."""
        return None if self.description is None else len(self.description["classes"])

    def sealed(self) -> Self:
        """The same with its fingerprint."""
        content = self.plain()
        del content["fingerprint"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return self.replaced(fingerprint=hashlib.blake2b(text.encode(), digest_size=16).hexdigest())

    def files(self) -> Iterator[File]:
        """Every file."""
        for segment in itertools.chain.from_iterable(self.segments.values()):
            yield from segment.files

    def faults(self) -> Iterator[str]:
        """What contradicts itself, in words."""
        if self.fields.keys() != self.segments.keys():
            yield f"fields {sorted(self.fields)} but segments of {sorted(self.segments)}"
            return
        for name, one in self.fields.items():
            yield from _field_faults(name, one, segments=self.segments[name], block_bytes=self.block_bytes)
            num_rows = sum(segment.num_rows for segment in self.segments[name])
            if num_rows != self.num_rows:
                yield f"field {name} has {num_rows} rows, the shard {self.num_rows}"


def read_index(folder: Path) -> Index:
    """The index of a shard, free of contradictions and of names that lead out of the folder.

    Raises:
        DataError: It is missing, damaged, of another version, or contradicts itself.
    """
    path = folder / INDEX
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise DataError(f"{path} has more than {MAX_INDEX_BYTES} bytes, which no index has; run shard again")
        return parse_index(path.read_bytes(), where=str(path))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: the shard was not finished, or is elsewhere; run shard again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; correct that, open it again") from error


def parse_index(content: bytes, *, where: str) -> Index:
    """The index that ``content`` holds, checked as ``read_index`` says."""
    try:
        found = json.loads(content)
        version = _table(found).get("version")
        if version != VERSION:
            raise DataError(f"{where} has version {version!r}, this datamill reads {VERSION}; run shard again")
        index = Index.read(found)
        sealed = index.sealed()
    except (ValueError, RecursionError) as error:  # what is no JSON, or no index
        first = str(error).replace("\n", " ")[:200]
        raise DataError(f"{where} is damaged: {first}; run shard again") from error
    for fault in index.faults():
        raise DataError(f"{where} is damaged: {fault}; run shard again")
    if index.fingerprint != sealed.fingerprint:
        raise DataError(
            f"{where} was altered: its content has fingerprint {sealed.fingerprint}, it says {index.fingerprint!r}; "
            f"run shard again"
        )
    return index


def write_index(folder: Path, index: Index) -> Index:
    """Write the sealed index, which makes the folder a shard; returns it."""
    sealed = index.sealed()
    files.write_json(folder / INDEX, sealed.plain())
    return sealed


def file_name(field: str, key: str, *, offsets: bool = False) -> str:
    """The only name that a segment's file may have."""
    return f"{field}-{key}{'.offsets' if offsets else ''}.bin"


def _field_faults(name: str, field: Field, *, segments: tuple[Segment, ...], block_bytes: int) -> Iterator[str]:
    if field.element_bytes > MAX_ELEMENT_BYTES:
        yield f"field {name} has elements of {field.element_bytes} bytes"
    if field.kind == "bytes" and (field.dtype, field.shape) != ("|u1", ()):
        yield f"field {name} of bytes has dtype {field.dtype} and shape {field.shape}"
    if len({segment.key for segment in segments}) != len(segments):
        yield f"two segments of field {name} share a key"
    for segment in segments:
        wanted = [(file_name(name, segment.key), segment.num_elements * field.element_bytes)]
        if field.kind == "array" and segment.num_elements != segment.num_rows:
            yield f"segment {segment.key} of {name} has {segment.num_rows} rows and {segment.num_elements} elements"
        if field.kind != "array":
            offsets_bytes = (segment.num_rows + 1) * OFFSET.itemsize
            wanted.append((file_name(name, segment.key, offsets=True), offsets_bytes))
        found = [(file.name, file.size_bytes) for file in segment.files]
        if found != wanted:
            yield f"segment {segment.key} of {name} has files {found}, its rows and elements make {wanted}"
        for file in segment.files:
            if len(file.crc32) != -(-file.size_bytes // block_bytes):
                yield f"{file.name} has {len(file.crc32)} checksums for {file.size_bytes} bytes"


def _little(dtype: DTypeLike) -> str:
    """The dtype as the index has it.

    Raises:
        ValueError: It is none of ``DTYPES``: objects and text have no bytes of their own.
    """
    return _one_of(np.dtype(dtype).newbyteorder("<").str, DTYPES)


def _named(content: Any, names: tuple[str, ...]) -> dict[str, Any]:
    table = _table(content)
    if table.keys() != set(names):
        raise ValueError(f"members {sorted(table)} where {sorted(names)} belong")
    return table


def _members(content: Any, kind: type[Any]) -> list[Any]:
    """Values of a dataclass's fields, in order, from a table that has these and no others."""
    names = tuple(one.name for one in dataclasses.fields(kind))
    members = _named(content, names)
    return [members[name] for name in names]


def _table(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"{str(content)[:40]!r} where a table belongs")
    return content


def _listed(content: Any, *, limit: int | None = None) -> list[Any]:
    if not isinstance(content, list) or (limit is not None and len(content) > limit):
        raise ValueError(f"{str(content)[:40]!r} where a list{'' if limit is None else f' of at most {limit}'} belongs")
    return content


def _number(content: Any, *, least: int = 0, most: int = MAX_NUMBER) -> int:
    if type(content) is not int or not least <= content <= most:
        raise ValueError(f"{str(content)[:40]!r} where a whole number from {least} to {most} belongs")
    return content


def _text(content: Any) -> str:
    if not isinstance(content, str):
        raise ValueError(f"{str(content)[:40]!r} where text belongs")
    return content


def _one_of(content: Any, known: tuple[str, ...]) -> str:
    if content not in known:
        raise ValueError(f"{str(content)[:40]!r} is none of {', '.join(known)}")
    return str(content)


def _matching(content: Any, pattern: re.Pattern[str]) -> str:
    if not isinstance(content, str) or pattern.fullmatch(content) is None:
        raise ValueError(f"{str(content)[:80]!r} does not match {pattern.pattern}")
    return content


def _description(content: Any) -> dict[str, Any] | None:
    if content is None:
        return None
    classes = _listed(_table(content).get("classes"))
    if not all(isinstance(name, str) for name in classes):
        raise ValueError("the data set has a class whose name is no text")
    return _table(content)
