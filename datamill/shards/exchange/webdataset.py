"""WebDataset: tar files that loaders read in sequence, with bytes that depend on their content alone.

Each sample is two neighbouring members: ``<sample_id>.<png|jpg|bmp|webp|npy>`` and ``<sample_id>.cls``, the number of
its class. Images are the encoded files as they came (after repairs), other samples the row that training sees as NPY.

Source: https://github.com/webdataset/webdataset, "The WebDataset Format".
"""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from datamill.modalities import image
from datamill.samples import Dataset
from datamill.shards.exchange import npy, tar
from datamill.shards.exchange.records import (
    IMAGE_SUFFIXES,
    MAX_LABEL_BYTES,
    Fault,
    Payload,
    Record,
    Wanted,
    known_id,
    parse_label,
    printable,
    too_large,
)

ENDINGS = (".tar", ".tar.gz", ".tgz")
MAX_BYTES = 2**30
MODE = 0o644
LABEL = "cls"
ROW = "npy"
PAYLOADS = frozenset({*IMAGE_SUFFIXES.values(), "jpeg", ROW})
MAX_NAME = 1024  # characters


def file_name(split: str, number: int) -> str:
    """``train-000000.tar``."""
    return f"{split}-{number:06d}.tar"


class TarWriter:
    """Writes one tar file."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Write to ``stream``."""
        self._tar = tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - closed by close

    @property
    def size_bytes(self) -> int:
        """Bytes written."""
        return int(self._tar.offset)

    def write(self, sample_id: str, payload: Payload, label: int) -> None:
        """Append one sample."""
        if isinstance(payload, bytes):
            self._add(f"{sample_id}.{IMAGE_SUFFIXES[image.read_header(payload).format]}", payload)
        else:
            self._add(f"{sample_id}.{ROW}", npy.encode(payload))
        self._add(f"{sample_id}.{LABEL}", str(label).encode())

    def close(self) -> None:
        """Write the end of the archive."""
        self._tar.close()

    def _add(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)  # time, user and group are 0 in a fresh one: equal content, equal bytes
        member.size = len(content)
        member.mode = MODE
        self._tar.addfile(member, io.BytesIO(content))


def open_file(stream: IO[bytes], *, dataset: Dataset | None) -> TarWriter:
    """A writer of one file."""
    return TarWriter(stream)


def finish(folder: Path, *, split: str, names: list[str]) -> None:
    """Tar files need no description."""


def class_names(stream: IO[bytes], *, name: str, wanted: Wanted) -> None:
    """Tar files name no class."""


def read(stream: IO[bytes], *, name: str, wanted: Wanted) -> Iterator[Record | Fault]:
    """Neighbouring members that share their name up to its first dot, as one sample.

    Folders, names that start with a dot, and members of other endings are no part of a sample.

    Raises:
        DataError: The file is damaged or cut.
    """
    seen: set[str] = set()
    group: _Group | None = None
    for member in tar.members(stream, name=name):
        path = member.name.removeprefix("./")
        if member.is_folder or _is_hidden(path):
            continue
        key, ending = _split(path)
        if group is None or key != group.key:
            if group is not None:
                yield group.result(name, wanted=wanted, seen=seen)
            group = _Group(key)
        group.add(member, path=path, ending=ending, wanted=wanted)
    if group is not None:
        yield group.result(name, wanted=wanted, seen=seen)


@dataclass
class _Group:
    """The members of one sample."""

    key: str
    num_payloads: int = 0
    payload: bytes | None = None
    ending: str = ""
    labels: list[bytes] = field(default_factory=list)
    fault: tuple[str, str] | None = None

    def add(self, member: tar.Member, *, path: str, ending: str, wanted: Wanted) -> None:
        """Read ``member`` if it is one of those that matter."""
        if member.fault is not None:
            self._blame("not_a_file", f"{printable(path[:MAX_NAME])} is {member.fault}")
        elif _is_unsafe(path):
            self._blame("unsafe_name", "the name leads out of the folder that the file would be unpacked in")
        elif ending in ({wanted.image} if wanted.image is not None else PAYLOADS):
            self._add_payload(member, ending=ending, wanted=wanted)
        elif ending == (wanted.label or LABEL):
            self._add_label(member)

    def result(self, name: str, *, wanted: Wanted, seen: set[str]) -> Record | Fault:
        """The sample, or why it is none."""
        place = f"{name}#{printable(self.key[:MAX_NAME])}"
        label = parse_label(self.labels[0]) if self.labels else None
        if self.key in seen:
            self._blame("duplicate_key", "an earlier sample of the same file has this key; give each its own")
        elif self.num_payloads != 1:
            found = "no" if not self.num_payloads else str(self.num_payloads)
            self._blame(
                "no_image" if not self.num_payloads else "two_images", f"{found} members hold an image or a row"
            )
        elif len(self.labels) != 1 or label is None:
            self._blame(
                "no_label", f"{len(self.labels) or 'no'} member ends with .{wanted.label or LABEL}, or it is no label"
            )
        if len(self.key) <= MAX_NAME:  # a longer one is never that of a sample
            seen.add(self.key)
        payload: Payload | None = self.payload
        if self.fault is None and self.payload is not None and self.ending == ROW:
            payload = npy.decode(self.payload)
            if payload is None:
                self._blame("unreadable", "damaged NPY file, or one with objects")
        if self.fault is not None:
            return Fault(place, *self.fault)
        assert label is not None
        return Record(place, payload, label, known_id(self.key))

    def _add_payload(self, member: tar.Member, *, ending: str, wanted: Wanted) -> None:
        self.num_payloads += 1
        self.ending = ending
        if member.size_bytes > wanted.max_bytes:
            self._blame(*too_large("", num_bytes=member.size_bytes, wanted=wanted)[1:])
        elif wanted.payloads and self.num_payloads == 1:
            self.payload = member.read()

    def _add_label(self, member: tar.Member) -> None:
        if len(self.labels) < 2:
            self.labels.append(member.read() if member.size_bytes <= MAX_LABEL_BYTES else b"")

    def _blame(self, reason: str, message: str) -> None:
        self.fault = self.fault or (reason, message)


def _split(path: str) -> tuple[str, str]:
    folder, slash, base = path.rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") and part != ".." for part in path.split("/"))


def _is_unsafe(path: str) -> bool:
    return path.startswith("/") or "\\" in path or ".." in path.split("/") or len(path) > MAX_NAME
