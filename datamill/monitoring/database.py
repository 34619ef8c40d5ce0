"""The cursor's SQLite database: its tables, and its older versions made into this one."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from datamill.errors import DataError

VERSION = 2
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


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The database in the file ``path``, which is made where there is none.

    Raises:
        DataError: The file is damaged or of another version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            _prepare(connection, path=path)
            yield connection
    except sqlite3.DatabaseError as error:
        raise DataError(
            f"{path} cannot be used ({error}); restore it from a backup, or delete it to judge everything anew"
        ) from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """What is done in the block is done as a whole, or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def value(connection: sqlite3.Connection, key: str) -> str | None:
    """What is noted under a key; ``None`` where nothing is."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone()
    return None if row is None else str(row[0])


def set_value(connection: sqlite3.Connection, key: str, text: str) -> None:
    """Note a text under a key."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", [key, text])


def one(connection: sqlite3.Connection, query: str) -> Any:
    """The value that a query finds."""
    return connection.execute(query).fetchone()[0]


def _prepare(connection: sqlite3.Connection, *, path: Path) -> None:
    with transaction(connection):
        if not one(connection, "SELECT count(*) FROM sqlite_master WHERE name = 'meta'"):
            _execute(connection, SCHEMA)
            set_value(connection, "version", str(VERSION))
        _execute(connection, LABELS)
        if value(connection, "version") == "1":
            connection.execute("ALTER TABLE items ADD COLUMN day INTEGER")  # known from when it is first asked
            set_value(connection, "version", str(VERSION))
    version = value(connection, "version")
    if version != str(VERSION):
        raise DataError(f"{path} has version {version}, this datamill reads {VERSION}; use the one that wrote it")


def _execute(connection: sqlite3.Connection, script: str) -> None:
    for statement in filter(str.strip, script.split(";")):
        connection.execute(statement)
