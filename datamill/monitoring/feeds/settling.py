"""Which files of a watched place are new, and which of those are no longer being written."""

import glob
import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

import pyarrow as pa

from datamill.errors import DataError
from datamill.monitoring.config import absent
from datamill.monitoring.cursor import Cursor
from datamill.monitoring.records import Look
from datamill.sources.listing import StoredFile, files_of, table_of
from datamill.sources.stores import open_store


class Found(NamedTuple):
    """A file to read.

    Attributes:
        file: As listed.
        stamp: Changes when its content does.
        is_second_look: Whether an earlier pass has found the same stamp.
    """

    file: StoredFile
    stamp: str
    is_second_look: bool


class WatchedPlace:
    """A folder, file or glob, local or remote, and what the cursor knows of its files.

    A file is read when it is old enough, or when an earlier pass has found it as it is: a clock that was set back makes
    files younger than they are, and must not hide them.

    Attributes:
        store: The place.
        origin: Digest of the kind of source and the place.
        waiting: Stamp by key of files that are too young, as far as they were listed.
    """

    def __init__(self, path: str, *, kind: str, cursor: Cursor, now: datetime, settle_s: float) -> None:
        """Watch ``path``.

        Args:
            path: A path or an fsspec URL.
            kind: Of the source.
            cursor: Knows what was judged.
            now: The present.
            settle_s: Age from which a file is no longer being written (seconds).
        """
        self.store = open_store(path)
        self.origin = origin_of(kind, self.store.root if self.store.filesystem is None else path)
        self.waiting: dict[str, str] = {}
        self._cursor = cursor
        self._now_s = now.timestamp()
        self._settle_s = settle_s

    def fresh(self) -> Iterator[list[Found]]:
        """Files whose items may be new, in the order of their keys, some at a time.

        Raises:
            DataError: The place is missing, or cannot be listed.
        """
        for table in self._tables():
            listed = files_of(table, folder=self.store.root.rstrip("/"))
            looks = self._cursor.looks(self.origin, keys=[file.key for file in listed])
            found = [one for file in listed if (one := self._settled(file, looks.get(file.key))) is not None]
            if found:
                yield found

    def keys(self) -> Iterator[Sequence[str]]:
        """Keys of every file that is there now, some at a time."""
        return (table["key"].to_pylist() for table in self._tables())

    def _settled(self, file: StoredFile, look: Look | None) -> Found | None:
        """The file, if it is new and ready; one that is not ready is noted as waiting."""
        stamp = f"{file.size_bytes}:{file.version}"
        is_same = look is not None and look.stamp == stamp
        if look is not None and is_same and look.is_done:
            return None
        # Either direction counts: the clock may have been set back since.
        is_second_look = look is not None and is_same and abs(self._now_s - look.seen_at) >= self._settle_s
        if is_second_look or file.fault is not None or self._is_old(file):
            return Found(file, stamp, is_second_look)
        self.waiting[file.key] = stamp
        return None

    def _is_old(self, file: StoredFile) -> bool:
        if self.store.filesystem is None:
            return self._now_s - int(file.version) / 1e9 >= self._settle_s
        return file.stamp is not None  # a store that names contents shows whole files only

    def _tables(self) -> Iterator[pa.Table]:
        if self.store.is_folder():
            yield from self.store.tables()
            return
        try:
            yield table_of(self.store.files())
        except DataError as error:
            if not glob.has_magic(self.store.root):
                raise absent(self.store.url) from error


def origin_of(kind: str, place: str) -> str:
    """Digest of a kind of source and a place (16 hexadecimal digits)."""
    return hashlib.blake2b(f"{kind}\0{place}".encode(), digest_size=8).hexdigest()
