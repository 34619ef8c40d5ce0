"""The index of a shard: what its folder holds, and the checks that make a hostile one harmless."""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from datamill import files
from datamill.errors import DataError
from datamill.shards import members
from datamill.shards.entries import OFFSET, Field, File, Segment, file_name

if TYPE_CHECKING:
    from datamill.samples import Dataset

INDEX = "index.json"
VERSION = 2
MAX_INDEX_BYTES = 256 * 2**20  # checksums of some 80 TiB
MAX_ELEMENT_BYTES = 2**40
MAX_BLOCK_BYTES = 2**30
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


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
        found = members.named(content, names)
        fields, segments = members.table(found["fields"]), members.table(found["segments"])
        return cls(
            split=members.text(found["split"]),
            num_rows=members.number(found["num_rows"]),
            description=_description(found["dataset"]),
            meta=members.table(found["meta"]),
            block_bytes=members.number(found["block_bytes"], least=1, most=MAX_BLOCK_BYTES),
            fields={members.matching(name, NAME): Field.read(one) for name, one in fields.items()},
            segments={
                name: tuple(Segment.read(one) for one in members.listed(some)) for name, some in segments.items()
            },
            fingerprint=members.text(found["fingerprint"]),
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
        version = members.table(found).get("version")
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


def _description(content: Any) -> dict[str, Any] | None:
    if content is None:
        return None
    classes = members.listed(members.table(content).get("classes"))
    if not all(isinstance(name, str) for name in classes):
        raise ValueError("the data set has a class whose name is no text")
    return members.table(content)
