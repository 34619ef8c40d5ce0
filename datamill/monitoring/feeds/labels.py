"""Labels that come by themselves, after the items they are of."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from datamill.errors import DataError
from datamill.monitoring.answers import LABELS
from datamill.monitoring.cursor import Cursor
from datamill.monitoring.feeds.files import FileFeed, has_ending
from datamill.monitoring.feeds.queries import NewRows, RowsFeed
from datamill.monitoring.feeds.settling import Found, WatchedPlace
from datamill.monitoring.feeds.units import Feed, Portion, Schema, Unit
from datamill.monitoring.params import LabelQuery, LabelTable
from datamill.sources.chunks import Chunk, read_chunks
from datamill.sources.columns import as_label, as_text
from datamill.sources.table import ENDINGS

OF = "source.labels.data"


class TableLabels(FileFeed):
    """Labels in files of rows; ``key`` of a portion's table is what the column ``id`` holds."""

    def __init__(self, data: LabelTable, *, place: WatchedPlace) -> None:
        """Read what is new in ``place``."""
        super().__init__(place)
        self._data = data

    def _is_wanted(self, key: str) -> bool:
        return has_ending(key, place=self._place, endings=ENDINGS[self._data.format])

    def _portions(self, one: Found) -> Iterator[Portion]:
        for chunk in read_chunks(self._place.store, one.file, source=self._data):
            yield Portion(labels_of(chunk, data=self._data, where=one.file.key))


class QueryLabels(RowsFeed):
    """Labels in rows of a database."""

    def __init__(self, data: LabelQuery, *, cursor: Cursor) -> None:
        """Read on from the cursor's place."""
        super().__init__(NewRows(data, cursor=cursor, kind="labels query", of=OF))
        self._data = data

    def _portions(self) -> Iterator[Portion]:
        for chunk, place in self._rows.chunks():
            yield Portion(labels_of(chunk, data=self._data, where="the query"), place=place)


class ImageLabels:
    """Images that come again with their class; ``key`` of a portion's table is the hash of the content."""

    def __init__(self, feed: Feed) -> None:
        """Take the labels of a feed of images."""
        self._feed = feed
        self.origin = feed.origin
        self.schema = Schema()

    @property
    def waiting(self) -> Mapping[str, str]:
        """Files that are too young."""
        return self._feed.waiting

    def keys(self) -> Iterator[Sequence[str]] | None:
        """Every file that is there now."""
        return self._feed.keys()

    def units(self) -> Iterator[Unit]:
        """The units of the images."""
        return (unit._replace(portions=self._portions(unit.portions)) for unit in self._feed.units())

    def _portions(self, portions: Iterator[Portion]) -> Iterator[Portion]:
        for one in portions:
            known = one.table.filter(pc.not_equal(one.table["label"], ""))
            table = pa.table([known["content_hash"], known["label"]], schema=LABELS)
            yield one._replace(table=table)


def labels_of(chunk: Chunk, *, data: LabelTable | LabelQuery, where: str) -> pa.Table:
    """Keys and labels of a chunk's rows; those without a key or a label that can be read are left out.

    Raises:
        DataError: One of the columns is missing.
    """
    missing = sorted({data.id, data.target} - set(chunk.columns))
    if missing:
        raise DataError(f"{where} has no column {missing} with labels ({OF}); it has {sorted(chunk.columns)[:8]}")
    kind: Literal["category", "number"] = data.target_kind
    keys, labels = as_text(chunk.columns[data.id]), as_label(chunk.columns[data.target], kind=kind).values
    table = pa.table([keys, labels], schema=LABELS)
    return table.filter(pc.and_(pc.is_valid(keys), pc.is_valid(labels)))
