"""Makes a features folder part by part, and takes over what a former one knows of the same content.

A file is linked where its samples' part did not change. In a changed part only samples of new content are looked at:
the features of the others are copied from the former folder, where their content hash finds them.
"""

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
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
from datamill.parts import Part
from datamill.samples import LIGHT_COLUMNS, Dataset
from datamill.stage import Engine

FILES_AT_HAND = 2  # former files in memory at a time: the rows of a part mostly come from one or two
WORTH_SAMPLES = 1000  # to look at, from which on workers gain more than their start costs
NUM_WRITERS = 1  # files that are put together and written beside the one looked at; bounds memory, not results


class Request(NamedTuple):
    """Samples to look at.

    Attributes:
        url: Where workers find their part.
        rows: Which of its rows, ascending; ``None`` for all.
    """

    url: str
    rows: NDArray[np.int64] | None


@dataclass(frozen=True)
class Outcome:
    """How the features were come by, in samples."""

    linked: int
    copied: int
    looked_at: int


def extract(samples: Path, *, folder: Path, engine: Engine, former: Path | None = None) -> Outcome:
    """Write the features of all samples; equal samples give equal bytes, with or without a former folder.

    Args:
        samples: Parts folder.
        folder: The features folder to make.
        engine: Where payloads are looked at.
        former: A features folder to take over from; files that are damaged or that other code made are ignored.

    Returns:
        How many samples were taken over, and how many were looked at.
    """
    manifest = parts.read_manifest(samples)
    code = imports.digest(features.__name__)
    known = _reusable(former, dataset=manifest.dataset, code=code)
    linked = {part.key: known.pop(part.key) for part in manifest.parts if part.key in known}
    new = [part for part in manifest.parts if part.key not in linked]
    source = _Former([path for _, path in known.values()] if new else [])
    places = {part.key: source.find(samples / part.name) for part in new}
    asked = {key for key, its_places in places.items() if its_places is None or (its_places < 0).any()}
    requests = (
        Request(engine.share(samples / part.name), _missing(places[part.key])) for part in new if part.key in asked
    )
    num_looked = sum(
        part.num_rows if (its_places := places[part.key]) is None else int((its_places < 0).sum()) for part in new
    )
    looking = partial(look, dataset=manifest.dataset)
    looked = engine.map(looking, requests, total=len(asked)) if num_looked >= WORTH_SAMPLES else map(looking, requests)
    calls = (
        partial(
            _write,
            folder,
            samples / part.name,
            key=part.key,
            source=source,
            places=places[part.key],
            fresh=next(looked) if part.key in asked else None,
        )
        for part in new
    )
    folder.mkdir(parents=True, exist_ok=True)
    for entry, path in linked.values():
        files.link_or_copy(path, folder / entry.name)
    entries = {key: entry for key, (entry, _) in linked.items()} | {entry.key: entry for entry in _in_turn(calls)}
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
    pieces = []
    with tempfile.TemporaryDirectory() as folder, pq.ParquetFile(engines.fetch(request.url, Path(folder))) as file:
        stop = 0
        for group in range(file.num_row_groups):
            first, stop = stop, stop + file.metadata.row_group(group).num_rows
            wanted = np.arange(first, stop) if request.rows is None else _between(request.rows, first, stop)
            if len(wanted):
                table = file.read_row_group(group, columns=payload)
                table = table if len(wanted) == table.num_rows else table.take(pa.array(wanted - first))
                pieces.append(features.look(table, dataset=dataset))
    return pa.concat_tables(pieces)


@final
class _Former:
    """Rows of former files, found by their content hash; 24 bytes each, and one or two files, are in memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Read the content hashes of features files."""
        num_rows = [pq.read_metadata(path).num_rows for path in paths]
        hashes = np.empty((sum(num_rows), 2), np.uint64)
        self._paths = paths
        self._starts = np.cumsum([0, *num_rows])[:-1]  # place of each file's first row
        for path, start, count in zip(paths, self._starts, num_rows, strict=True):
            hashes[start : start + count] = _contents(path)
        self._index = HashIndex(hashes)
        self._read = lru_cache(FILES_AT_HAND)(_features)

    def find(self, part: Path) -> NDArray[np.int64] | None:
        """Places of the contents of a samples' part, -1 for new ones, shape ``(N,)``; ``None`` where all are new."""
        return self._index.find(_contents(part)) if self._paths else None

    def join(self, places: NDArray[np.int64] | None, *, fresh: pa.Table | None) -> pa.Table:
        """The features at these places; where there is none, the rows of ``fresh``, in order."""
        if places is None:
            assert fresh is not None
            return fresh
        owners = np.searchsorted(self._starts, places, side="right") - 1
        pieces = [fresh] if fresh is not None else []
        for owner in np.unique(owners[places >= 0]).tolist():
            rows = places[owners == owner] - self._starts[owner]
            pieces.append(self._read(self._paths[owner]).take(pa.array(rows)))
        rows = np.empty(len(places), np.int64)
        rows[np.argsort(owners, kind="stable")] = np.arange(len(places))
        return pa.concat_tables(pieces).combine_chunks().take(pa.array(rows))


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


def _write(
    folder: Path, part: Path, *, key: str, source: _Former, places: NDArray[np.int64] | None, fresh: pa.Table | None
) -> Part:
    """The entry of the file for ``part``, written from former and fresh features."""
    identity = _read(part, columns=features.IDENTITY)
    table = source.join(places, fresh=fresh)
    schema = pa.schema([*identity.schema, *table.schema])
    columns = [column.combine_chunks() for column in (*identity.columns, *table.columns)]
    return features.write_file(folder, pa.Table.from_arrays(columns, schema=schema), key=key)


def _in_turn(calls: Iterable[Callable[[], Part]]) -> Iterator[Part]:
    """What the calls return, in order, ``NUM_WRITERS`` of them at work at a time."""
    with ThreadPoolExecutor(NUM_WRITERS) as pool:
        working: deque[Future[Part]] = deque()
        for call in calls:
            working.append(pool.submit(call))
            if len(working) > NUM_WRITERS:
                yield working.popleft().result()
        yield from (one.result() for one in working)


def _missing(places: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    if places is None:
        return None
    rows = np.flatnonzero(places < 0)
    return rows if len(rows) < len(places) else None


def _between(rows: NDArray[np.int64], first: int, stop: int) -> NDArray[np.int64]:
    low, high = np.searchsorted(rows, [first, stop])
    return rows[low:high]


def _features(file: Path) -> pa.Table:
    return _read(file).drop_columns(list(features.IDENTITY))


def _contents(file: Path) -> NDArray[np.uint64]:
    """Content hashes of a part or a features file, shape ``(N, 2)``."""
    return halves(_read(file, columns=["content_hash"])["content_hash"])


def _read(path: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read(columns=list(columns) if columns is not None else None, use_threads=False)
