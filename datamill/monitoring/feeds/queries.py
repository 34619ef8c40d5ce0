"""Rows of a database that came after those of the last window."""

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from datamill.errors import DataError
from datamill.monitoring.cursor import Cursor
from datamill.monitoring.feeds.rows import RowRoles, SchemaReader
from datamill.monitoring.feeds.settling import origin_of
from datamill.monitoring.feeds.units import Portion, Schema, Unit
from datamill.monitoring.params import WatchedQuery
from datamill.preprocessing import Preprocessor
from datamill.samples import Dataset
from datamill.sources.batches import BATCH_ROWS
from datamill.sources.chunks import Chunk
from datamill.tracking import redact

VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
TABLE = re.compile(r"[\w.]+")
PLACE = "place"  # the parameter of the statement


class QueryFeed:
    """Rows whose cursor is not behind the last one read; those that were judged are told apart by their ids."""

    def __init__(self, data: WatchedQuery, *, cursor: Cursor, dataset: Dataset, preprocessor: Preprocessor) -> None:
        """Read on from the cursor's place."""
        # The cursor is part of what names a row where no column does: rows that are equal otherwise come again.
        roles = RowRoles(data.target, data.target_kind, data.time, data.id, data.exclude, group=data.cursor)
        self._data = data
        self._url = _address(data.url)
        self.origin = origin_of("query", f"{redact(self._url)}\0{data.query}\0{data.cursor}")
        self._place = cursor.place(self.origin)
        self._reader = SchemaReader(roles, dataset=dataset, preprocessor=preprocessor)

    @property
    def schema(self) -> Schema:
        """How the columns differ."""
        return self._reader.schema

    @property
    def waiting(self) -> Mapping[str, str]:
        """No file waits."""
        return {}

    def keys(self) -> None:
        """There are no files."""

    def units(self) -> Iterator[Unit]:
        """All rows that may be new, as one unit."""
        yield Unit({}, self._portions(), is_second_look=False)

    def _portions(self) -> Iterator[Portion]:
        try:
            engine = sqlalchemy.create_engine(self._url)
        except ImportError as error:
            raise DataError(f"source.data.url needs a driver: {error}; install it or name another") from error
        except SQLAlchemyError as error:
            raise DataError(f"source.data.url is no address that works here ({type(error).__name__})") from error
        try:
            with engine.connect() as connection:
                streaming = connection.execution_options(stream_results=True, yield_per=BATCH_ROWS)
                result = streaming.execute(*self._statement(engine))
                yield from self._read(list(result.keys()), rows=iter(result))
        except SQLAlchemyError as error:
            reason = redact(str(getattr(error, "orig", None) or type(error).__name__))  # the rest may repeat values
            raise DataError(f"the query of watch.yaml failed: {reason}; correct source.data") from error
        finally:
            engine.dispose()

    def _statement(self, engine: sqlalchemy.Engine) -> tuple[sqlalchemy.TextClause, dict[str, Any]]:
        query = self._data.query.strip().rstrip(";")
        escaped = re.sub(r"(?<!:):(?!:)", r"\:", query)  # a colon is the user's own, not a parameter of ours
        source = query if TABLE.fullmatch(query) else f"({escaped}) AS watched"
        column = engine.dialect.identifier_preparer.quote(self._data.cursor)
        if self._place is None:
            return sqlalchemy.text(f"SELECT * FROM {source} ORDER BY {column}"), {}  # noqa: S608 - the user's own
        bounded = f"SELECT * FROM {source} WHERE {column} >= :{PLACE} OR {column} IS NULL ORDER BY {column}"  # noqa: S608
        return sqlalchemy.text(bounded), {PLACE: behind(self._place, overlap=self._data.overlap)}

    def _read(self, names: Sequence[str], *, rows: Iterator[Any]) -> Iterator[Portion]:
        if self._data.cursor not in names:
            raise DataError(f"the query has no column {self._data.cursor!r} to read on by; it has {list(names)}")
        column = names.index(self._data.cursor)
        place = self._place
        while some := list(itertools.islice(rows, BATCH_ROWS)):
            columns = {name: as_array([row[number] for row in some]) for number, name in enumerate(names)}
            places = [f"query:{row[column]}" for row in some]
            portion = self._reader.portion(Chunk(columns, places, []), file="query")
            place = next((as_place(row[column]) for row in reversed(some) if row[column] is not None), place)
            yield portion._replace(place=place)


def as_array(values: Sequence[Any]) -> pa.Array:
    """Values of a database as a column: numbers, times, booleans, or texts."""
    plain = [float(value) if isinstance(value, Decimal) else value for value in values]
    try:
        return pa.array(plain)
    except pa.ArrowException:  # several types in a column
        return pa.array([None if value is None else str(value) for value in plain], pa.string())


def as_place(value: Any) -> str:
    """A value of the cursor's column as JSON."""
    if isinstance(value, datetime | date):
        return json.dumps({"time": value.isoformat()})
    return json.dumps({"value": float(value) if isinstance(value, Decimal) else value})


def behind(place: str, *, overlap: float) -> Any:
    """The value to read on from: ``overlap`` behind a place; a time that a database gives as text stays text."""
    told = json.loads(place)
    if "time" in told:
        return datetime.fromisoformat(told["time"]) - timedelta(seconds=overlap)
    value = told["value"]
    if isinstance(value, str):
        try:
            moved = datetime.fromisoformat(value) - timedelta(seconds=overlap)
        except ValueError:
            return value
        return moved.isoformat(sep=" " if " " in value else "T") if overlap else value
    return value - overlap if overlap else value


def _address(url: str) -> str:
    if VARIABLE.fullmatch(url) is None:
        return url
    if not os.environ.get(url):
        raise DataError(f"source.data.url names the environment variable {url}, which is not set; set it")
    return os.environ[url]
