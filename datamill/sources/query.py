"""Rows of a database, some at a time, through SQLAlchemy; nothing is ever written to it."""

import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pyarrow as pa
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from datamill.errors import DataError
from datamill.sources.batches import BATCH_ROWS
from datamill.tracking import redact

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


@contextmanager
def connected(url: str, *, of: str) -> Iterator[sqlalchemy.Connection]:
    """A connection; what the database complains of is told without the address and without values.

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
            yield connection
    except SQLAlchemyError as error:
        reason = redact(str(getattr(error, "orig", None) or type(error).__name__))  # the rest may repeat values
        raise DataError(f"the query of {of} failed: {reason}; correct it") from error
    finally:
        engine.dispose()


def pieces(
    connection: sqlalchemy.Connection, *, statement: Callable[[Callable[[str], str]], Statement]
) -> Iterator[tuple[list[str], Sequence[Sequence[Any]]]]:
    """Names of the columns and rows, at most ``BATCH_ROWS`` at a time; at first the names with no row.

    Args:
        connection: To a database.
        statement: Text and values of the query, given how the database quotes a column's name.
    """
    text, values = statement(connection.dialect.identifier_preparer.quote)
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
    """Values of a database as a column: numbers, times, booleans, or texts."""
    plain = [float(value) if isinstance(value, Decimal) else value for value in values]
    try:
        return pa.array(plain)
    except pa.ArrowException:  # several types in a column
        return pa.array([None if value is None else str(value) for value in plain], pa.string())
