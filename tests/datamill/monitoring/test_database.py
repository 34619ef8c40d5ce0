"""The database of the cursor: made, refused, rolled back."""

import sqlite3
from pathlib import Path

import pytest

from datamill.errors import DataError
from datamill.monitoring import database


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "cursor.db"
    path.write_bytes(b"no database at all, but long enough to be looked at as one" * 20)
    with pytest.raises(DataError, match="delete it to judge everything anew"), database.opened(path):
        pass


def test_a_newer_version_is_told(tmp_path: Path) -> None:
    path = tmp_path / "cursor.db"
    with database.opened(path) as connection:
        assert database.value(connection, "version") == "2"
        database.set_value(connection, "version", "3")
    with pytest.raises(DataError, match="has version 3, this datamill reads 2"), database.opened(path):
        pass


def test_an_error_in_a_transaction_undoes_all_of_it(tmp_path: Path) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        with database.transaction(connection):
            database.set_value(connection, "one", "1")
            raise KeyError

    with database.opened(tmp_path / "cursor.db") as connection:
        with pytest.raises(KeyError):
            fail(connection)
        assert database.value(connection, "one") is None
