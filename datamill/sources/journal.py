"""What the last ingest made of each item, so that the next one opens only what changed.

The journal is no result: it lies in the stage's own folder, may be deleted at any time, and is believed only together
with the outputs it was written with::

    items.parquet     one row per item, in the order it was read: key, stamp, samples and rejects it gave, facts
    stretches.arrow   hashes of the images of packed files, see ``stretches``
    journal.json      version, what the items were read with, and SHA-256 of the other files and of the outputs

An item is a file, or a part of one. Equal stamps under one key mean equal contents. Of the samples, the manifest is
compared at once, and a part when an item is recalled that is in it: nothing is taken over that was not looked at.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from datamill import files, imports, parts
from datamill.errors import DataError
from datamill.sources.stretches import KnownStretches, StretchWriter
from datamill.stage import Params

VERSION = 2
JOURNAL, ITEMS, STRETCHES = "journal.json", "items.parquet", "stretches.arrow"
NEXT = "next."  # begins the name of a file that is being written
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
    stretches: str | None
    manifest: str
    rejects: str


class Journal:
    """The journal of the last ingest, to recall from, and that of this one, to record in.

    Attributes:
        samples: The samples of the last ingest; ``None`` if nothing can be recalled. Rows of recalled items are whole.
        rejects: Its rejects, every byte of which was checked; likewise.
        stretches: What is known of images in packed files.
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
        self._stretches: StretchWriter | None = None
        self._parts = _Parts(None)
        self.samples: Path | None = None
        self.rejects: Path | None = None
        self.stretches = KnownStretches(None)
        seal = _sound_seal(folder, made_with=made_with, previous=previous)
        if seal is not None:
            self.samples, self.rejects = previous["samples"], previous["rejects"]
            self._parts = _Parts(self.samples)
            self.stretches = KnownStretches(None if seal.stretches is None else folder / STRETCHES)

    @property
    def num_samples(self) -> int:
        """Samples that the last ingest wrote; 0 if nothing can be recalled."""
        return self._parts.num_samples

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
            recalled = self._parts.only_whole(known.match(table))
            for field in RECALLED:
                table = table.append_column(field, recalled[field.name])
            yield table

    def recall_each(self, items: Iterable[tuple[str, str | None]]) -> Iterator[Memory | None]:
        """``recall`` for a few items, (key, stamp) each, in the order of their keys; one is taken at a time."""
        tables = (pa.table([pa.array([key]), pa.array([stamp], pa.string())], ["key", "stamp"]) for key, stamp in items)
        for table in self.recall(tables):
            yield _memory(table.to_pylist()[0])

    def record(self, items: pa.Table) -> None:
        """Append items in the order in which their samples and rejects are written; see ``ITEM`` for the columns."""
        if self._record is None:
            self._record = parts.RowGroups(self._folder / (NEXT + ITEMS))
        self._record.write(items.select(ITEM.names).cast(ITEM))

    def record_each(self, items: Sequence[tuple[str, str | None, int, int, str | None]]) -> None:
        """``record`` for a few items, one value per column each."""
        columns = [[item[place] for item in items] for place in range(len(ITEM))]
        self.record(pa.table(columns, schema=ITEM))

    def record_stretches(self, stretches: pa.Table) -> range:
        """Append stretches of images; which rows they are."""
        if self._stretches is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._stretches = StretchWriter(self._folder / (NEXT + STRETCHES))
        return self._stretches.write(stretches)

    def keep(self, *, samples: Path, rejects: Path) -> None:
        """Make what was recorded the journal of these outputs; without a record there is none any more."""
        files.remove(self._folder / JOURNAL)
        if self._record is None:
            return
        self._record.__exit__(None, None, None)
        self._record = None
        (self._folder / (NEXT + ITEMS)).replace(self._folder / ITEMS)
        has_stretches = self._stretches is not None
        if self._stretches is not None:
            self._stretches.close()
            self._stretches = None
            (self._folder / (NEXT + STRETCHES)).replace(self._folder / STRETCHES)
        seal = _Seal(
            version=VERSION,
            made_with=self._made_with,
            items=files.sha256_file(self._folder / ITEMS),
            stretches=files.sha256_file(self._folder / STRETCHES) if has_stretches else None,
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
            files.remove(self._folder / (NEXT + ITEMS))
        if self._stretches is not None:
            self._stretches.close()
            files.remove(self._folder / (NEXT + STRETCHES))


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


class _Parts:
    """The parts of the last ingest, each looked at once, and only if it is needed."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._parts = parts.read_manifest(folder).parts if folder is not None else ()
        self._ends = np.cumsum([part.num_rows for part in self._parts], dtype=np.int64)
        self._is_harmed: dict[int, bool] = {}

    @property
    def num_samples(self) -> int:
        """Samples in all of them."""
        return sum(part.num_rows for part in self._parts)

    def only_whole(self, recalled: pa.Table) -> pa.Table:
        """What is recalled, but null where a sample of the item lies in a part that was harmed."""
        starts, counts = (pc.fill_null(recalled[name], 0).to_numpy() for name in ("sample", "num_samples"))
        first = np.searchsorted(self._ends, starts, side="right")
        last = np.where(counts > 0, np.searchsorted(self._ends, starts + counts, side="left"), first - 1)
        spans = set(zip(first.tolist(), (last + 1).tolist(), strict=True))
        needed = {number for span in spans for number in range(*span)}
        harmed = np.zeros(len(self._parts) + 1, np.int64)
        harmed[[number + 1 for number in needed if self._harmed(number)]] = 1
        before = np.cumsum(harmed)
        is_whole = pa.chunked_array([before[last + 1] == before[first]])
        columns = [pc.if_else(is_whole, recalled[field.name], pa.scalar(None, field.type)) for field in RECALLED]
        return pa.Table.from_arrays(columns, schema=RECALLED)

    def _harmed(self, number: int) -> bool:
        if number not in self._is_harmed:
            assert self._folder is not None
            self._is_harmed[number] = not parts.is_whole(self._folder, self._parts[number])
        return self._is_harmed[number]


def _sound_seal(folder: Path, *, made_with: str, previous: Mapping[str, Path]) -> _Seal | None:
    """The seal of a journal that is whole and fits the outputs it was written with."""
    try:
        seal = _seal(folder)
        if seal is None or (seal.version, seal.made_with) != (VERSION, made_with):
            return None
        parts.read_manifest(previous["samples"])
        sealed = [
            (folder / ITEMS, seal.items),
            (folder / STRETCHES, seal.stretches),
            (previous["samples"] / parts.MANIFEST, seal.manifest),
            (previous["rejects"], seal.rejects),
        ]
        is_sound = all(files.sha256_file(path) == sha256 for path, sha256 in sealed if sha256 is not None)
        return seal if is_sound else None
    except (OSError, KeyError, DataError):
        return None


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
