"""What must survive a kill: open episodes, the record of windows, messages, and how far each channel has got.

All of it is one SQLite file, so that a window changes the episodes and writes its messages in one transaction, or not
at all. Messages are numbered; a channel remembers the number it goes on with.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from datamill.alerts.alert import Reading
from datamill.alerts.episodes import Change, State, step
from datamill.alerts.messages import Message, message_of
from datamill.alerts.params import AlertParams, Sends
from datamill.alerts.windows import Window, window_of
from datamill.errors import StageError
from datamill.settings import STATE

FOLDER = f"{STATE}/watch"
FILE = "alerts.db"
VERSION = 1
WINDOWS_KEPT = 1_000  # whatever their age
PATIENCE_S = 30.0  # for another process to end its transaction
SEVERITIES: Mapping[Sends, tuple[str, ...]] = {"pages": ("page",), "all": ("page", "notice"), "nothing": ()}

SCHEMA = """
CREATE TABLE IF NOT EXISTS remembered (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS windows (
    number INTEGER PRIMARY KEY AUTOINCREMENT, window TEXT NOT NULL, model TEXT NOT NULL, at TEXT NOT NULL,
    body TEXT NOT NULL, UNIQUE (window, model));
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, severity TEXT NOT NULL, at TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    channel TEXT PRIMARY KEY, next INTEGER NOT NULL, attempts INTEGER NOT NULL, not_before TEXT, error TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Delivery:
    """The message a channel goes on with.

    Attributes:
        number: Its number.
        message: What to tell.
        attempts: How often it was tried.
        not_before: When to try again; ``None`` for now.
    """

    number: int
    message: Message
    attempts: int
    not_before: datetime | None


@dataclass(frozen=True)
class Waiting:
    """A channel that is behind.

    Attributes:
        channel: Its name.
        num_messages: Messages that wait for it.
        error: Why the latest attempt failed; empty where there was none.
    """

    channel: str
    num_messages: int
    error: str


class Store:
    """The alerts of one workspace."""

    def __init__(self, root: Path) -> None:
        """Open the store of the workspace ``root``, or begin it.

        Raises:
            StageError: It is damaged, or of another version.
        """
        self.folder = root / FOLDER
        self._path = self.folder / FILE
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._transaction() as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version not in {0, VERSION}:
                raise StageError(f"{self._path} is of version {version}, this datamill writes version {VERSION}")
            for statement in SCHEMA.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {VERSION}")

    def begin_channels(self, names: Iterable[str]) -> None:
        """Let channels that are new go on from here: what was told before is not told to them."""
        with self._transaction() as database:
            number = _newest(database, "messages") + 1
            rows = [(name, number, 0, "") for name in names]
            database.executemany(
                "INSERT OR IGNORE INTO deliveries (channel, next, attempts, error) VALUES (?, ?, ?, ?)", rows
            )

    def record(self, reading: Reading, *, params: AlertParams, now: datetime) -> tuple[Change, ...]:
        """What a window changed, remembered with the messages it gives; a window that was recorded changes nothing."""
        with self._transaction() as database:
            known = database.execute(
                "SELECT 1 FROM windows WHERE window = ? AND model = ?", (reading.window, reading.model)
            )
            if known.fetchone():
                return ()
            state, changes = step(
                _state(database),
                reading,
                now=now,
                cooldown=timedelta(hours=params.cooldown_h),
                calm_windows=params.calm_windows,
            )
            _remember(database, "state", state.model_dump_json())
            _insert_window(database, window_of(reading, changes, now=now))
            for change in changes:
                if change.is_told:
                    _insert_message(database, message_of(change, reading=reading, now=now))
            _prune(database, params=params, now=now)
        return changes

    def open_episodes(self) -> State:
        """The episodes as they are."""
        with self._transaction() as database:
            return _state(database)

    def windows_since(self, since: datetime | None) -> list[Window]:
        """Windows judged at ``since`` or later; ``None`` for those after the latest digest."""
        with self._transaction() as database:
            return _windows(database, since=since)

    @contextmanager
    def digesting(self) -> Iterator[tuple[list[Window], State, list[Message]]]:
        """The windows since the latest digest and the open episodes; what is put into the list is sent.

        The windows count as told of, and the message is written, when the block ends without an error, in one
        transaction.
        """
        with self._transaction() as database:
            messages: list[Message] = []
            yield _windows(database, since=None), _state(database), messages
            for message in messages:
                _insert_message(database, message)
            _remember(database, "digested", str(_newest(database, "windows")))

    def next_for(self, channel: str, *, severities: Iterable[str]) -> Delivery | None:
        """What the channel goes on with; ``None`` when it has everything that it wants.

        What it does not want is behind it then: a channel that comes to want more is not told the past.
        """
        with self._transaction() as database:
            row = _next(database, channel, severities=tuple(severities))
            if row is None:
                number = _newest(database, "messages") + 1
                database.execute("UPDATE deliveries SET next = ? WHERE channel = ?", (number, channel))
                return None
        not_before = datetime.fromisoformat(row["not_before"]) if row["not_before"] else None
        return Delivery(row["number"], Message.model_validate_json(row["body"]), row["attempts"], not_before)

    def begin_attempt(self, channel: str) -> None:
        """Remember that an attempt begins, so that one in which the process dies counts as well."""
        with self._transaction() as database:
            database.execute("UPDATE deliveries SET attempts = attempts + 1 WHERE channel = ?", (channel,))

    def succeed(self, channel: str, *, number: int) -> None:
        """Remember that the channel has the message ``number``."""
        with self._transaction() as database:
            database.execute(
                "UPDATE deliveries SET next = ?, attempts = 0, not_before = NULL, error = '' WHERE channel = ?",
                (number + 1, channel),
            )

    def fail(self, channel: str, *, error: str, not_before: datetime) -> None:
        """Remember why the attempt failed, and when the next one is due."""
        with self._transaction() as database:
            database.execute(
                "UPDATE deliveries SET not_before = ?, error = ? WHERE channel = ?",
                (not_before.isoformat(), error, channel),
            )

    def waiting(self, severities: Mapping[str, tuple[str, ...]]) -> list[Waiting]:
        """Channels that are behind, of those named."""
        found = []
        with self._transaction() as database:
            for channel, wanted in severities.items():
                marks = ", ".join("?" * len(wanted))
                row = database.execute(
                    "SELECT count(*) AS num, error FROM deliveries JOIN messages ON number >= next "  # noqa: S608
                    f"WHERE channel = ? AND severity IN ({marks})",
                    (channel, *wanted),
                ).fetchone()
                if row["num"]:
                    found.append(Waiting(channel, row["num"], row["error"]))
        return found

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=PATIENCE_S, isolation_level=None)) as database:
                database.row_factory = sqlite3.Row
                database.execute("BEGIN IMMEDIATE")
                yield database
                database.execute("COMMIT")
        except sqlite3.Error as error:
            raise StageError(
                f"{self._path}: {error}; alerts cannot be kept. If the file is damaged, move it away: open alerts are "
                "then raised anew"
            ) from error


def severities_of(params: AlertParams) -> dict[str, tuple[str, ...]]:
    """Severities that each channel gets."""
    return {
        name: SEVERITIES[channel.sends] + (("digest",) if channel.digest else ())
        for name, channel in params.channels.items()
    }


def _state(database: sqlite3.Connection) -> State:
    text = _remembered(database, "state")
    return State.model_validate_json(text) if text else State()


def _remembered(database: sqlite3.Connection, key: str) -> str | None:
    row = database.execute("SELECT value FROM remembered WHERE key = ?", (key,)).fetchone()
    return row["value"] if row else None


def _remember(database: sqlite3.Connection, key: str, value: str) -> None:
    database.execute("INSERT OR REPLACE INTO remembered (key, value) VALUES (?, ?)", (key, value))


def _newest(database: sqlite3.Connection, table: str) -> int:
    """The latest number given in a table; 0 at first."""
    row = database.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return int(row[0])


def _windows(database: sqlite3.Connection, *, since: datetime | None) -> list[Window]:
    digested = int(_remembered(database, "digested") or 0) if since is None else 0
    rows = database.execute("SELECT body FROM windows WHERE number > ? ORDER BY number", (digested,))
    windows = [Window.model_validate_json(row["body"]) for row in rows]
    return [window for window in windows if since is None or window.at >= since]


def _insert_window(database: sqlite3.Connection, window: Window) -> None:
    database.execute(
        "INSERT INTO windows (window, model, at, body) VALUES (?, ?, ?, ?)",
        (window.window, window.model, window.at.isoformat(), window.model_dump_json()),
    )


def _insert_message(database: sqlite3.Connection, message: Message) -> None:
    database.execute(
        "INSERT INTO messages (severity, at, body) VALUES (?, ?, ?)",
        (message.severity, message.at.isoformat(), message.model_dump_json()),
    )


def _next(database: sqlite3.Connection, channel: str, *, severities: tuple[str, ...]) -> Any:
    marks = ", ".join("?" * len(severities))
    return database.execute(
        "SELECT number, body, attempts, not_before FROM deliveries JOIN messages ON number >= next "  # noqa: S608
        f"WHERE channel = ? AND severity IN ({marks}) ORDER BY number LIMIT 1",
        (channel, *severities),
    ).fetchone()


def _prune(database: sqlite3.Connection, *, params: AlertParams, now: datetime) -> None:
    """Forget what is old: messages that every channel has, and windows but the latest, which must not come twice."""
    before = (now - timedelta(days=params.keep_days)).isoformat()
    pending = [_next(database, name, severities=wanted) for name, wanted in severities_of(params).items()]
    oldest = min((row["number"] for row in pending if row is not None), default=None)
    database.execute(
        "DELETE FROM messages WHERE at < ? AND (? IS NULL OR number < ?)",
        (before, oldest, oldest),
    )
    database.execute(
        "DELETE FROM windows WHERE at < ? AND number <= (SELECT max(number) FROM windows) - ?",
        (before, WINDOWS_KEPT),
    )
