"""What a sample is: its columns, its identity, and the description of the data set it belongs to."""

import binascii
import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

FEATURE_PREFIX = "feature:"  # a table's own columns, so that none can collide with ours

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # the Hugging Face hub's convention

IDENTITY_FIELDS = (
    pa.field("sample_id", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("content_hash", pa.string(), nullable=False),
    pa.field("label", pa.string(), nullable=False),
    pa.field("group", pa.string()),
    pa.field("time", pa.timestamp("us", tz="UTC")),
    pa.field("origin", pa.string(), nullable=False),
    pa.field("parents", pa.list_(pa.string()), nullable=False),
)
LIGHT_COLUMNS = tuple(field.name for field in IDENTITY_FIELDS)  # everything but the payload

Origin = Literal["source", "augmented", "synthetic", "resampled"]
HASH_BYTES = 16


FeatureKind = Literal["number", "category"]


class Feature(BaseModel):
    """One column of a table."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: FeatureKind

    @property
    def column(self) -> str:
        """Its column's name in a part."""
        return FEATURE_PREFIX + self.name


class Dataset(BaseModel):
    """What holds for every sample of a data set; stored in each manifest."""

    model_config = ConfigDict(frozen=True)

    name: str
    modality: Literal["image", "tabular"]
    task: Literal["classification"] = "classification"
    classes: tuple[str, ...]
    """Class names in the order of their numbers: sorted, numbers before words."""
    features: tuple[Feature, ...] = ()
    """A table's columns; empty for images."""

    def columns(self, kind: FeatureKind) -> list[str]:
        """Names of the columns of a part that hold features of a kind."""
        return [feature.column for feature in self.features if feature.kind == kind]

    def arrow_schema(self) -> pa.Schema:
        """Columns of a part: identity, then payload."""
        if self.modality == "image":
            return pa.schema([*IDENTITY_FIELDS, pa.field("image", IMAGE_TYPE, nullable=False)])
        types = {"number": pa.float64(), "category": pa.string()}
        return pa.schema([*IDENTITY_FIELDS, *(pa.field(f.column, types[f.kind]) for f in self.features)])


def content_hash(payload: bytes) -> str:
    """Hash of a payload's bytes: equal payloads, wherever they came from, share it (32 hexadecimal digits)."""
    return hashlib.blake2b(payload, digest_size=HASH_BYTES).hexdigest()


def sample_id(source: str, content: str) -> str:
    """Identity of a sample: its source key and its content's hash (32 hexadecimal digits)."""
    return hashlib.blake2b(f"{source}\0{content}".encode(), digest_size=HASH_BYTES).hexdigest()


def id_bytes(sample_ids: pa.Array | pa.ChunkedArray) -> NDArray[np.uint8]:
    """Sample ids, or content hashes, as bytes, shape ``(N, 16)``."""
    chunks = sample_ids.chunks if isinstance(sample_ids, pa.ChunkedArray) else [sample_ids]
    raw = b"".join(binascii.unhexlify(_text(chunk)) for chunk in chunks)
    return np.frombuffer(raw, np.uint8).reshape(len(sample_ids), HASH_BYTES)


def _text(ids: pa.StringArray) -> memoryview:
    """The digits of ids, one after the other; none is null."""
    _, offsets, text = ids.buffers()
    if not len(ids):
        return memoryview(b"")
    first, last = np.frombuffer(offsets, np.int32)[[ids.offset, ids.offset + len(ids)]]
    return memoryview(text)[first:last]


def sort_classes(labels: Sequence[str]) -> tuple[str, ...]:
    """Distinct labels in class order: whole numbers by value, then words alphabetically."""

    def key(label: str) -> tuple[bool, int, str]:
        is_number = label.lstrip("-").isdecimal()
        return (not is_number, int(label) if is_number else 0, label)

    return tuple(sorted(set(labels), key=key))
