"""Rows of new data, read into the columns that the model was trained on, whatever columns they come with."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from datamill.errors import DataError
from datamill.monitoring.feeds.units import Portion, Schema
from datamill.preprocessing import Preprocessor, TabularPreprocessor
from datamill.samples import Dataset
from datamill.sources.chunks import Chunk
from datamill.sources.columns import BOOLEAN, Kind
from datamill.sources.rows import RowReader


@dataclass(frozen=True)
class RowRoles:
    """What the columns of new rows are for."""

    target: str | None
    target_kind: Literal["category", "number"]
    time: str | None
    id: str | None
    exclude: tuple[str, ...]
    group: str | None = None


class SchemaReader:
    """Makes samples of chunks; columns that are missing become null, those nobody knows are noted."""

    def __init__(self, roles: RowRoles, *, dataset: Dataset, preprocessor: Preprocessor) -> None:
        """Read rows as samples of the data set the model was trained on."""
        self.schema = Schema()
        self._roles = roles
        self._features = [feature.name for feature in dataset.features]
        self._rows = RowReader(
            source=roles, dataset=dataset, kinds=kinds_of(dataset, preprocessor=preprocessor), needs_labels=False
        )

    def portion(self, chunk: Chunk, *, file: str) -> Portion:
        """The rows of a chunk.

        Raises:
            DataError: No feature is among its columns, the column that names rows is missing, or a column cannot be
                read as what it was in training.
        """
        columns = dict(chunk.columns)
        self._require(columns, file=file)
        roles = {self._roles.target, self._roles.time, *self._roles.exclude, self._roles.id}
        self.schema.unknown.update(set(columns) - roles - set(self._features))
        num_rows = len(chunk.places)
        for name in self._features:
            if name not in columns:
                self.schema.missing[name] += num_rows
        for column in (*self._features, self._roles.target, self._roles.time):
            if column is not None and column not in columns:
                columns[column] = pa.nulls(num_rows, pa.string())
        try:
            batch = self._rows.batch(Chunk(columns, chunk.places, chunk.rejects), file=file)
        except pa.ArrowException as error:
            raise DataError(f"{file}: a column is not what it was in training: {error}") from error
        return Portion(batch.table, batch.rejects)

    def _require(self, columns: Collection[str], *, file: str) -> None:
        if self._roles.id is not None and self._roles.id not in columns:
            raise DataError(f"{file} has no column {self._roles.id!r}, which names its rows; it has {sorted(columns)}")
        if not set(columns) & set(self._features):
            raise DataError(
                f"{file} has none of the columns the model was trained on; it has {sorted(columns)[:8]} and the model "
                f"needs {sorted(self._features)[:8]}"
            )


def kinds_of(dataset: Dataset, *, preprocessor: Preprocessor) -> dict[str, Kind]:
    """How each feature was read in training: categories of true and false alone were booleans."""
    values: Mapping[str, tuple[str | None, ...]] = {}
    if isinstance(preprocessor, TabularPreprocessor):
        values = {column.name: column.values for column in preprocessor.categories}
    booleans = {*BOOLEAN.to_pylist(), None}
    kinds: dict[str, Kind] = {}
    for feature in dataset.features:
        seen = set(values.get(feature.name, ()))
        is_boolean = bool(seen) and seen <= booleans and seen != {None}
        kinds[feature.name] = "boolean" if feature.kind == "category" and is_boolean else feature.kind
    return kinds
