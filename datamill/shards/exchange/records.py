"""What writers take and readers give: one sample after the other, or columns of many, whatever the format."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.samples import Dataset

Payload = bytes | NDArray[Any]  # an encoded image, or one row of an array
Label = int | str  # the number of a class, or its name

IMAGE_SUFFIXES = {"PNG": "png", "JPEG": "jpg", "BMP": "bmp", "WEBP": "webp"}
MAX_LABEL_BYTES = 1024
PIECE_BYTES = 2**20
SAMPLE_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Wanted:
    """What a reader looks for in foreign files.

    Attributes:
        image: Ending, feature or column of the payload; ``None`` for the format's usual ones.
        label: The same for the class.
        max_bytes: Largest payload; a larger one is a fault and is not read.
        payloads: Whether payloads are read; a listing needs only labels.
    """

    image: str | None = None
    label: str | None = None
    max_bytes: int = 2**30
    payloads: bool = True


class Record(NamedTuple):
    """A sample as a foreign file holds it; nothing in it has been checked but its checksums.

    Attributes:
        place: File and key or row, for example ``train-000000.tar#0007``; unique within the file.
        payload: Encoded image or row; ``None`` when payloads were not wanted.
        label: Number or name of the class.
        sample_id: Identity, 32 hexadecimal digits, where the file was written by us.
    """

    place: str
    payload: Payload | None
    label: Label
    sample_id: str | None


class Fault(NamedTuple):
    """An entry that is no sample, and why; what comes after it is still sound."""

    place: str
    reason: str
    message: str


class Columns(NamedTuple):
    """Entries of a file that follow one another, as columns; for images.

    Attributes:
        places: As in ``Record``, text of shape ``(N,)``.
        payloads: Encoded images, binary of shape ``(N,)``; null where there is none, or it was not wanted.
        codes: Place of each class in ``labels``, shape ``(N,)``; -1 where there is none.
        labels: Classes that occur.
        faults: Why entries are no samples, as (reason, message), by their place in the columns.
    """

    places: pa.Array
    payloads: pa.Array
    codes: NDArray[np.int32]
    labels: Sequence[Label]
    faults: Mapping[int, tuple[str, str]]


class FileWriter(Protocol):
    """Writes one file of a split."""

    @property
    def size_bytes(self) -> int:
        """Bytes written and waiting to be written."""

    def write(self, sample_id: str, payload: Payload, label: int) -> None:
        """Append one sample."""

    def close(self) -> None:
        """Finish the file; the stream stays open."""


class Format(Protocol):
    """A foreign format: one module each."""

    @property
    def ENDINGS(self) -> tuple[str, ...]:  # noqa: N802 - a module's constant
        """How names of its files end."""

    @property
    def MAX_BYTES(self) -> int:  # noqa: N802
        """Payload after which a file should end."""

    def file_name(self, split: str, number: int) -> str:
        """Path of a file below the export's folder."""

    def open_file(self, stream: IO[bytes], *, dataset: Dataset | None) -> FileWriter:
        """A writer of one file; ``dataset`` names the classes."""

    def finish(self, folder: Path, *, split: str, names: list[str]) -> None:
        """Write what describes all files of a split, if the format has such a thing."""

    def read(self, stream: IO[bytes], *, name: str, wanted: Wanted) -> Iterator[Record | Fault]:
        """The entries of one file, in order.

        Raises:
            DataError: The file is damaged so that what follows cannot be trusted.
        """

    def class_names(self, stream: IO[bytes], *, name: str, wanted: Wanted) -> tuple[str, ...] | None:
        """Names of classes 0, 1, ... if the file says them."""


def columns_of(entries: Sequence[Record | Fault]) -> Columns:
    """Entries as columns; a payload that is no encoded image is a fault."""
    numbers: dict[Label, int] = {}
    codes = np.full(len(entries), -1, np.int32)
    payloads: list[bytes | None] = [None] * len(entries)
    faults: dict[int, tuple[str, str]] = {}
    for row, entry in enumerate(entries):
        if isinstance(entry, Fault):
            faults[row] = entry.reason, entry.message
            continue
        codes[row] = numbers.setdefault(entry.label, len(numbers))
        if isinstance(entry.payload, bytes):
            payloads[row] = entry.payload
        elif entry.payload is not None:
            faults[row] = "not_an_image", "holds a row of numbers, not an encoded image"
    places = pa.array([entry.place for entry in entries], pa.string())
    return Columns(places, pa.array(payloads, pa.binary()), codes, list(numbers), faults)


def records_of(columns: Columns) -> Iterator[Record | Fault]:
    """Entries that have no identity of ours, one after the other."""
    rows = zip(columns.places.to_pylist(), columns.payloads.to_pylist(), columns.codes.tolist(), strict=True)
    for row, (place, payload, code) in enumerate(rows):
        fault = columns.faults.get(row)
        yield Record(place, payload, columns.labels[code], None) if fault is None else Fault(place, *fault)


def read_up_to(stream: IO[bytes], count: int) -> bytes:
    """The next ``count`` bytes, fewer where the stream ends; memory grows with what is there, not with ``count``."""
    pieces: list[bytes] = []
    while count and (piece := stream.read(min(count, PIECE_BYTES))):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def skip(stream: IO[bytes], count: int) -> int:
    """Pass over ``count`` bytes; how many there were before the stream ended."""
    left = count
    while left and (piece := stream.read(min(left, PIECE_BYTES))):
        left -= len(piece)
    return count - left


def parse_label(content: bytes) -> Label | None:
    """The class that a text names: a number if it is one, else a name; ``None`` for no text, or no class's text."""
    if len(content) > MAX_LABEL_BYTES:
        return None
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        return None
    if re.fullmatch(r"-?[0-9]{1,9}", text):
        return int(text)
    return text if text and text.isprintable() else None


def known_id(text: str | bytes | None) -> str | None:
    """``text`` if it is the identity of a sample of ours."""
    if isinstance(text, bytes):
        text = text.decode("ascii", "replace")
    return text if text is not None and SAMPLE_ID.fullmatch(text) else None


def printable(name: str) -> str:
    """A foreign name fit for ledgers and messages; different names stay different."""
    return name if name.isprintable() else name.encode("unicode_escape").decode()


def too_large(place: str, *, num_bytes: int, wanted: Wanted) -> Fault:
    """The fault of a payload above the limit."""
    return Fault(place, "too_large", f"{num_bytes} bytes are more than {wanted.max_bytes}")
