"""Listing and reading, locally and in stores that fail."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.errors import DataError
from datamill.sources import listing
from datamill.sources.stores import Store, open_store, refuse_other_listing
from tests.datamill.sources.drain import drain


def put(path: Path, payload: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(payload)
    return path


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been waited."""
    waited: list[float] = []
    monkeypatch.setattr("datamill.sources.retrying.time.sleep", waited.append)
    return waited


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes the memory file system fail at reading one file, as often as asked."""
    memory = fsspec.filesystem("memory")
    memory.pipe({"/flaky/a/1": b"one", "/flaky/b/2": b"two"})

    def fail(answers: list[Any]) -> None:
        real = MemoryFileSystem.cat_file

        def cat_file(self: Any, path: str, **kwargs: Any) -> bytes:
            answer = answers.pop(0) if path.endswith("/a/1") and answers else None
            if isinstance(answer, Exception):
                raise answer
            return bytes(answer) if answer is not None else bytes(real(self, path, **kwargs))

        monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)

    yield fail
    memory.rm("/flaky", recursive=True)


NAMES = st.sampled_from(["a", "b", "a-b", "a.b", "ab", "é", "\U0001f600", "Z", "a b"])


@given(paths=st.sets(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=12))
@settings(max_examples=40, deadline=None)
def test_a_folder_is_walked_in_the_order_of_its_keys(tmp_path_factory: pytest.TempPathFactory, paths: set[str]) -> None:
    root = tmp_path_factory.mktemp("tree")
    memory = fsspec.filesystem("memory")
    memory.makedirs(str(root), exist_ok=True)
    keys = []
    for path in sorted(paths, key=len, reverse=True):  # a name that is a folder already cannot be a file
        if not (root / path).exists() and not any(parent.is_file() for parent in (root / path).parents):
            put(root / path)
            memory.pipe(f"{root}/{path}", b"x")
            keys.append(path)
    for store in (open_store(str(root)), Store(url="memory://", root=str(root), filesystem=memory)):
        assert [key for table in store.tables() for key in table["key"].to_pylist()] == sorted(keys)


def test_a_listing_comes_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LISTED_ROWS", 2)
    for name in "abcde":
        put(tmp_path / name)
    assert [table.num_rows for table in open_store(str(tmp_path)).tables()] == [2, 2, 1]


def test_a_file_that_became_a_pipe_a_folder_or_longer_is_no_longer_what_was_listed(tmp_path: Path) -> None:
    for name in "abcd":
        put(tmp_path / name, b"same size")
    store = open_store(str(tmp_path))
    files = store.files()
    for file in files[:3]:
        Path(file.path).unlink()
    os.mkfifo(tmp_path / "a")
    (tmp_path / "b").mkdir()
    put(tmp_path / "c", b"same size, and more")
    assert [store.read(file) for file in files] == [None, None, None, b"same size"]


def test_a_store_that_fails_twice_is_asked_again(flaky: Callable[..., None], pauses: list[float]) -> None:
    store = open_store("memory://flaky")
    flaky([TimeoutError("slow"), b"on", b"one"])
    assert [store.read(file) for file in store.files()] == [b"one", b"two"]
    assert pauses == [0.5, 2.0]


def test_a_store_that_goes_on_failing_stops_the_run(flaky: Callable[..., None], pauses: list[float]) -> None:
    flaky([ConnectionError("reset by peer")] * 9)
    with pytest.raises(DataError, match=r"a/1 cannot be read: reset by peer; run ingest again"):
        drain({"kind": "image_folder", "path": "memory://flaky", "group_from": "none"})
    assert pauses == [0.5, 2.0, 8.0]


def test_half_a_file_becomes_a_reject(flaky: Callable[..., None], pauses: list[float]) -> None:
    flaky([b"on"] * 9)
    _, _, rejects = drain({"kind": "image_folder", "path": "memory://flaky", "group_from": "none"})
    assert [(reject.source, reject.reason) for reject in rejects] == [
        ("a/1", "changed_while_read"),
        ("b/2", "not_an_image"),
    ]


def test_a_listing_that_fails_is_tried_again(
    flaky: Callable[..., None], pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = MemoryFileSystem.ls, [OSError("503 Slow Down")] * 3

    def ls(self: Any, path: str, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(self, path, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    assert [file.key for file in open_store("memory://flaky").files()] == ["a/1", "b/2"]


def test_what_is_missing_is_not_asked_for_again(pauses: list[float]) -> None:
    with pytest.raises(DataError, match="memory://nowhere does not exist"):
        open_store("memory://nowhere").files()
    assert pauses == []


def rows(keys: str, *, versions: str = "", exempt: str = "") -> pa.Table:
    return pa.table(
        {
            "key": pa.array(list(keys), pa.string()),
            "size_bytes": pa.array([1] * len(keys), pa.int64()),
            "version": pa.array([key if key in versions else "0" for key in keys], pa.string()),
            "is_exempt": pa.array([key in exempt for key in keys], pa.bool_()),
        }
    )


def refuse(before: list[pa.Table], after: list[pa.Table]) -> None:
    refuse_other_listing("pets", before=before, after=after)


def test_equal_listings_pass_however_they_are_divided() -> None:
    refuse([rows("abc"), rows("de")], [rows("a"), rows("bcde")])
    refuse([rows("abc", versions="b")], [rows("ab", versions="b"), rows("c")])


def test_files_that_came_changed_or_went_are_counted_and_the_first_is_named() -> None:
    with pytest.raises(DataError, match="pets: 3 of its files came, changed or went while it was read, first b;"):
        refuse([rows("ab"), rows("ce")], [rows("acd"), rows("e", versions="e")])
    with pytest.raises(DataError, match=r"2 of its files .* first a"):
        refuse([rows("ab")], [])


def test_a_change_that_is_accounted_for_is_none() -> None:
    refuse([rows("abc", exempt="bc")], [rows("ac", versions="c")])


def test_a_folder_that_vanishes_stops_the_run(tmp_path: Path) -> None:
    put(tmp_path / "pets" / "a" / "1")
    store = open_store(str(tmp_path / "pets"))
    tables = store.tables()
    put(tmp_path / "pets" / "a" / "1").unlink()
    (tmp_path / "pets" / "a").rmdir()
    (tmp_path / "pets").rmdir()
    with pytest.raises(DataError, match=r"pets cannot be listed: .*No such file"):
        list(tables)
