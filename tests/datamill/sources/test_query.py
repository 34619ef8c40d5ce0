"""Rows of a database as a source of ingest."""

import sqlite3
import subprocess
import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy
from pydantic import ValidationError

from datamill import sources
from datamill.errors import DataError
from datamill.samples import Dataset
from datamill.sources import query
from datamill.sources.batches import Reject
from tests.datamill.sources.drain import TABLE_FIELDS, drain, drain_table, make_params, opened

FIELDS: dict[str, Any] = {
    "kind": "query",
    "url_variable": "CARS_URL",
    "query": "cars",
    "version": None,
    **{name: TABLE_FIELDS[name] for name in ("target", "target_kind", "group", "time", "id", "exclude", "kinds")},
}
CARS = pd.DataFrame(
    {
        "size": [1.0, 2.5, None, 4.0],
        "wheels": [4, 4, 3, 2],
        "colour": ["red", "blue", None, "red"],
        "zip": ["01234", "99999", "01234", "55555"],
        "class": ["a", "b", "a", "b"],
    }
)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SQLite file with the table ``cars``, whose address the environment holds."""
    path = tmp_path / "rows.db"
    fill(path, CARS)
    monkeypatch.setenv("CARS_URL", f"sqlite:///{path}")
    return path


def fill(path: Path, frame: pd.DataFrame, *, table: str = "cars") -> None:
    with sqlite3.connect(path) as connection:
        frame.to_sql(table, connection, index=False, if_exists="append")
    connection.close()


def read(**fields: Any) -> tuple[Dataset, pa.Table, list[Reject]]:
    return drain({**FIELDS, **fields})


def test_columns_get_their_kind_from_the_database_and_digits_as_text_stay_text(database: Path) -> None:
    dataset, table, rejects = read()
    assert (dataset.name, dataset.classes, rejects) == ("query", ("a", "b"), [])
    assert [(feature.name, feature.kind) for feature in dataset.features] == [
        ("size", "number"), ("wheels", "number"), ("colour", "category"), ("zip", "category"),
    ]  # fmt: skip
    assert sorted(zip(table["feature:zip"].to_pylist(), table["feature:wheels"].to_pylist(), strict=True)) == [
        ("01234", 3.0), ("01234", 4.0), ("55555", 2.0), ("99999", 4.0),
    ]  # fmt: skip


def test_a_query_and_a_parquet_file_of_the_same_rows_give_equal_contents(database: Path, tmp_path: Path) -> None:
    CARS.to_parquet(tmp_path / "cars.parquet")
    _, ours, _ = read()
    _, theirs, _ = drain_table(tmp_path / "cars.parquet", format="parquet")
    for column in ("content_hash", "label"):
        assert sorted(ours[column].to_pylist()) == sorted(theirs[column].to_pylist())


def test_rows_in_another_order_are_the_same_samples_in_the_same_order(database: Path) -> None:
    _, first, _ = read()
    with sqlite3.connect(database) as connection:
        connection.execute("DROP TABLE cars")
    connection.close()
    fill(database, CARS[::-1])
    _, second, _ = read()
    assert first.equals(second)


def test_a_select_is_read_as_a_table_and_its_colons_are_its_own(database: Path) -> None:
    _, table, _ = read(query="SELECT *, '12:30' AS at FROM cars WHERE wheels = 4;")
    assert table["feature:at"].to_pylist() == ["12:30", "12:30"]


def test_roles_and_kinds_are_those_of_a_table(database: Path) -> None:
    frame = CARS.assign(key=["k3", "k1", "k2", "k0"], at=["2024-01-31"] * 4, who=["p", "p", "q", "q"])
    fill(database, frame, table="owned")
    dataset, table, _ = read(
        query="owned", id="key", time="at", group="who", exclude=["size"], kinds={"wheels": "category"}
    )
    assert [(one.name, one.kind) for one in dataset.features] == [
        ("wheels", "category"), ("colour", "category"), ("zip", "category"),
    ]  # fmt: skip
    assert table["source"].to_pylist() == ["k0", "k1", "k2", "k3"]
    assert table["group"].to_pylist() == ["q", "p", "q", "p"]
    assert table["feature:wheels"].to_pylist() == ["2", "4", "3", "4"]


def test_rows_that_cannot_be_samples_are_rejects_with_their_place(database: Path) -> None:
    rows = [(key, "tall" if key == 199 else key / 2, None if key == 3 else "ab"[key % 2]) for key in range(200)]
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE odd (key, size, class)")
    connection.executemany("INSERT INTO odd VALUES (?, ?, ?)", rows)
    connection.commit()
    connection.close()
    _, table, rejects = read(query="odd", id="key")
    assert table.num_rows == 198
    assert rejects == [
        Reject("query:4", "target_missing", "column 'class' is empty"),
        Reject("query:200", "not_a_number", "column 'size' holds 'tall', which is not a number"),
    ]


def test_rows_do_not_change_while_they_are_read(database: Path) -> None:
    with opened(make_params(FIELDS)) as reading:
        connection = sqlite3.connect(database, timeout=0)
        connection.execute("DELETE FROM cars")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            connection.commit()
        connection.close()
        num_samples = sum(batch.table.num_rows for batch in reading.batches)  # type: ignore[union-attr]
    assert (reading.num_items, num_samples) == (4, 4)


def test_nothing_can_be_written_through_it(database: Path) -> None:
    with pytest.raises(DataError, match="failed: attempt to write a readonly database; correct it"):  # noqa: SIM117
        with query.connected(f"sqlite:///{database}", of="ingest.source") as connection:
            connection.execute(sqlalchemy.text("DELETE FROM cars"))
    with pytest.raises(DataError, match="syntax error"):
        read(query="DELETE FROM cars RETURNING *")
    assert read()[1].num_rows == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"query": "absent"}, r"the query of ingest\.source failed: no such table: absent; correct it"),
        ({"query": "SELECT * FROM cars WHERE wheels > 9"}, r"ingest\.source\.query answers with no row; add rows"),
        ({"target": "kind"}, r"ingest\.source\.query has no column 'kind' \(target\); its columns are \['size'"),
        ({"query": "SELECT class FROM cars"}, "has no feature"),
        ({"query": "SELECT x'00' AS raw, class FROM cars"}, "column 'raw' holds binary values, which are no feature"),
        (
            {"url_variable": "NOBODY"},
            r"ingest\.source\.url_variable names the environment variable NOBODY, which is not",
        ),
    ],
)
def test_what_is_wrong_is_told(database: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(**fields)


def test_an_address_never_stands_in_params_and_a_password_is_never_told(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValidationError, match="url_variable"):
        make_params({**FIELDS, "url_variable": "postgresql://watch:secret@db/requests"})
    monkeypatch.setenv("CARS_URL", "nosuchdatabase://user:secret@host/db")
    with pytest.raises(DataError, match=r"ingest\.source\.url is no address that works here") as caught:
        read()
    assert "secret" not in str(caught.value)


def test_the_fingerprint_changes_with_the_rows_or_with_what_version_answers(database: Path) -> None:
    counted = make_params(FIELDS)
    newest = make_params({**FIELDS, "version": "SELECT max(wheels) FROM cars"})
    before = sources.fingerprint(counted), sources.fingerprint(newest)
    assert sources.fingerprint(counted) == before[0]
    fill(database, CARS[:1])
    assert sources.fingerprint(counted) != before[0]
    assert sources.fingerprint(newest) == before[1]
    assert sources.is_remote(counted)
    assert sources.local_paths(counted) == []


PEAK = """
import resource, sys
from tests.datamill.sources.test_query import FIELDS
from tests.datamill.sources.drain import make_params, opened
with opened(make_params({**FIELDS, "query": sys.argv[1]})) as reading:
    print(sum(batch.table.num_rows for batch in reading.batches), end=" ")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(database: Path, repository: Path) -> None:
    text = """WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last})
    SELECT i * 0.5 AS a, i % 7 AS b, 'text ' || i AS c, CASE i % 2 WHEN 0 THEN 'x' ELSE 'y' END AS class FROM n"""
    peaks = []
    for count in (20_000, 400_000):
        command = [sys.executable, "-c", PEAK, text.format(last=count - 1)]
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
        num_rows, peak_kib = map(int, done.stdout.split())
        assert num_rows == count
        peaks.append(peak_kib)
    assert peaks[1] - peaks[0] < 100 * 1024  # KiB; the rows themselves would take more


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2.5, None], ["1", "2.5", None]),
        ([1, "x"], ["1", "x"]),
        ([date(2024, 1, 2), datetime(2024, 1, 2, 3, tzinfo=UTC)], ["2024-01-02", "2024-01-02 03:00:00+00:00"]),
        ([2**70, 1], [str(2**70), "1"]),
        ([UUID(int=7)], ["00000000-0000-0000-0000-000000000007"]),
        ([time(1, 2), None], ["01:02:00", None]),
        ([Decimal("1.5"), 2.5], [1.5, 2.5]),
        ([3, None], [3, None]),
    ],
)
def test_what_becomes_of_a_value_does_not_depend_on_its_neighbours(values: list[Any], expected: list[Any]) -> None:
    assert query.as_array(values).to_pylist() == expected


def test_a_class_is_the_same_in_every_batch(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE mixed (size, class)")
        connection.executemany("INSERT INTO mixed VALUES (?, ?)", [(1, 1), (2, 1), (3, 1), (4, 2.5)])
    connection.close()
    monkeypatch.setattr(query, "BATCH_ROWS", 2)
    assert read(query="mixed")[1]["label"].to_pylist() == ["1", "1", "1", "2.5"]


@pytest.mark.parametrize("values", [[b"a", b"b"], [memoryview(b"a"), None], [b"a", "b"], [1, b"\xff"]])
def test_bytes_are_refused_wherever_they_stand(values: list[Any]) -> None:
    assert query.as_array(values).type == pa.binary()
