"""Rows of CSV and Parquet files that are added or grow."""

from collections.abc import Iterator

from datamill.monitoring.feeds.files import FileFeed, has_ending
from datamill.monitoring.feeds.rows import RowRoles, SchemaReader
from datamill.monitoring.feeds.settling import Found, WatchedPlace
from datamill.monitoring.feeds.units import Portion
from datamill.monitoring.params import WatchedTable
from datamill.preprocessing import Preprocessor
from datamill.samples import Dataset
from datamill.sources.chunks import read_chunks
from datamill.sources.table import ENDINGS


class TableFeed(FileFeed):
    """New files of rows, and files that have changed; rows that were judged are told apart by their ids."""

    def __init__(
        self, data: WatchedTable, *, place: WatchedPlace, dataset: Dataset, preprocessor: Preprocessor
    ) -> None:
        """Read what is new in ``place`` as samples of ``dataset``."""
        super().__init__(place)
        roles = RowRoles(data.target, data.target_kind, data.time, data.id, data.exclude)
        self._data = data
        self._reader = SchemaReader(roles, dataset=dataset, preprocessor=preprocessor)
        self.schema = self._reader.schema

    def _is_wanted(self, key: str) -> bool:
        return has_ending(key, place=self._place, endings=ENDINGS[self._data.format])

    def _portions(self, one: Found) -> Iterator[Portion]:
        for chunk in read_chunks(self._place.store, one.file, source=self._data):
            yield self._reader.portion(chunk, file=one.file.key)
