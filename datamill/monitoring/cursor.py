"""Which items were judged, so that each is judged once: a small SQLite database in the workspace's own folder.

An item takes about 25 bytes of disk and none of memory. Files that have not changed since all of their items were
judged are not opened, and are forgotten when they are gone. A window advances everything in one transaction. Items that
were not seen for long can be forgotten; one that comes again in time is known for as long again.
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

VERSION = 2
DAY_S = 86_400
REFRESH_DAYS = 7  # an item's day is written anew when it is older, so that a table read every hour is not written then
WINDOW_COLUMNS = "number, name, windows.judged_at, model, windows.is_published, windows.is_told"
AT_ONCE = 16_384  # values of a query; SQLite takes 32,766
ID_BYTES = 16
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE windows (number INTEGER PRIMARY KEY, name TEXT NOT NULL, judged_at TEXT NOT NULL, model TEXT NOT NULL,
                      is_published INTEGER NOT NULL, is_told INTEGER NOT NULL);
CREATE TABLE files (origin TEXT, key TEXT, stamp TEXT NOT NULL, is_done INTEGER NOT NULL, seen_at REAL NOT NULL,
                    PRIMARY KEY (origin, key)) WITHOUT ROWID;
CREATE TABLE items (id BLOB PRIMARY KEY, day INTEGER) WITHOUT ROWID;
"""
LABELS = """
CREATE TABLE IF NOT EXISTS labelled (number INTEGER PRIMARY KEY, num_samples INTEGER NOT NULL,
                                     num_labels INTEGER NOT NULL, num_contradicting INTEGER NOT NULL,
                                     judged_at TEXT, is_published INTEGER NOT NULL, is_told INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS early (key TEXT PRIMARY KEY, label TEXT NOT NULL, seen_at REAL NOT NULL) WITHOUT ROWID;
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


class Labelled(NamedTuple):
    """How many labels of a window are known.

    Attributes:
        number: The window's.
        num_samples: Its samples.
        num_labels: Those whose label is known.
        num_contradicting: Labels that came and contradict the first one.
    """

    number: int
    num_samples: int
    num_labels: int
    num_contradicting: int = 0


@dataclass(frozen=True)
class Advance:
    """What a pass has seen.

    Attributes:
        origin: Digest of the source.
        items: Ids of the items that were judged or rejected, uint8, shape ``(N, 16)``.
        done: Stamp by key of the files all of whose items were.
        waiting: Stamp by key of the files to look at again.
        place: How far a query was read, as JSON; ``None`` for files.
        labelled: Windows that got labels; contradictions are those of this pass.
        early: Label by key of what was not judged yet.
        arrived: Keys of such labels whose item has come.
    """

    origin: str
    items: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, ID_BYTES), np.uint8))
    done: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    place: str | None = None
    labelled: Sequence[Labelled] = ()
    early: Mapping[str, str] = field(default_factory=dict)
    arrived: Sequence[str] = ()


@final
class Cursor:
    """The database; one process at a time holds it, under the watch's lock."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Use ``open``."""
        self._connection = connection
        self._again: list[bytes] = []

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

    def labelled(self) -> list[Labelled]:
        """Windows whose answers are kept for labels, newest first."""
        rows = self._connection.execute(
            "SELECT number, num_samples, num_labels, num_contradicting FROM labelled ORDER BY number DESC"
        )
        return [Labelled(*row) for row in rows]

    def due(self, model: str, *, min_labels: int) -> list[WindowRecord]:
        """Windows of a model with labels enough that were not judged by them yet; oldest first."""
        found = self._windows(
            "JOIN labelled USING (number) WHERE labelled.judged_at IS NULL AND num_labels >= ? AND model = ? "
            "ORDER BY number",
            min_labels,
            model,
        )
        return list(found)

    def early(self, keys: Sequence[str]) -> dict[str, str]:
        """Labels by key that came before their items."""
        found: dict[str, str] = {}
        for some in _pieces(keys) if self.num_early() else ():
            marks = ", ".join("?" * len(some))
            query = f"SELECT key, label FROM early WHERE key IN ({marks})"  # noqa: S608
            found.update(self._connection.execute(query, some).fetchall())
        return found

    def num_early(self) -> int:
        """Labels whose items were not judged yet."""
        return int(self._one("SELECT count(*) FROM early"))

    def unfinished(self) -> list[WindowRecord]:
        """Windows that are judged but not yet published, or not yet told to anybody; oldest first."""
        return list(self._windows("WHERE is_published = 0 OR is_told = 0 ORDER BY number"))

    def unfinished_labels(self) -> list[WindowRecord]:
        """Windows whose labels are judged but not yet published, or not yet told to anybody; oldest first.

        Of these records, whether it is published and told is that of the labels.
        """
        columns = "number, name, labelled.judged_at, model, labelled.is_published, labelled.is_told"
        condition = (
            "JOIN labelled USING (number) WHERE labelled.judged_at IS NOT NULL "
            "AND (labelled.is_published = 0 OR labelled.is_told = 0) ORDER BY number"
        )
        return list(self._windows(condition, columns=columns))

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
        """Which items were judged or rejected before, for ids of shape ``(N, 16)``; these are seen again herewith."""
        keys = [row.tobytes() for row in ids]
        known: set[bytes] = set()
        for some in _pieces(keys):
            marks = ", ".join("?" * len(some))
            rows = self._connection.execute(f"SELECT id FROM items WHERE id IN ({marks})", some)  # noqa: S608
            known.update(row[0] for row in rows)
        self._again += known
        return np.array([key in known for key in keys], bool)

    def note(self, advance: Advance, *, now: datetime) -> None:
        """Remember what a pass without anything to judge has seen."""
        with self._transaction():
            self._advance(advance, now=now)

    def commit(
        self,
        advance: Advance,
        *,
        record: WindowRecord,
        control: Any,
        labelled: Labelled | None = None,
        is_measured: bool = False,
    ) -> None:
        """Remember a judged window, all of it or nothing.

        Args:
            advance: What it has seen.
            record: Its number, name and time.
            control: What it leaves to the next one, as JSON values.
            labelled: Its labels so far, where it waits for more.
            is_measured: Whether these were enough to judge it by.
        """
        with self._transaction():
            self._advance(advance, now=record.judged_at)
            self._connection.execute(
                "INSERT INTO windows VALUES (?, ?, ?, ?, 0, 0)",
                [record.number, record.name, record.judged_at.isoformat(), record.model],
            )
            if labelled is not None:
                judged_at = record.judged_at.isoformat() if is_measured else None
                self._connection.execute(
                    "INSERT INTO labelled VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [*labelled, judged_at, is_measured, is_measured],
                )
            self._set("control", json.dumps(control))

    def commit_labels(self, number: int, *, judged_at: datetime, control: Any) -> None:
        """Remember that a window was judged by its labels, and what that leaves to the next verdict."""
        with self._transaction():
            self._connection.execute(
                "UPDATE labelled SET judged_at = ? WHERE number = ?", [judged_at.isoformat(), number]
            )
            self._set("control", json.dumps(control))

    def mark_labels_published(self, number: int) -> None:
        """Remember that the verdict about a window's labels is in its place."""
        self._connection.execute("UPDATE labelled SET is_published = 1 WHERE number = ?", [number])

    def mark_labels_told(self, number: int) -> None:
        """Remember that the verdict about a window's labels was announced."""
        self._connection.execute("UPDATE labelled SET is_told = 1 WHERE number = ?", [number])

    def forget_labels(self, *, before: datetime) -> list[str]:
        """Wait no longer for labels of windows that were judged earlier; the names of these windows."""
        condition = (
            "JOIN labelled USING (number) WHERE windows.judged_at < ? "
            "AND (labelled.judged_at IS NULL OR labelled.is_told = 1)"
        )
        with self._transaction():
            old = list(self._windows(condition, before.isoformat()))
            self._connection.executemany("DELETE FROM labelled WHERE number = ?", ([one.number] for one in old))
            self._connection.execute("DELETE FROM early WHERE seen_at < ?", [before.timestamp()])
        return [one.name for one in old]

    def forget_items(self, *, days: float, now: datetime) -> None:
        """Forget items that were not seen for so many days; once a day, as all of them are looked at."""
        day = int(now.timestamp() // DAY_S)
        latest = self._connection.execute("SELECT value FROM meta WHERE key = 'forgot'").fetchone()
        if latest is not None and int(latest[0]) == day:
            return
        with self._transaction():
            self._connection.execute("UPDATE items SET day = ? WHERE day IS NULL OR day > ?", [day, day])
            self._connection.execute("DELETE FROM items WHERE day < ?", [day - days])
            self._set("forgot", str(day))

    def forget_windows(self, *, keep: int) -> list[str]:
        """Forget all but the newest windows, and those that somebody waits for; the names of those that are left."""
        condition = "number IN (SELECT number FROM labelled) OR is_published = 0 OR is_told = 0"
        with self._transaction():
            self._connection.execute(
                f"DELETE FROM windows WHERE number <= (SELECT max(number) FROM windows) - ? AND NOT ({condition})",  # noqa: S608
                [keep],
            )
        return [one.name for one in self._windows("ORDER BY number")]

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
        day = int(now.timestamp() // DAY_S)
        self._connection.executemany(
            "INSERT OR IGNORE INTO items VALUES (?, ?)", ([row.tobytes(), day] for row in ordered)
        )  # in order of the ids: every page is written once
        self._connection.executemany(
            "UPDATE items SET day = ? WHERE id = ? AND day < ?", ([day, key, day - REFRESH_DAYS] for key in self._again)
        )
        self._again.clear()
        for files, is_done in ((advance.done, 1), (advance.waiting, 0)):
            self._connection.executemany(
                "INSERT INTO files VALUES (?, ?, ?, ?, ?) ON CONFLICT (origin, key) DO UPDATE SET "
                "seen_at = CASE WHEN stamp = excluded.stamp AND is_done = excluded.is_done THEN seen_at "
                "ELSE excluded.seen_at END, stamp = excluded.stamp, is_done = excluded.is_done",
                ([advance.origin, key, stamp, is_done, now.timestamp()] for key, stamp in files.items()),
            )
        if advance.place is not None:
            self._set(f"place {advance.origin}", advance.place)
        self._connection.executemany(
            "UPDATE labelled SET num_labels = ?, num_contradicting = num_contradicting + ? WHERE number = ?",
            ([one.num_labels, one.num_contradicting, one.number] for one in advance.labelled),
        )
        self._connection.executemany("DELETE FROM early WHERE key = ?", ([key] for key in advance.arrived))
        self._connection.executemany(
            "INSERT OR IGNORE INTO early VALUES (?, ?, ?)",
            ([key, label, now.timestamp()] for key, label in advance.early.items()),
        )

    def _prepare(self, path: Path) -> None:
        with self._transaction():
            if not self._one("SELECT count(*) FROM sqlite_master WHERE name = 'meta'"):
                self._execute(SCHEMA)
                self._set("version", str(VERSION))
            self._execute(LABELS)
            if self._one("SELECT value FROM meta WHERE key = 'version'") == "1":
                self._connection.execute(
                    "ALTER TABLE items ADD COLUMN day INTEGER"
                )  # known from when it is first asked
                self._set("version", str(VERSION))
        version = int(self._one("SELECT value FROM meta WHERE key = 'version'"))
        if version != VERSION:
            raise DataError(f"{path} has version {version}, this datamill reads {VERSION}; use the one that wrote it")

    def _execute(self, script: str) -> None:
        for statement in filter(str.strip, script.split(";")):
            self._connection.execute(statement)

    def _windows(self, condition: str, *values: Any, columns: str = WINDOW_COLUMNS) -> Iterator[WindowRecord]:
        rows = self._connection.execute(f"SELECT {columns} FROM windows {condition}", values)  # noqa: S608
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
