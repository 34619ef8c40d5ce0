"""Rows of a database, some at a time, through SQLAlchemy; nothing is ever written to it.

As a source of ingest, a query is asked twice within one transaction, whose rows no other changes: once to learn classes
and kinds, once to make samples. Rows come in the order of the ``id`` and then of all columns, so that equal rows give
equal samples in whatever order the database holds them.
"""

import hashlib
import itertools
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from datamill.errors import DataError
from datamill.redaction import redact
from datamill.samples import Dataset, Feature, sort_classes
from datamill.sources.batches import BATCH_ROWS, Reading
from datamill.sources.chunks import Chunk
from datamill.sources.columns import Kind, as_label
from datamill.sources.params import QuerySource
from datamill.sources.rows import RowReader
from datamill.sources.table import Column, declared_kind, features_of, require_few_classes

OF = "ingest.source"
FILE = "query"  # what stands for the name of a file in keys and places
TABLE = re.compile(r"[\w.]+")
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
Statement = tuple[str, Mapping[str, Any]]


def address(url: str, *, of: str) -> str:
    """The address of a database: ``url`` itself, or what the environment variable of that name holds.

    Args:
        url: SQLAlchemy's address, or a name in capitals.
        of: The parameter that holds it, for messages.

    Raises:
        DataError: The variable is not set.
    """
    if VARIABLE.fullmatch(url) is None:
        return url
    if not os.environ.get(url):
        raise DataError(f"{of} names the environment variable {url}, which is not set; set it")
    return os.environ[url]


def relation(query: str) -> str:
    """What stands behind FROM: a table's name, or a SELECT in brackets whose colons are the user's own."""
    bare = query.strip().rstrip(";")
    escaped = re.sub(r"(?<!:):(?!:)", r"\:", bare)
    return bare if TABLE.fullmatch(bare) else f"({escaped}) AS watched"


def read(source: QuerySource) -> Reading:
    """The rows of a table or a query.

    A sample's source key is the value of the ``id`` column, or else ``query#<hash of the row>#<occurrence>``. A column
    is one of numbers when at least ``NUMERIC_SHARE`` of its values are numbers to the database; text that looks like a
    number, as a post code, is a category.

    Raises:
        DataError: The database cannot be reached, the query fails, a column is missing, or no column is a feature.
    """
    batches = _read(source)
    dataset, num_items = next(batches)
    return Reading(dataset=dataset, num_items=num_items, batches=batches)


def fingerprint(source: QuerySource) -> str:
    """Hash of what ``version`` answers, or of the number of rows (32 hexadecimal digits).

    Raises:
        DataError: The database cannot be reached, or the query fails.
    """
    text = source.version or f"SELECT count(*) FROM {relation(source.query)}"  # noqa: S608 - the user's own
    with connected(_address(source), of=OF) as connection:
        answer = [str(value) for row in connection.execute(sqlalchemy.text(text)) for value in row]
    return hashlib.blake2b(json.dumps([source.query, answer]).encode(), digest_size=16).hexdigest()


def _address(source: QuerySource) -> str:
    return address(source.url_variable, of=f"{OF}.url_variable")


def _read(source: QuerySource) -> Iterator[Any]:
    """Data set and number of rows, then batches of them."""
    with connected(_address(source), of=OF) as connection:
        statement = _ordered(connection, source=source)
        kinds, labels, num_rows = _profile(pieces(connection, statement=statement), source=source)
        if not num_rows:
            raise DataError(f"{OF}.query answers with no row; add rows, or correct it")
        features = tuple(
            Feature(name=name, kind="number" if kind == "number" else "category") for name, kind in kinds.items()
        )
        classes = sort_classes(list(labels))
        dataset = Dataset(name=FILE, modality="tabular", classes=classes, features=features)
        yield dataset, num_rows
        rows = RowReader(source=source, dataset=dataset, kinds=kinds)
        first = 1
        for names, some in pieces(connection, statement=statement):
            places = [f"{FILE}:{first + place}" for place in range(len(some))]
            yield rows.batch(Chunk(as_columns(names, some), places, []), file=FILE)
            first += len(some)


def _ordered(connection: sqlalchemy.Connection, *, source: QuerySource) -> Statement:
    """The query with its rows in an order of their own."""
    quote = connection.dialect.identifier_preparer.quote
    empty = connection.execute(sqlalchemy.text(f"SELECT * FROM {relation(source.query)} WHERE 1 = 0"))  # noqa: S608
    names = list(empty.keys())
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{OF}.query answers with several columns called {twice}; give every column a name of its own")
    features_of(names, source=source, where=f"{OF}.query")
    order = sorted(names, key=lambda name: name != source.id)  # the id first, the others as they stand
    columns = ", ".join(quote(name) for name in order)
    return f"SELECT * FROM {relation(source.query)} ORDER BY {columns}", {}  # noqa: S608


def _profile(
    found: Iterator[tuple[list[str], Sequence[Sequence[Any]]]], *, source: QuerySource
) -> tuple[dict[str, Kind], set[str], int]:
    """Kinds of the features, classes, and how many rows there are."""
    columns: dict[str, Column] = {}
    labels: set[str] = set()
    num_rows = 0
    for names, rows in found:
        values = as_columns(names, rows)
        columns = columns or {name: Column() for name in features_of(names, source=source, where=f"{OF}.query")}
        for name, column in columns.items():
            _count(column, [row[names.index(name)] for row in rows], kind=declared_kind(values[name].type, name=name))
        known = as_label(values[source.target], kind=source.target_kind).values.drop_null()
        labels.update(pc.unique(known).to_pylist())
        require_few_classes(labels, source=source)
        num_rows += len(rows)
    return {name: column.inferred() for name, column in columns.items()} | dict(source.kinds), labels, num_rows


def _count(column: Column, values: Sequence[Any], *, kind: Kind) -> None:
    """Learn the values of a column; those of several types come as text, and count as what they are."""
    known = [value for value in values if value is not None]
    column.num_values += len(known)
    column.num_booleans += sum(isinstance(value, bool) for value in known)
    column.num_numbers += (
        len(known)
        if kind == "number"
        else sum(isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in known)
    )


@contextmanager
def connected(url: str, *, of: str) -> Iterator[sqlalchemy.Connection]:
    """A connection that only reads; what the database complains of is told without the address and without values.

    Where the database can, all that is asked through it sees the rows as they are at first.

    Raises:
        DataError: The address or the statement does not work.
    """
    try:
        engine = sqlalchemy.create_engine(url)
    except ImportError as error:
        raise DataError(f"{of}.url needs a driver: {error}; install it or name another") from error
    except SQLAlchemyError as error:
        raise DataError(f"{of}.url is no address that works here ({type(error).__name__})") from error
    try:
        with engine.connect() as connection:
            yield _reading_only(connection)
    except SQLAlchemyError as error:
        reason = redact(str(getattr(error, "orig", None) or type(error).__name__))  # the rest may repeat values
        told = " ".join(reason.split())  # a driver's words may span lines
        raise DataError(f"the query of {of} failed: {told}; correct it, or the address it is sent to") from error
    finally:
        engine.dispose()


def _reading_only(connection: sqlalchemy.Connection) -> sqlalchemy.Connection:
    """The connection in a transaction that can write nothing; of databases we do not know, only SELECTs are asked."""
    name = connection.dialect.name
    if name == "postgresql":
        return connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    if name in {"mysql", "mariadb"}:
        connection.exec_driver_sql("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.rollback()  # it holds from the next transaction on
    if name == "sqlite":
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.exec_driver_sql("BEGIN")  # its driver begins none for a SELECT
    return connection


def pieces(
    connection: sqlalchemy.Connection, *, statement: Statement
) -> Iterator[tuple[list[str], Sequence[Sequence[Any]]]]:
    """Names of the columns and rows, at most ``BATCH_ROWS`` at a time; at first the names with no row.

    Args:
        connection: To a database.
        statement: Text and values of the query.
    """
    text, values = statement
    streaming = connection.execution_options(stream_results=True, yield_per=BATCH_ROWS)
    result = streaming.execute(sqlalchemy.text(text), values)
    names = list(result.keys())
    yield names, []
    while some := list(itertools.islice(result, BATCH_ROWS)):
        yield names, some


def as_columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, pa.Array]:
    """Rows as columns by name."""
    return {name: as_array([row[number] for row in rows]) for number, name in enumerate(names)}


def as_array(values: Sequence[Any]) -> pa.Array:
    """Values of a database as a column: numbers, times, booleans, or texts.

    What becomes of a value does not depend on the others that come with it, but that those of several types are texts:
    1 is no 1.0 because 2.5 comes next.
    """
    plain = [float(value) if isinstance(value, Decimal) else value for value in values]
    kinds = {type(value) for value in plain} - {type(None)}
    if kinds & {bytes, memoryview}:  # which is refused, whatever else there is
        return pa.array([None if value is None else _as_bytes(value) for value in plain], pa.binary())
    if len(kinds) < 2 and not kinds & {uuid.UUID, time, timedelta}:
        try:
            return pa.array(plain)
        except (pa.ArrowException, OverflowError):  # a type that Arrow does not know, a number beyond 64 bits
            pass
    return pa.array([None if value is None else str(value) for value in plain], pa.string())


def _as_bytes(value: Any) -> bytes:
    return bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
