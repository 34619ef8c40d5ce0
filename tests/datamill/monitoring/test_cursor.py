"""The cursor: what was judged is remembered, all of a window or nothing."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.errors import DataError
from datamill.monitoring import database
from datamill.monitoring.cursor import Cursor
from datamill.monitoring.records import Advance, Labelled, WindowRecord

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def ids(*numbers: int) -> np.ndarray:
    """Ids of items."""
    return np.frombuffer(b"".join(number.to_bytes(16, "big") for number in numbers), np.uint8).reshape(-1, 16)


def record(number: int) -> WindowRecord:
    """A window."""
    return WindowRecord(number, f"{number:06d}", NOW, "model", is_published=False, is_told=False)


def test_a_commit_remembers_items_files_control_and_the_window(tmp_path: Path) -> None:
    with Cursor.open(tmp_path / "cursor.db") as cursor:
        assert (cursor.next_number(), cursor.latest(), cursor.control()) == (1, None, None)
        advance = Advance("a", ids(1, 2), done={"one": "s1"}, waiting={"two": "s2"}, place="7")
        cursor.commit(advance, record=record(1), control={"spent": 0.5})
    with Cursor.open(tmp_path / "cursor.db") as cursor:
        assert cursor.next_number() == 2
        assert cursor.latest() == record(1)
        assert cursor.control() == {"spent": 0.5}
        assert cursor.is_known(ids(1, 2, 3)).tolist() == [True, True, False]
        assert cursor.looks("a", keys=["one", "two", "three"]) == {
            "one": ("s1", True, NOW.timestamp()),
            "two": ("s2", False, NOW.timestamp()),
        }
        assert cursor.looks("b", keys=["one"]) == {}
        assert (cursor.place("a"), cursor.place("b")) == ("7", None)


def test_an_error_in_the_middle_of_a_commit_remembers_nothing(tmp_path: Path) -> None:
    with Cursor.open(tmp_path / "cursor.db") as cursor:
        cursor.commit(Advance("a", ids(1)), record=record(1), control={})
        with pytest.raises(DataError, match="cannot be used"), Cursor.open(tmp_path / "cursor.db") as other:
            other.commit(Advance("a", ids(2)), record=record(1), control={})  # its number is taken
        assert cursor.is_known(ids(1, 2)).tolist() == [True, False]


def test_a_file_counts_as_first_seen_until_its_stamp_changes(tmp_path: Path) -> None:
    later = datetime(2030, 1, 2, tzinfo=UTC)
    with Cursor.open(tmp_path / "cursor.db") as cursor:
        for stamp, now, seen in (("s1", NOW, NOW), ("s1", later, NOW), ("s2", later, later)):
            cursor.note(Advance("a", waiting={"one": stamp}), now=now)
            assert cursor.looks("a", keys=["one"])["one"].seen_at == seen.timestamp()


def test_files_that_are_gone_are_forgotten_and_their_items_are_not(tmp_path: Path) -> None:
    with Cursor.open(tmp_path / "cursor.db") as cursor:
        cursor.note(Advance("a", ids(1), done={"one": "s", "two": "s"}), now=NOW)
        cursor.note(Advance("b", done={"one": "s"}), now=NOW)
        cursor.forget_absent("a", present=[["two"], ["three"]])
        assert set(cursor.looks("a", keys=["one", "two"])) == {"two"}
        assert set(cursor.looks("b", keys=["one"])) == {"one"}
        assert cursor.is_known(ids(1)).tolist() == [True]


def test_a_window_is_unfinished_until_it_is_published_and_told(tmp_path: Path) -> None:
    with Cursor.open(tmp_path / "cursor.db") as cursor:
        cursor.commit(Advance("a"), record=record(1), control={})
        cursor.mark_published(1)
        assert [one.is_told for one in cursor.unfinished()] == [False]
        cursor.mark_told(1)
        assert cursor.unfinished() == []


def test_a_file_of_the_first_version_goes_on_with_all_that_it_knows(tmp_path: Path) -> None:
    path = tmp_path / "cursor.db"
    with database.opened(path) as connection:
        connection.execute("DROP TABLE items")
        connection.execute("CREATE TABLE items (id BLOB PRIMARY KEY) WITHOUT ROWID")
        connection.execute("INSERT INTO items VALUES (?)", [ids(1)[0].tobytes()])
        database.set_value(connection, "version", "1")
    with Cursor.open(path) as cursor:
        cursor.forget_items(days=30, now=NOW)
        assert cursor.is_known(ids(1, 2)).tolist() == [True, False]
        cursor.forget_items(days=30, now=NOW + timedelta(days=31))
        assert cursor.is_known(ids(1)).tolist() == [False]


def test_items_that_were_not_seen_for_long_are_forgotten_and_others_are_not(tmp_path: Path) -> None:
    with Cursor.open(tmp_path / "cursor.db") as cursor:
        cursor.note(Advance("a", ids(1, 2)), now=NOW)
        cursor.is_known(ids(1))
        cursor.note(Advance("a"), now=NOW + timedelta(days=20))
        cursor.forget_items(days=30, now=NOW + timedelta(days=40))
        assert cursor.is_known(ids(1, 2)).tolist() == [True, False]


def test_a_clock_that_was_set_back_forgets_nothing_early_and_nothing_never(tmp_path: Path) -> None:
    with Cursor.open(tmp_path / "cursor.db") as cursor:
        cursor.note(Advance("a", ids(1)), now=NOW + timedelta(days=900))
        cursor.forget_items(days=30, now=NOW)
        assert cursor.is_known(ids(1)).tolist() == [True]
        cursor.forget_items(days=30, now=NOW + timedelta(days=31))
        assert cursor.is_known(ids(1)).tolist() == [False]


def test_old_windows_are_forgotten_unless_somebody_waits_for_them(tmp_path: Path) -> None:
    with Cursor.open(tmp_path / "cursor.db") as cursor:
        for number in range(1, 7):
            labelled = Labelled(number, 10, 0) if number == 2 else None
            cursor.commit(Advance("a"), record=record(number), control={}, labelled=labelled)
            cursor.mark_published(number)
            if number != 3:
                cursor.mark_told(number)
        assert cursor.forget_windows(keep=2) == [record(number).name for number in (2, 3, 5, 6)]
        assert cursor.next_number() == 7


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sets(st.integers(0, 60), max_size=20), max_size=6))
def test_exactly_the_committed_items_are_known(
    tmp_path_factory: pytest.TempPathFactory, windows: list[set[int]]
) -> None:
    with Cursor.open(tmp_path_factory.mktemp("cursor") / "cursor.db") as cursor:
        for number, items in enumerate(windows, start=1):
            cursor.commit(Advance("a", ids(*items)), record=record(number), control={})
        known = cursor.is_known(ids(*range(61)))
    assert set(np.flatnonzero(known).tolist()) == set().union(*windows)
