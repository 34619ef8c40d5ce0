"""Which items were judged, so that each is judged once: a small SQLite database in the workspace's own folder.

An item takes about 25 bytes of disk and none of memory. Files that have not changed since all of their items were
judged are not opened, and are forgotten when they are gone. A window advances everything in one transaction.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self, final

import numpy as np
from numpy.typing import NDArray

from datamill.errors import DataError

VERSION = 1
AT_ONCE = 16_384  # values of a query; SQLite takes 32,766
ID_BYTES = 16
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE windows (number INTEGER PRIMARY KEY, name TEXT NOT NULL, judged_at TEXT NOT NULL, model TEXT NOT NULL,
                      is_published INTEGER NOT NULL, is_told INTEGER NOT NULL);
CREATE TABLE files (origin TEXT, key TEXT, stamp TEXT NOT NULL, is_done INTEGER NOT NULL, seen_at REAL NOT NULL,
                    PRIMARY KEY (origin, key)) WITHOUT ROWID;
CREATE TABLE items (id BLOB PRIMARY KEY) WITHOUT ROWID;
"""


class Look(NamedTuple):
    """What was known of a file after an earlier pass."""

    stamp: str
    is_done: bool
    seen_at: float


class WindowRecord(NamedTuple):
    """A window that was judged."""

    number: int
    name: str
    judged_at: datetime
    model: str
    is_published: bool
    is_told: bool


@dataclass(frozen=True)
class Advance:
    """What a pass has seen.

    Attributes:
        origin: Digest of the source.
        items: Ids of the items that were judged or rejected, uint8, shape ``(N, 16)``.
        done: Stamp by key of the files all of whose items were.
        waiting: Stamp by key of the files to look at again.
        place: How far a query was read, as JSON; ``None`` for files.
    """

    origin: str
    items: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, ID_BYTES), np.uint8))
    done: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    place: str | None = None


@final
class Cursor:
    """The database; one process at a time holds it, under the watch's lock."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Use ``open``."""
        self._connection = connection

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """The cursor in the file ``path``, which is made where there is none.

        Raises:
            DataError: The file is damaged or of another version.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                cursor = cls(connection)
                cursor._prepare(path)
                yield cursor
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{path} cannot be used ({error}); restore it from a backup, or delete it to judge everything anew"
            ) from error

    def next_number(self) -> int:
        """Number of the next window, from 1."""
        return int(self._one("SELECT coalesce(max(number), 0) + 1 FROM windows"))

    def latest(self) -> WindowRecord | None:
        """The last window; ``None`` before the first."""
        return next(self._windows("ORDER BY number DESC LIMIT 1"), None)

    def unfinished(self) -> list[WindowRecord]:
        """Windows that are judged but not yet published, or not yet told to anybody; oldest first."""
        return list(self._windows("WHERE is_published = 0 OR is_told = 0 ORDER BY number"))

    def control(self) -> Any:
        """What the last window left to the next, as JSON values; ``None`` before the first."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = 'control'").fetchone()
        return None if row is None else json.loads(row[0])

    def place(self, origin: str) -> str | None:
        """How far a query was read, as JSON; ``None`` before the first window."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", [f"place {origin}"]).fetchone()
        return None if row is None else str(row[0])

    def looks(self, origin: str, *, keys: Sequence[str]) -> dict[str, Look]:
        """What is known of some files, by key."""
        found: dict[str, Look] = {}
        for some in _pieces(keys):
            marks = ", ".join("?" * len(some))
            query = f"SELECT key, stamp, is_done, seen_at FROM files WHERE origin = ? AND key IN ({marks})"  # noqa: S608
            rows = self._connection.execute(query, [origin, *some])
            found.update({key: Look(stamp, bool(is_done), seen_at) for key, stamp, is_done, seen_at in rows})
        return found

    def is_known(self, ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which items were judged or rejected before, for ids of shape ``(N, 16)``."""
        keys = [row.tobytes() for row in ids]
        known: set[bytes] = set()
        for some in _pieces(keys):
            marks = ", ".join("?" * len(some))
            rows = self._connection.execute(f"SELECT id FROM items WHERE id IN ({marks})", some)  # noqa: S608
            known.update(row[0] for row in rows)
        return np.array([key in known for key in keys], bool)

    def note(self, advance: Advance, *, now: datetime) -> None:
        """Remember what a pass without anything to judge has seen."""
        with self._transaction():
            self._advance(advance, now=now)

    def commit(self, advance: Advance, *, record: WindowRecord, control: Any) -> None:
        """Remember a judged window, all of it or nothing.

        Args:
            advance: What it has seen.
            record: Its number, name and time.
            control: What it leaves to the next one, as JSON values.
        """
        with self._transaction():
            self._advance(advance, now=record.judged_at)
            self._connection.execute(
                "INSERT INTO windows VALUES (?, ?, ?, ?, 0, 0)",
                [record.number, record.name, record.judged_at.isoformat(), record.model],
            )
            self._set("control", json.dumps(control))

    def mark_published(self, number: int) -> None:
        """Remember that a window's folder is in its place."""
        self._connection.execute("UPDATE windows SET is_published = 1 WHERE number = ?", [number])

    def mark_told(self, number: int) -> None:
        """Remember that a window's verdict was announced."""
        self._connection.execute("UPDATE windows SET is_told = 1 WHERE number = ?", [number])

    def forget_absent(self, origin: str, *, present: Iterable[Sequence[str]]) -> None:
        """Forget files that are not among those listed, some keys at a time; their items stay known."""
        with self._transaction():
            self._connection.execute("CREATE TEMP TABLE present (key TEXT PRIMARY KEY) WITHOUT ROWID")
            for keys in present:
                self._connection.executemany("INSERT OR IGNORE INTO present VALUES (?)", ([key] for key in keys))
            self._connection.execute(
                "DELETE FROM files WHERE origin = ? AND key NOT IN (SELECT key FROM present)", [origin]
            )
            self._connection.execute("DROP TABLE present")

    def _advance(self, advance: Advance, *, now: datetime) -> None:
        ordered = advance.items[np.lexsort(advance.items.T[::-1])] if len(advance.items) else advance.items
        self._connection.executemany(
            "INSERT OR IGNORE INTO items VALUES (?)", ([row.tobytes()] for row in ordered)
        )  # in order of the ids: every page is written once
        for files, is_done in ((advance.done, 1), (advance.waiting, 0)):
            self._connection.executemany(
                "INSERT INTO files VALUES (?, ?, ?, ?, ?) ON CONFLICT (origin, key) DO UPDATE SET "
                "seen_at = CASE WHEN stamp = excluded.stamp AND is_done = excluded.is_done THEN seen_at "
                "ELSE excluded.seen_at END, stamp = excluded.stamp, is_done = excluded.is_done",
                ([advance.origin, key, stamp, is_done, now.timestamp()] for key, stamp in files.items()),
            )
        if advance.place is not None:
            self._set(f"place {advance.origin}", advance.place)

    def _prepare(self, path: Path) -> None:
        with self._transaction():
            if not self._one("SELECT count(*) FROM sqlite_master WHERE name = 'meta'"):
                for statement in filter(str.strip, SCHEMA.split(";")):
                    self._connection.execute(statement)
                self._set("version", str(VERSION))
        version = int(self._one("SELECT value FROM meta WHERE key = 'version'"))
        if version != VERSION:
            raise DataError(f"{path} has version {version}, this datamill reads {VERSION}; use the one that wrote it")

    def _windows(self, condition: str) -> Iterator[WindowRecord]:
        rows = self._connection.execute(
            f"SELECT number, name, judged_at, model, is_published, is_told FROM windows {condition}"  # noqa: S608
        )
        for number, name, judged_at, model, is_published, is_told in rows.fetchall():
            time = datetime.fromisoformat(judged_at)
            yield WindowRecord(number, name, time, model, bool(is_published), bool(is_told))

    def _set(self, key: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", [key, value])

    def _one(self, query: str) -> Any:
        return self._connection.execute(query).fetchone()[0]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _pieces(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[start : start + AT_ONCE] for start in range(0, len(values), AT_ONCE))
