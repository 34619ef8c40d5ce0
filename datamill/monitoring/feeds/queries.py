"""Rows of a database that came after those that were read last."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from datamill.errors import DataError
from datamill.monitoring.cursor import Cursor
from datamill.monitoring.feeds.rows import RowRoles, SchemaReader
from datamill.monitoring.feeds.settling import origin_of
from datamill.monitoring.feeds.units import Portion, Schema, Unit
from datamill.monitoring.params import LabelQuery, WatchedQuery
from datamill.preprocessing import Preprocessor
from datamill.redaction import redact
from datamill.samples import Dataset
from datamill.sources import query
from datamill.sources.chunks import Chunk

PLACE = "place"  # the parameter of the statement


class NewRows:
    """Rows whose cursor is not behind the last one read.

    Attributes:
        origin: Digest of the database and the query.
    """

    def __init__(self, data: WatchedQuery | LabelQuery, *, cursor: Cursor, kind: str, of: str) -> None:
        """Read on from the cursor's place.

        Args:
            data: The query.
            cursor: Knows how far it was read.
            kind: What is read; another kind has a place of its own.
            of: The parameter that holds the query, for messages.
        """
        self._data = data
        self._of = of
        self._url = query.address(data.url, of=f"{of}.url")
        self.origin = origin_of(kind, f"{redact(self._url)}\0{data.query}\0{data.cursor}")
        self._place = cursor.place(self.origin)

    def chunks(self) -> Iterator[tuple[Chunk, str | None]]:
        """Rows, and how far they were read with them, as JSON."""
        place = self._place
        with query.connected(self._url, of=self._of) as connection:
            quote = connection.dialect.identifier_preparer.quote
            for names, rows in query.pieces(connection, statement=self._statement(quote(self._data.cursor))):
                if self._data.cursor not in names:
                    raise DataError(f"the query has no column {self._data.cursor!r} to read on by; it has {names}")
                column = names.index(self._data.cursor)
                place = next((as_place(row[column]) for row in reversed(rows) if row[column] is not None), place)
                if rows:
                    yield Chunk(query.as_columns(names, rows), [f"query:{row[column]}" for row in rows], []), place

    def _statement(self, column: str) -> query.Statement:
        source = query.relation(self._data.query)
        if self._place is None:
            return f"SELECT * FROM {source} ORDER BY {column}", {}  # noqa: S608 - the user's own
        bounded = f"SELECT * FROM {source} WHERE {column} >= :{PLACE} OR {column} IS NULL ORDER BY {column}"  # noqa: S608
        return bounded, {PLACE: behind(self._place, overlap=self._data.overlap)}


class RowsFeed:
    """What feeds of a database have in common: one unit, and no files."""

    def __init__(self, rows: NewRows) -> None:
        """Read ``rows``."""
        self._rows = rows
        self.origin = rows.origin
        self.schema = Schema()

    @property
    def waiting(self) -> Mapping[str, str]:
        """No file waits."""
        return {}

    def keys(self) -> Iterator[Sequence[str]] | None:
        """There are no files."""
        return None

    def units(self) -> Iterator[Unit]:
        """All rows that may be new, as one unit."""
        yield Unit({}, self._portions(), is_second_look=False)

    def _portions(self) -> Iterator[Portion]:
        raise NotImplementedError


class QueryFeed(RowsFeed):
    """New rows as samples; those that were judged are told apart by their ids."""

    def __init__(self, data: WatchedQuery, *, cursor: Cursor, dataset: Dataset, preprocessor: Preprocessor) -> None:
        """Read on from the cursor's place."""
        super().__init__(NewRows(data, cursor=cursor, kind="query", of="source.data"))
        # The cursor is part of what names a row where no column does: rows that are equal otherwise come again.
        roles = RowRoles(data.target, data.target_kind, data.time, data.id, data.exclude, group=data.cursor)
        self._reader = SchemaReader(roles, dataset=dataset, preprocessor=preprocessor)
        self.schema = self._reader.schema

    def _portions(self) -> Iterator[Portion]:
        for chunk, place in self._rows.chunks():
            yield self._reader.portion(chunk, file="query")._replace(place=place)


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
