"""Rows of CSV and Parquet files that are added or grow."""

from collections.abc import Iterator, Mapping, Sequence

from datamill.monitoring.feeds.rows import RowRoles, SchemaReader
from datamill.monitoring.feeds.settling import Found, WatchedPlace
from datamill.monitoring.feeds.units import Portion, Schema, Unit
from datamill.monitoring.params import WatchedTable
from datamill.preprocessing import Preprocessor
from datamill.samples import Dataset
from datamill.sources.chunks import read_chunks
from datamill.sources.table import ENDINGS


class TableFeed:
    """New files of rows, and files that have changed; rows that were judged are told apart by their ids."""

    def __init__(
        self, data: WatchedTable, *, place: WatchedPlace, dataset: Dataset, preprocessor: Preprocessor
    ) -> None:
        """Read what is new in ``place`` as samples of ``dataset``."""
        roles = RowRoles(data.target, data.target_kind, data.time, data.id, data.exclude)
        self._data = data
        self._place = place
        self._reader = SchemaReader(roles, dataset=dataset, preprocessor=preprocessor)

    @property
    def origin(self) -> str:
        """Digest of the place."""
        return self._place.origin

    @property
    def schema(self) -> Schema:
        """How the columns differ."""
        return self._reader.schema

    @property
    def waiting(self) -> Mapping[str, str]:
        """Files that are too young."""
        return self._place.waiting

    def keys(self) -> Iterator[Sequence[str]]:
        """Every file that is there now."""
        return self._place.keys()

    def units(self) -> Iterator[Unit]:
        """A unit per new or changed file."""
        is_folder = self._place.store.is_folder()
        for found in self._place.fresh():
            for one in found:
                if not is_folder or one.file.key.lower().endswith(ENDINGS[self._data.format]):
                    yield Unit({one.file.key: one.stamp}, self._portions(one), one.is_second_look)

    def _portions(self, one: Found) -> Iterator[Portion]:
        for chunk in read_chunks(self._place.store, one.file, source=self._data):
            yield self._reader.portion(chunk, file=one.file.key)
