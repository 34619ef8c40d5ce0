"""Which items were judged, so that each is judged once: a small SQLite database in the workspace's own folder.

An item takes about 25 bytes of disk and none of memory. Files that have not changed since all of their items were
judged are not opened, and are forgotten when they are gone. A window advances everything in one transaction. Items that
were not seen for long can be forgotten; one that comes again in time is known for as long again.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from datamill.monitoring import database
from datamill.monitoring.records import Advance, Labelled, Look, WindowRecord

DAY_S = 86_400
REFRESH_DAYS = 7  # an item's day is written anew when it is older, so that a table read every hour is not written then
WINDOW_COLUMNS = "number, name, windows.judged_at, model, windows.is_published, windows.is_told"
AT_ONCE = 16_384  # values of a query; SQLite takes 32,766


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
        with database.opened(path) as connection:
            yield cls(connection)

    def next_number(self) -> int:
        """Number of the next window, from 1."""
        return int(database.one(self._connection, "SELECT coalesce(max(number), 0) + 1 FROM windows"))

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
        return int(database.one(self._connection, "SELECT count(*) FROM early"))

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
        found = database.value(self._connection, "control")
        return None if found is None else json.loads(found)

    def place(self, origin: str) -> str | None:
        """How far a query was read, as JSON; ``None`` before the first window."""
        return database.value(self._connection, f"place {origin}")

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
        with database.transaction(self._connection):
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
        with database.transaction(self._connection):
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
            database.set_value(self._connection, "control", json.dumps(control))

    def commit_labels(self, number: int, *, judged_at: datetime, control: Any) -> None:
        """Remember that a window was judged by its labels, and what that leaves to the next verdict."""
        with database.transaction(self._connection):
            self._connection.execute(
                "UPDATE labelled SET judged_at = ? WHERE number = ?", [judged_at.isoformat(), number]
            )
            database.set_value(self._connection, "control", json.dumps(control))

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
        with database.transaction(self._connection):
            old = list(self._windows(condition, before.isoformat()))
            self._connection.executemany("DELETE FROM labelled WHERE number = ?", ([one.number] for one in old))
            self._connection.execute("DELETE FROM early WHERE seen_at < ?", [before.timestamp()])
        return [one.name for one in old]

    def forget_items(self, *, days: float, now: datetime) -> None:
        """Forget items that were not seen for so many days; once a day, as all of them are looked at."""
        day = int(now.timestamp() // DAY_S)
        if database.value(self._connection, "forgot") == str(day):
            return
        with database.transaction(self._connection):
            self._connection.execute("UPDATE items SET day = ? WHERE day IS NULL OR day > ?", [day, day])
            self._connection.execute("DELETE FROM items WHERE day < ?", [day - days])
            database.set_value(self._connection, "forgot", str(day))

    def forget_windows(self, *, keep: int) -> list[str]:
        """Forget all but the newest windows, and those that somebody waits for; the names of those that are left."""
        condition = "number IN (SELECT number FROM labelled) OR is_published = 0 OR is_told = 0"
        with database.transaction(self._connection):
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
        with database.transaction(self._connection):
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
            database.set_value(self._connection, f"place {advance.origin}", advance.place)
        self._connection.executemany(
            "UPDATE labelled SET num_labels = ?, num_contradicting = num_contradicting + ? WHERE number = ?",
            ([one.num_labels, one.num_contradicting, one.number] for one in advance.labelled),
        )
        self._connection.executemany("DELETE FROM early WHERE key = ?", ([key] for key in advance.arrived))
        self._connection.executemany(
            "INSERT OR IGNORE INTO early VALUES (?, ?, ?)",
            ([key, label, now.timestamp()] for key, label in advance.early.items()),
        )

    def _windows(self, condition: str, *values: Any, columns: str = WINDOW_COLUMNS) -> Iterator[WindowRecord]:
        rows = self._connection.execute(f"SELECT {columns} FROM windows {condition}", values)  # noqa: S608
        for number, name, judged_at, model, is_published, is_told in rows.fetchall():
            time = datetime.fromisoformat(judged_at)
            yield WindowRecord(number, name, time, model, bool(is_published), bool(is_told))


def _pieces(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[start : start + AT_ONCE] for start in range(0, len(values), AT_ONCE))
