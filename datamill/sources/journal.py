"""What the last ingest made of each item, so that the next one opens only what changed.

The journal is no result: it lies in the stage's own folder, may be deleted at any time, and is believed only together
with the outputs it was written with::

    items.parquet   one row per item, in the order it was read: key, stamp, samples and rejects it gave, facts
    journal.json    version, what the items were read with, and SHA-256 of the items, the samples and the rejects

An item is a file, or a part of one. Equal stamps under one key mean equal contents.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from datamill import files, imports, parts
from datamill.errors import DataError
from datamill.hashes import HashIndex, halves
from datamill.samples import Dataset
from datamill.stage import Params

VERSION = 1
JOURNAL, ITEMS, NEXT = "journal.json", "items.parquet", "items.next.parquet"
DECODERS = ("pyarrow", "numpy", "opencv-python", "opencv-python-headless", "pillow")  # they decide what an item becomes
READ_ROWS = 16_384  # items read at a time; bounds memory, not results

ITEM = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("stamp", pa.string()),  # null: must be read again
        pa.field("num_samples", pa.int64(), nullable=False),
        pa.field("num_rejects", pa.int64(), nullable=False),
        pa.field("facts", pa.string()),  # what else the source has to know of it, in its own words
    ]
)
RECALLED = pa.schema(
    [
        *(pa.field(name, pa.int64()) for name in ("sample", "num_samples", "reject", "num_rejects")),
        pa.field("facts", pa.string()),
    ]
)
_KNOWN = pa.schema([ITEM.field("key"), ITEM.field("stamp"), *RECALLED])


class Memory(NamedTuple):
    """What the last ingest made of one item that has not changed: rows of its samples and of its rejects."""

    samples: range
    rejects: range
    facts: str | None


class _Seal(BaseModel):
    """What ``journal.json`` says."""

    model_config = ConfigDict(frozen=True)

    version: int
    made_with: str
    items: str
    manifest: str
    rejects: str


class Journal:
    """The journal of the last ingest, to recall from, and that of this one, to record in.

    Attributes:
        samples: The samples of the last ingest, every byte of which was checked; ``None`` if nothing can be recalled.
        rejects: Its rejects; likewise.
        dataset: Its data set; likewise.
    """

    def __init__(self, folder: Path, *, made_with: str, previous: Mapping[str, Path]) -> None:
        """Open the journal in ``folder``; one that is missing, damaged or does not fit is as good as none.

        Args:
            folder: Where it is, or will be.
            made_with: Stands for all that decides what an item becomes, apart from its content.
            previous: What the stage wrote last time, by port.
        """
        self._folder = folder
        self._made_with = made_with
        self._record: parts.RowGroups | None = None
        self._passed: HashIndex | None = None
        self.samples: Path | None = None
        self.rejects: Path | None = None
        self.dataset: Dataset | None = None
        if _is_sound(folder, made_with=made_with, previous=previous):
            self.samples, self.rejects = previous["samples"], previous["rejects"]
            self.dataset = parts.read_manifest(self.samples).dataset

    def recall(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Items, in the order of their keys, with what is remembered of those that have not changed.

        Args:
            tables: Items with the columns ``key`` and ``stamp``; not empty.

        Yields:
            Each table with the columns ``RECALLED``: first row of the item's samples and their number, the same for its
            rejects, and its facts; null where the item must be read.
        """
        known = _Window(_located(self._folder / ITEMS) if self.samples is not None else iter(()))
        for table in tables:
            recalled = known.match(table)
            for field in RECALLED:
                table = table.append_column(field, recalled[field.name])
            yield table

    def recall_each(self, items: Iterable[tuple[str, str | None]]) -> Iterator[Memory | None]:
        """``recall`` for a few items, (key, stamp) each, in the order of their keys; one is taken at a time."""
        tables = (pa.table([pa.array([key]), pa.array([stamp], pa.string())], ["key", "stamp"]) for key, stamp in items)
        for table in self.recall(tables):
            yield _memory(table.to_pylist()[0])

    def has_passed(self, contents: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of these contents, shape ``(N, 2)``, became samples in the last ingest: they need no other check.

        Takes about 24 bytes of memory per sample.
        """
        if self.samples is None:
            return np.zeros(len(contents), bool)
        if self._passed is None:
            found = [
                halves(table["content_hash"]) for table in parts.iter_tables(self.samples, columns=["content_hash"])
            ]
            self._passed = HashIndex(np.concatenate([np.zeros((0, 2), np.uint64), *found]))
        return np.asarray(self._passed.find(contents) >= 0)

    def record(self, items: pa.Table) -> None:
        """Append items in the order in which their samples and rejects are written; see ``ITEM`` for the columns."""
        if self._record is None:
            self._record = parts.RowGroups(self._folder / NEXT)
        self._record.write(items.select(ITEM.names).cast(ITEM))

    def record_each(self, items: Sequence[tuple[str, str | None, int, int, str | None]]) -> None:
        """``record`` for a few items, one value per column each."""
        columns = [[item[place] for item in items] for place in range(len(ITEM))]
        self.record(pa.table(columns, schema=ITEM))

    def keep(self, *, samples: Path, rejects: Path) -> None:
        """Make what was recorded the journal of these outputs; without a record there is none any more."""
        files.remove(self._folder / JOURNAL)
        if self._record is None:
            return
        self._record.__exit__(None, None, None)
        self._record = None
        (self._folder / NEXT).replace(self._folder / ITEMS)
        seal = _Seal(
            version=VERSION,
            made_with=self._made_with,
            items=files.sha256_file(self._folder / ITEMS),
            manifest=files.sha256_file(samples / parts.MANIFEST),
            rejects=files.sha256_file(rejects),
        )
        files.write_json(self._folder / JOURNAL, seal.model_dump(mode="json"))

    def __enter__(self) -> Self:
        """Start recording."""
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Forget what was recorded, unless it was kept."""
        if self._record is not None:
            self._record.__exit__(error, value, tb)
            files.remove(self._folder / NEXT)


def made_with(params: Params, *, module: str) -> str:
    """All that decides what an item becomes, apart from its content: parameters, code, and versions of decoders.

    Args:
        params: Of the stage.
        module: Where the stage is declared.
    """
    versions = {name: _version(name) for name in DECODERS}
    text = json.dumps([params.model_dump(mode="json"), imports.digest(module), versions])
    return hashlib.sha256(text.encode()).hexdigest()


def remembered(folder: Path, *, made_with: str, samples: Path) -> Iterator[pa.Table]:
    """Key and stamp of each item of the last ingest, in order, if its samples would be taken over; else nothing.

    The samples themselves are not checked, so this is a forecast.

    Args:
        folder: Where the journal is.
        made_with: Stands for all that decides what an item becomes, apart from its content.
        samples: What the last ingest wrote.
    """
    seal = _seal(folder)
    if seal is None or (seal.version, seal.made_with) != (VERSION, made_with):
        return
    sealed = ((folder / ITEMS, seal.items), (samples / parts.MANIFEST, seal.manifest))
    if all(path.exists() and files.sha256_file(path) == sha256 for path, sha256 in sealed):
        with pq.ParquetFile(folder / ITEMS) as file:
            for batch in file.iter_batches(batch_size=READ_ROWS, columns=["key", "stamp"]):
                yield pa.Table.from_batches([batch])


class _Window:
    """A place in the journal, which moves on as items are looked up in the order of their keys."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self._rows = _KNOWN.empty_table()

    def match(self, table: pa.Table) -> pa.Table:
        """What is known of each item, null where it is new or has another stamp."""
        found = self._take(table["key"])
        places = pc.index_in(table["key"], value_set=found["key"].combine_chunks())
        found = found.take(places)
        order = pc.fill_null(places, -1).to_numpy()
        # A key that occurs twice (names that are no text can look alike) is known once at most.
        is_next = order > np.concatenate([[-1], np.maximum.accumulate(order)[:-1]])
        is_same = pc.and_(pa.chunked_array([is_next]), pc.fill_null(pc.equal(found["stamp"], table["stamp"]), False))
        columns = [pc.if_else(is_same, found[field.name], pa.scalar(None, field.type)) for field in RECALLED]
        return pa.Table.from_arrays(columns, schema=RECALLED)

    def _take(self, keys: pa.ChunkedArray) -> pa.Table:
        """Rows of the journal with these keys; all up to the last of them are behind us then."""
        last = keys[-1]
        pieces = []
        while True:
            count = pc.sum(pc.less_equal(self._rows["key"], last)).as_py() or 0
            inside, self._rows = self._rows.slice(0, count), self._rows.slice(count)
            pieces.append(inside.filter(pc.is_in(inside["key"], value_set=keys.combine_chunks())))
            if self._rows.num_rows or (more := next(self._tables, None)) is None:
                return pa.concat_tables(pieces)
            self._rows = more


def _located(path: Path) -> Iterator[pa.Table]:
    """The journal's items, with the rows at which their samples and rejects begin."""
    next_row = {"sample": 0, "reject": 0}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=READ_ROWS):
            table = pa.Table.from_batches([batch])
            for name, count in (("sample", "num_samples"), ("reject", "num_rejects")):
                ends = next_row[name] + np.cumsum(table[count].to_numpy())
                table = table.append_column(name, pa.array(ends - table[count].to_numpy()))
                next_row[name] = int(ends[-1])
            yield table.select(_KNOWN.names).cast(_KNOWN)


def _memory(row: Mapping[str, Any]) -> Memory | None:
    if row["sample"] is None:
        return None
    return Memory(
        samples=range(row["sample"], row["sample"] + row["num_samples"]),
        rejects=range(row["reject"], row["reject"] + row["num_rejects"]),
        facts=row["facts"],
    )


def _is_sound(folder: Path, *, made_with: str, previous: Mapping[str, Path]) -> bool:
    """Whether the journal is whole, and so are the outputs it was written with."""
    try:
        seal = _seal(folder)
        if seal is None or (seal.version, seal.made_with) != (VERSION, made_with):
            return False
        samples, rejects = previous["samples"], previous["rejects"]
        for path, sha256 in (
            (folder / ITEMS, seal.items),
            (samples / parts.MANIFEST, seal.manifest),
            (rejects, seal.rejects),
        ):
            if files.sha256_file(path) != sha256:
                return False
        with ThreadPoolExecutor() as pool:
            return all(pool.map(partial(parts.is_whole, samples), parts.read_manifest(samples).parts))
    except (OSError, KeyError, DataError):
        return False


def _seal(folder: Path) -> _Seal | None:
    try:
        return _Seal.model_validate_json((folder / JOURNAL).read_bytes())
    except (OSError, ValidationError):
        return None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
