"""Makes a features folder part by part, and takes over what a former one knows of the same content.

A file is linked where its samples' part did not change. In a changed part only samples of new content are looked at:
the features of the others are copied from the former folder, where their content hash finds them.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datamill import engine as engines
from datamill import features, files, imports, parts
from datamill.errors import DataError
from datamill.hashes import HashIndex, halves
from datamill.overlap import ahead
from datamill.parts import Part
from datamill.samples import LIGHT_COLUMNS, Dataset
from datamill.stage import Engine

WORTH_BYTES = 2**27  # of samples to look at, from which on workers gain more than their start costs
SAMPLE_WORTH = 2_048  # bytes that take as long to decode as a sample does apart from its bytes
WORTH_SLICING = 64  # rows of a run, on average, from which on slices are quicker than row by row
LOOK_ROWS = 2 * parts.READ_ROWS  # samples of a request; bounds memory, not results


class Request(NamedTuple):
    """Samples to look at.

    Attributes:
        url: Where workers find their part.
        rows: Which of its rows, ascending.
    """

    url: str
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """How the features were come by, in samples."""

    linked: int
    copied: int
    looked_at: int


@dataclass(frozen=True)
class _Changed:
    """A part of the samples without a file of features.

    Attributes:
        part: The part.
        path: Its file.
        places: Where the former files have its samples' contents, -1 for new ones; ``None`` where all are new.
    """

    part: Part
    path: Path
    places: NDArray[np.int64] | None

    @property
    def num_new(self) -> int:
        """Samples of new content."""
        return self.part.num_rows if self.places is None else int(np.count_nonzero(self.places < 0))

    @property
    def new_bytes(self) -> float:
        """About how many bytes of its file they are."""
        return self.part.size_bytes * self.num_new / self.part.num_rows

    def requests(self, *, engine: Engine | None = None) -> Iterator[Request]:
        """Samples of new content, ``LOOK_ROWS`` at a time; all at once where the part has to travel to a worker."""
        rows = np.arange(self.part.num_rows) if self.places is None else np.flatnonzero(self.places < 0)
        if len(rows):
            url = str(self.path) if engine is None else engine.share(self.path)
            count = len(rows) if "://" in url else LOOK_ROWS
            yield from (Request(url, rows[start : start + count]) for start in range(0, len(rows), count))


def extract(
    samples: Path, *, folder: Path, engine: Engine, former: Path | None = None, num_threads: int = 0
) -> Outcome:
    """Write the features of all samples; equal samples give equal bytes, with or without a former folder.

    Args:
        samples: Parts folder.
        folder: The features folder to make.
        engine: Where payloads are looked at, if they are many.
        former: A features folder to take over from; files that are damaged or that other code made are ignored.
        num_threads: Files made at a time where few payloads are looked at; 0 leaves all to the caller's thread.

    Returns:
        How many samples were taken over, and how many were looked at.
    """
    manifest = parts.read_manifest(samples)
    code = imports.digest(features.__name__)
    known = _reusable(former, dataset=manifest.dataset, code=code)
    linked = {part.key: known.pop(part.key) for part in manifest.parts if part.key in known}
    new = [part for part in manifest.parts if part.key not in linked]
    source = _Former([path for _, path in known.values()] if new else [])
    paths = [samples / part.name for part in new]
    changed = [_Changed(*one) for one in zip(new, paths, source.find(paths), strict=True)]
    num_looked = sum(one.num_new for one in changed)
    looking = partial(look, dataset=manifest.dataset)
    is_much = sum(one.new_bytes for one in changed) + num_looked * SAMPLE_WORTH >= WORTH_BYTES
    looked = engine.map(looking, (request for one in changed for request in one.requests(engine=engine)))

    def write(one: _Changed) -> Part:
        fresh = _taken(looked, num_rows=one.num_new) if is_much else map(looking, one.requests())
        tables = fresh if one.num_new == one.part.num_rows else source.join(one.places, fresh=list(fresh))
        return features.write_file(folder, _beside(one.path, tables), key=one.part.key)

    folder.mkdir(parents=True, exist_ok=True)
    for entry, path in linked.values():
        files.link_or_copy(path, folder / entry.name)
    written = ahead(write, changed, num_threads=0 if is_much else num_threads)
    entries = {entry.key: entry for entry in (*(entry for entry, _ in linked.values()), *written)}
    sealed = features.Manifest(
        dataset=manifest.dataset,
        num_rows=manifest.num_rows,
        parts=tuple(entries[part.key] for part in manifest.parts),
        code=code,
    )
    files.write_json(folder / parts.MANIFEST, sealed.model_dump(mode="json"))
    num_linked = sum(entry.num_rows for entry, _ in linked.values())
    return Outcome(linked=num_linked, copied=manifest.num_rows - num_linked - num_looked, looked_at=num_looked)


def look(request: Request, *, dataset: Dataset) -> pa.Table:
    """Features of the requested samples, in order; runs in a worker."""
    payload = [name for name in dataset.arrow_schema().names if name not in LIGHT_COLUMNS]
    with tempfile.TemporaryDirectory() as folder:
        path = engines.fetch(request.url, Path(folder))
        found = (table for _, table in parts.iter_rows(str(path), request.rows, columns=payload))
        blocks = parts.regrouped(found, rows=parts.SCAN_ROWS)  # few samples of many rows are looked at together
        return pa.concat_tables([features.look(block, dataset=dataset) for block in blocks]).combine_chunks()


@final
class _Former:
    """Rows of former files, found by their content hash."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Take the files."""
        self._paths = paths
        self._num_rows = [pq.read_metadata(path).num_rows for path in paths]
        self._starts = np.cumsum([0, *self._num_rows])[:-1]  # place of each file's first row
        names = pq.read_schema(paths[0]).names if paths else []
        self._columns = [name for name in names if name not in features.IDENTITY]

    def find(self, samples: Sequence[Path]) -> list[NDArray[np.int64] | None]:
        """Places of the contents of samples' parts, -1 for new ones; ``None`` where all are new.

        While they are looked for, 32 bytes are in memory for each row of the files.
        """
        if not self._paths:
            return [None] * len(samples)
        hashes = np.empty((sum(self._num_rows), 2), np.uint64)
        for path, start, count in zip(self._paths, self._starts, self._num_rows, strict=True):
            hashes[start : start + count] = _contents(path)
        index = HashIndex(hashes)
        return [index.find(_contents(path)) for path in samples]

    def join(self, places: NDArray[np.int64] | None, *, fresh: Sequence[pa.Table]) -> Iterator[pa.Table]:
        """The features at these places; where there is none, the rows of ``fresh``, in order."""
        assert places is not None
        owners = np.searchsorted(self._starts, places, side="right") - 1
        pieces = list(fresh)
        rows = np.empty(len(places), np.int64)  # of each sample among those of the pieces
        rows[places < 0] = np.arange(np.count_nonzero(places < 0))
        for owner in np.unique(owners[places >= 0]).tolist():
            order = wanted = places[owners == owner] - self._starts[owner]
            its_rows = None  # all of the file, where most of it is wanted: they are put in order below anyway
            if 2 * len(wanted) < self._num_rows[owner]:
                its_rows, order = np.unique(wanted, return_inverse=True)
            rows[owners == owner] = sum(piece.num_rows for piece in pieces) + order
            pieces += [table for _, table in parts.iter_rows(str(self._paths[owner]), its_rows, columns=self._columns)]
        table = pa.concat_tables(pieces)
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        if len(starts) * WORTH_SLICING > len(rows):
            yield table.combine_chunks().take(rows)
            return
        for start, stop in pairwise([*starts.tolist(), len(rows)]):
            yield table.slice(rows[start], stop - start)


def _reusable(former: Path | None, *, dataset: Dataset, code: str) -> dict[str, tuple[Part, Path]]:
    """Whole files of a former folder by key, if the same code looked at the same columns."""
    try:
        manifest = features.read_manifest(former) if former is not None else None
    except DataError:
        return {}
    if former is None or manifest is None or manifest.code != code:
        return {}
    if (manifest.dataset.modality, manifest.dataset.features) != (dataset.modality, dataset.features):
        return {}
    return {part.key: (part, former / part.name) for part in manifest.parts if parts.is_whole(former, part)}


def _beside(part: Path, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Features of a part, as they come, beside the identity of its samples."""
    identities = parts.iter_part(part, columns=features.IDENTITY)
    both = (parts.regrouped(some, rows=parts.READ_ROWS) for some in (identities, tables))
    for identity, table in zip(*both, strict=True):
        schema = pa.schema([*identity.schema, *table.schema])
        yield pa.Table.from_arrays([*identity.columns, *table.columns], schema=schema)


def _taken(tables: Iterator[pa.Table], *, num_rows: int) -> Iterator[pa.Table]:
    """The next tables, which have so many rows together."""
    while num_rows:
        table = next(tables)
        num_rows -= table.num_rows
        yield table


def _contents(file: Path) -> NDArray[np.uint64]:
    """Content hashes of a part or a features file, shape ``(N, 2)``."""
    return halves(_read(file, columns=["content_hash"])["content_hash"])


def _read(path: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read(columns=list(columns) if columns is not None else None, use_threads=False)
