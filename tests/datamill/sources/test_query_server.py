"""A query on PostgreSQL: as a source of ingest, of windows, and of labels."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from datamill.errors import DataError
from datamill.sources import query
from tests.datamill.sources.drain import drain, make_params, opened
from tests.datamill.sources.test_query import CARS, FIELDS
from tests.deployments import services
from tests.watched import change_watch, look, make_workspace, new_rows

pytestmark = [
    pytest.mark.services,
    pytest.mark.xdist_group("postgres"),
    pytest.mark.skipif(services.missing() is not None, reason=str(services.missing())),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL server of our own."""
    running = services.Services(tmp_path_factory.mktemp("postgres"))
    try:
        running.start("postgres")
        where = f"{services.HOST}:{running.ports['postgres']}"
        yield f"postgresql+psycopg2://postgres:{running.passwords['postgres']}@{where}/postgres"
    finally:
        running.stop_all()


@pytest.fixture
def engine(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlalchemy.Engine]:
    """A database that is empty at first, whose address the environment holds."""
    monkeypatch.setenv("CARS_URL", address)
    engine = sqlalchemy.create_engine(address)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    yield engine
    engine.dispose()


def test_a_table_of_postgresql_becomes_the_samples_that_a_file_of_it_does(engine: sqlalchemy.Engine) -> None:
    CARS.to_sql("cars", engine, index=False)
    dataset, table, rejects = drain(FIELDS)
    assert [(one.name, one.kind) for one in dataset.features] == [
        ("size", "number"), ("wheels", "number"), ("colour", "category"), ("zip", "category"),
    ]  # fmt: skip
    assert (table.num_rows, rejects) == (4, [])
    assert sorted(table["feature:wheels"].to_pylist()) == [2.0, 3.0, 4.0, 4.0]


def test_types_of_postgresql_are_read(engine: sqlalchemy.Engine) -> None:
    query_text = """SELECT i AS key, i * 0.1::numeric AS price, i % 2 = 0 AS is_new, 'x'::char(3) AS code,
        timestamptz '2030-01-01 12:00+02' + i * interval '1 hour' AS at, md5(i::text)::uuid AS token,
        CASE WHEN i % 3 = 0 THEN 'a' ELSE 'b' END AS class FROM generate_series(1, 9000) AS i"""
    dataset, table, rejects = drain({**FIELDS, "query": query_text, "id": "key", "time": "at", "exclude": ["token"]})
    assert {one.name: one.kind for one in dataset.features} == {
        "price": "number", "is_new": "category", "code": "category",
    }  # fmt: skip
    assert (table.num_rows, rejects) == (9000, [])
    assert table["source"].to_pylist()[:3] == ["1", "2", "3"]
    assert table["feature:price"].to_pylist()[2] == pytest.approx(0.3)
    assert table["feature:is_new"].to_pylist()[:2] == ["false", "true"]
    assert table["time"].to_pylist()[0].isoformat() == "2030-01-01T11:00:00+00:00"


def test_rows_that_come_and_go_while_it_is_read_are_not_seen(engine: sqlalchemy.Engine) -> None:
    CARS.to_sql("cars", engine, index=False)
    with opened(make_params(FIELDS)) as reading:
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM cars WHERE wheels = 4")
        num_samples = sum(batch.table.num_rows for batch in reading.batches)  # type: ignore[union-attr]
    assert (reading.num_items, num_samples) == (4, 4)


def test_nothing_is_written_whatever_the_query_says(engine: sqlalchemy.Engine, address: str) -> None:
    CARS.to_sql("cars", engine, index=False)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE FUNCTION spoil() RETURNS int LANGUAGE sql AS 'DELETE FROM cars; SELECT 1'")
    with pytest.raises(DataError, match="cannot execute DELETE in a read-only transaction"):
        drain({**FIELDS, "query": "SELECT *, spoil() AS spoilt FROM cars"})
    with pytest.raises(DataError, match=r"several columns called \['class'\]"):
        drain({**FIELDS, "query": "SELECT size, class, class FROM cars"})
    with query.connected(address, of="ingest.source") as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM cars").scalar() == 4


def test_a_wrong_password_is_not_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    password = address.partition("://")[2].partition("@")[0].partition(":")[2]
    monkeypatch.setenv("CARS_URL", address.replace(password, "s3cr3t-guess"))
    with pytest.raises(DataError, match=r"the query of ingest\.source failed: .*authentication failed") as caught:
        drain(FIELDS)
    assert "s3cr3t" not in str(caught.value)


def test_windows_and_their_labels_come_from_postgresql(engine: sqlalchemy.Engine, tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "rows", modality="tabular")
    shared = {"kind": "query", "url": "CARS_URL", "overlap": 0, "target_kind": "category", "id": "key"}
    change_watch(
        root,
        source__data={**shared, "query": "requests", "cursor": "key", "target": None, "time": None, "exclude": []},
        source__labels__data={**shared, "query": "verdicts", "cursor": "given", "target": "kind"},
        drift__min_labels=30,
    )
    rows = new_rows(count=40, labelled=True).to_pandas()
    rows.insert(0, "key", range(40))
    rows.drop(columns="kind").to_sql("requests", engine, index=False)
    verdicts = rows[["key", "kind"]].assign(given=range(40))
    verdicts[:10].to_sql("verdicts", engine, index=False)
    first = look(root)
    assert first.judged is not None
    assert first.judged.verdict.num_samples == 40
    verdicts[10:].to_sql("verdicts", engine, index=False, if_exists="append")
    found = look(root, minutes=1)
    assert found.judged is None
    (judged,) = found.labelled
    assert judged.verdict.num_samples == 40
    shutil.rmtree(root)
