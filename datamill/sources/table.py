"""Rows of CSV and Parquet files.

A table is read twice: once to learn its classes and the kind of each column, once to make samples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from datamill.errors import DataError
from datamill.samples import Dataset, Feature, sort_classes
from datamill.sources.batches import Batch, Reading
from datamill.sources.chunks import Chunk, read_chunks
from datamill.sources.columns import BOOLEAN, Kind, as_label, as_number
from datamill.sources.listing import StoredFile
from datamill.sources.params import TableSource
from datamill.sources.rows import RowReader
from datamill.sources.stores import Store, open_store, refuse_changes

NUMERIC_SHARE = 0.99  # of the values of a text column that makes it one of numbers; the odd rows become rejects
MAX_CLASSES = 10_000
ENDINGS = {"csv": (".csv", ".csv.gz", ".tsv", ".tsv.gz"), "parquet": (".parquet", ".pq")}


@dataclass
class _Column:
    """What the first pass learns of a feature."""

    kind: Kind | None = None
    num_values: int = 0
    num_numbers: int = 0
    num_booleans: int = 0

    def inferred(self) -> Kind:
        """The declared kind; for text, the kind of its values."""
        if self.kind is not None:
            return self.kind
        if self.num_numbers >= NUMERIC_SHARE * self.num_values:
            return "number"
        return "boolean" if self.num_booleans == self.num_values else "category"


@dataclass
class _Profile:
    """What the first pass learns of a table."""

    columns: dict[str, _Column] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    num_rows: int = 0


def read(source: TableSource) -> Reading:
    """The rows of one or several files.

    A sample's source key is the value of the ``id`` column, or else ``<file>#<hash of the row>#<occurrence>``, so that
    rows which are added or removed change no other row's identity. A column of text is one of numbers when at least
    ``NUMERIC_SHARE`` of its values are numbers, and a row with another value there becomes a reject.

    Raises:
        DataError: There is no such file, files differ in their columns, a column is missing, or no column is a feature.
    """
    store = open_store(source.path)
    files = _table_files(store, source=source)
    profile = _profile(store, files, source=source)
    if not profile.num_rows:
        raise DataError(f"{source.path} holds column names and no rows; add rows")
    kinds = {name: column.inferred() for name, column in profile.columns.items()} | dict(source.kinds)
    dataset = Dataset(
        name=store.name.partition(".")[0] or "table",
        modality="tabular",
        classes=sort_classes(list(profile.labels)),
        features=tuple(
            Feature(name=name, kind="number" if kind == "number" else "category") for name, kind in kinds.items()
        ),
    )
    batches = _batches(store, files, source=source, rows=RowReader(source=source, dataset=dataset, kinds=kinds))
    return Reading(dataset=dataset, num_items=profile.num_rows, batches=batches)


def _table_files(store: Store, *, source: TableSource) -> list[StoredFile]:
    files = store.files()
    if store.is_folder():
        files = [file for file in files if file.key.lower().endswith(ENDINGS[source.format])]
    if not files:
        raise DataError(f"{source.path} holds no file that ends with {' or '.join(ENDINGS[source.format])}")
    faults = [f"{file.key} ({file.fault[1]})" for file in files if file.fault is not None]
    if faults:
        raise DataError(f"{source.path}: {', '.join(faults)} cannot be read; remove it or name the files with a glob")
    return files


def _profile(store: Store, files: Sequence[StoredFile], *, source: TableSource) -> _Profile:
    profile = _Profile()
    names: list[str] = []
    for file in files:
        for chunk in read_chunks(store, file, source=source):
            if not names:
                names = list(chunk.columns)
                profile.columns = {name: _Column() for name in _features(names, source=source, file=file)}
            elif set(chunk.columns) != set(names):
                differing = sorted(set(chunk.columns) ^ set(names))
                raise DataError(
                    f"{file.key} and {files[0].key} differ in columns {differing}; give all files equal columns"
                )
            _learn(profile, chunk, source=source)
    return profile


def _features(names: Sequence[str], *, source: TableSource, file: StoredFile) -> list[str]:
    """Names of the columns without a role.

    Raises:
        DataError: A column that ``source`` names is missing, a feature has no name, or there is no feature.
    """
    roles = [("target", source.target), ("group", source.group), ("time", source.time), ("id", source.id)]
    named = [
        *roles,
        *(("exclude", column) for column in source.exclude),
        *(("kinds", column) for column in source.kinds),
    ]
    missing = [f"{column!r} ({role})" for role, column in named if column is not None and column not in names]
    if missing:
        hint = "; is ingest.source.delimiter right?" if len(names) == 1 else ""
        raise DataError(f"{file.key} has no column {', '.join(missing)}; its columns are {list(names)}{hint}")
    taken = {*(column for _, column in roles), *source.exclude}
    features = [name for name in names if name not in taken]
    if "" in features:
        raise DataError(f"{file.key}: column {names.index('') + 1} has no name; name it, or list '' under exclude")
    if not features:
        raise DataError(f"{file.key} has no feature: every column of {list(names)} has a role or is excluded")
    return features


def _learn(profile: _Profile, chunk: Chunk, *, source: TableSource) -> None:
    profile.num_rows += len(chunk.places) + len(chunk.rejects)
    labels = as_label(chunk.columns[source.target], kind=source.target_kind).values
    profile.labels.update(pc.unique(labels.drop_null()).to_pylist())
    if len(profile.labels) > MAX_CLASSES:
        raise DataError(f"target {source.target!r} has more than {MAX_CLASSES} values; name the column of the class")
    for name, column in profile.columns.items():
        values = chunk.columns[name]
        if source.format == "parquet":
            column.kind = _declared(values.type, name=name)
            continue
        column.num_values += len(values) - values.null_count
        column.num_numbers += len(values) - as_number(values).values.null_count
        column.num_booleans += pc.sum(pc.is_in(pc.utf8_lower(values), BOOLEAN)).as_py() or 0


def _declared(kind: pa.DataType, *, name: str) -> Kind:
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        raise DataError(f"column {name!r} holds {kind} values, which are no feature; list it under exclude")
    is_number = (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    )
    return "number" if is_number else "category"


def _batches(store: Store, files: Sequence[StoredFile], *, source: TableSource, rows: RowReader) -> Iterator[Batch]:
    refuse_changes(source.path, before=files, after=_table_files(store, source=source))
    for file in files:
        if not store.is_unchanged(file):
            break  # it may have lost a column; the comparison below names it
        for chunk in read_chunks(store, file, source=source):
            yield rows.batch(chunk, file=file.key)
    refuse_changes(source.path, before=files, after=_table_files(store, source=source))
