"""Rows of CSV and Parquet files.

A table is read twice: once to learn its classes and the kind of each column, once to make samples.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from datamill import parts
from datamill.errors import DataError
from datamill.samples import Dataset, Feature, sort_classes
from datamill.sources.batches import Batch, Known, Reading
from datamill.sources.chunks import Chunk, read_chunks
from datamill.sources.columns import BOOLEAN, Kind, as_label, as_number
from datamill.sources.journal import Journal, Memory
from datamill.sources.listing import StoredFile
from datamill.sources.params import RowSource, TableSource
from datamill.sources.rows import RowReader
from datamill.sources.stores import Store, open_store, refuse_changes

NUMERIC_SHARE = 0.99  # of the values of a text column that makes it one of numbers; the odd rows become rejects
MAX_CLASSES = 10_000
ENDINGS = {"csv": (".csv", ".csv.gz", ".tsv", ".tsv.gz"), "parquet": (".parquet", ".pq")}


class Column(BaseModel):
    """What the first pass learns of a feature."""

    kind: Kind | None = None
    num_values: int = 0
    num_numbers: int = 0
    num_booleans: int = 0

    def add(self, other: "Column") -> None:
        """Take in what was learnt of other rows, whose declared kind is no other one."""
        self.kind = self.kind or other.kind
        self.num_values += other.num_values
        self.num_numbers += other.num_numbers
        self.num_booleans += other.num_booleans

    def inferred(self) -> Kind:
        """The declared kind; for text, and where nothing but nulls was declared, the kind of its values."""
        if self.kind is not None:
            return self.kind
        if self.num_numbers >= NUMERIC_SHARE * self.num_values:
            return "number"
        return "boolean" if self.num_booleans == self.num_values else "category"


class _Profile(BaseModel):
    """What the first pass learns of a file, or of several."""

    names: tuple[str, ...] = ()
    columns: dict[str, Column] = {}
    labels: set[str] = set()
    num_rows: int = 0


class _Facts(BaseModel):
    """What the journal keeps of a file: its profile, and as what kinds its features were read."""

    profile: _Profile
    kinds: dict[str, Kind]


class _File(NamedTuple):
    """A file and its profile; if it has not changed, what the last ingest made of it, and as what kinds it was read."""

    stored: StoredFile
    profile: _Profile
    memory: Memory | None
    kinds: dict[str, Kind]


def read(source: TableSource, *, journal: Journal) -> Reading:
    """The rows of one or several files.

    A sample's source key is the value of the ``id`` column, or else ``<file>#<hash of the row>#<occurrence>``, so that
    rows which are added or removed change no other row's identity. A column of text is one of numbers when at least
    ``NUMERIC_SHARE`` of its values are numbers, and a row with another value there becomes a reject.

    Raises:
        DataError: There is no such file, files differ in their columns, a column is missing, or no column is a feature.
    """
    store = open_store(source.path)
    files = _profiled(store, table_files(store, source=source), source=source, journal=journal)
    profile = _united(files, source=source)
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
    rows = RowReader(source=source, dataset=dataset, kinds=kinds)
    known = _still_known(files, source=source, kinds=kinds)
    batches = _batches(store, known, source=source, rows=rows, kinds=kinds, journal=journal)
    return Reading(dataset=dataset, num_items=profile.num_rows, batches=batches)


def table_files(store: Store, *, source: TableSource) -> list[StoredFile]:
    """The files of the table, in the order of their keys.

    Raises:
        DataError: There is none, or one must not be read.
    """
    files = store.files()
    if store.is_folder():
        files = [file for file in files if file.key.lower().endswith(ENDINGS[source.format])]
    if not files:
        raise DataError(f"{source.path} holds no file that ends with {' or '.join(ENDINGS[source.format])}")
    faults = [f"{file.key} ({file.fault[1]})" for file in files if file.fault is not None]
    if faults:
        raise DataError(f"{source.path}: {', '.join(faults)} cannot be read; remove it or name the files with a glob")
    return files


def _profiled(store: Store, files: Sequence[StoredFile], *, source: TableSource, journal: Journal) -> list[_File]:
    """The files with their profiles; those that have not changed are not opened."""
    profiled = []
    for file, memory in zip(files, journal.recall_each([(one.key, one.stamp) for one in files]), strict=True):
        if memory is not None and memory.facts is not None:
            facts = _Facts.model_validate_json(memory.facts)
            profiled.append(_File(file, facts.profile, memory, facts.kinds))
        else:
            profiled.append(_File(file, _profile(store, file, source=source), None, {}))
    return profiled


def _profile(store: Store, file: StoredFile, *, source: TableSource) -> _Profile:
    profile = _Profile()
    for chunk in read_chunks(store, file, source=source):
        if not profile.names:
            features = features_of(list(chunk.columns), source=source, where=file.key)
            profile = _Profile(names=tuple(chunk.columns), columns={name: Column() for name in features})
        _learn(profile, chunk, source=source)
    return profile


def _united(files: Sequence[_File], *, source: TableSource) -> _Profile:
    """The profile of all files together.

    Raises:
        DataError: Two differ in their columns or in the type of one, or there are too many classes.
    """
    first = files[0]
    whole = _Profile(names=first.profile.names, columns={name: Column() for name in first.profile.columns})
    for file in files:
        if set(file.profile.names) != set(whole.names):
            differing = sorted(set(file.profile.names) ^ set(whole.names))
            raise DataError(
                f"{file.stored.key} and {first.stored.key} differ in columns {differing}; give all files equal columns"
            )
        for name, column in whole.columns.items():
            other = file.profile.columns[name]
            if column.kind and other.kind and column.kind != other.kind and name not in source.kinds:
                raise DataError(
                    f"{file.stored.key}: column {name!r} is of type {other.kind}, and {column.kind} in a file "
                    f"before it; give all files one type, or name its kind under ingest.source.kinds"
                )
            column.add(other)
        whole.labels |= file.profile.labels
        whole.num_rows += file.profile.num_rows
        require_few_classes(whole.labels, source=source)
    return whole


def features_of(names: Sequence[str], *, source: RowSource, where: str) -> list[str]:
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
        raise DataError(f"{where} has no column {', '.join(missing)}; its columns are {list(names)}{hint}")
    taken = {*(column for _, column in roles), *source.exclude}
    features = [name for name in names if name not in taken]
    if "" in features:
        raise DataError(f"{where}: column {names.index('') + 1} has no name; name it, or list '' under exclude")
    if not features:
        raise DataError(f"{where} has no feature: every column of {list(names)} has a role or is excluded")
    return features


def _learn(profile: _Profile, chunk: Chunk, *, source: TableSource) -> None:
    profile.num_rows += len(chunk.places) + len(chunk.rejects)
    labels = as_label(chunk.columns[source.target], kind=source.target_kind).values
    profile.labels.update(pc.unique(labels.drop_null()).to_pylist())
    require_few_classes(profile.labels, source=source)
    for name, column in profile.columns.items():
        values = chunk.columns[name]
        if source.format == "parquet":
            column.kind = None if pa.types.is_null(values.type) else declared_kind(values.type, name=name)
            continue
        column.num_values += len(values) - values.null_count
        column.num_numbers += len(values) - as_number(values).values.null_count
        column.num_booleans += pc.sum(pc.is_in(pc.utf8_lower(values), BOOLEAN)).as_py() or 0


def declared_kind(kind: pa.DataType, *, name: str) -> Kind:
    """The kind of a feature of this type.

    Raises:
        DataError: Its values are no feature.
    """
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        raise DataError(f"column {name!r} holds {kind} values, which are no feature; list it under exclude")
    is_number = (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    )
    return "number" if is_number else "category"


def require_few_classes(labels: set[str], *, source: RowSource) -> None:
    """Refuse a target that is no class.

    Raises:
        DataError: It has more than ``MAX_CLASSES`` values.
    """
    if len(labels) > MAX_CLASSES:
        raise DataError(f"target {source.target!r} has more than {MAX_CLASSES} values; name the column of the class")


def _still_known(files: Sequence[_File], *, source: TableSource, kinds: dict[str, Kind]) -> list[_File]:
    """The files, without what is remembered of those whose rows would not come out the same."""
    known = []
    next_row = 0
    for file in files:
        fits = file.memory is not None and list(file.kinds.items()) == list(kinds.items())  # parts keep their order too
        if source.id is not None and file.memory is not None:
            # An id refuses later rows that have it too: nothing is certain after the first file that changed.
            fits = fits and file.memory.samples.start == next_row
        next_row = file.memory.samples.stop if fits and file.memory is not None else -1
        known.append(file if fits else file._replace(memory=None))
    return known


def _batches(
    store: Store,
    files: Sequence[_File],
    *,
    source: TableSource,
    rows: RowReader,
    kinds: dict[str, Kind],
    journal: Journal,
) -> Iterator[Batch | Known]:
    listed = [file.stored for file in files]
    refuse_changes(source.path, before=listed, after=table_files(store, source=source))
    if source.id is not None:
        for ids in _known_ids(files, journal=journal):
            rows.remember(ids)
    for file, profile, memory, _ in files:
        num_samples = num_rejects = 0
        if memory is not None:
            num_samples, num_rejects = len(memory.samples), len(memory.rejects)
            yield Known(memory.samples, memory.rejects)
        elif store.is_unchanged(file):
            for chunk in read_chunks(store, file, source=source):
                batch = rows.batch(chunk, file=file.key)
                num_samples, num_rejects = num_samples + batch.table.num_rows, num_rejects + len(batch.rejects)
                yield batch
        else:
            break  # it may have lost a column; the comparison below names it
        facts = _Facts(profile=profile, kinds=kinds)
        journal.record_each([(file.key, file.stamp, num_samples, num_rejects, facts.model_dump_json())])
    refuse_changes(source.path, before=listed, after=table_files(store, source=source))


def _known_ids(files: Sequence[_File], *, journal: Journal) -> Iterator[pa.ChunkedArray]:
    """Ids in the files that are still known, all of which come first."""
    left = max((file.memory.samples.stop for file in files if file.memory is not None), default=0)
    if journal.samples is None:
        return
    for table in parts.iter_tables(journal.samples, columns=["source"]):
        if not left:
            return
        ids = table["source"].slice(0, left)
        left -= len(ids)
        yield ids
