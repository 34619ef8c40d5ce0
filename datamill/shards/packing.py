"""Packs planned samples into shards: one segment of payload per part and split, made only where it is not there yet.

A segment is named by the samples in it, the way they become arrays, and the code that makes them so. One that the
previous shards have is linked; of the others, rows that the previous shards have are copied, and only rows that are
new are made, part by part, by the engine's workers.
"""

import contextlib
import functools
import hashlib
import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill import parts
from datamill.samples import HASH_BYTES, Dataset
from datamill.shards import SPLITS
from datamill.shards.entries import Segment
from datamill.shards.placing import NOT_REPAIRED, Placement
from datamill.shards.previous import ABSENT, Previous
from datamill.shards.recipe import Recipe
from datamill.shards.writing import ShardWriter
from datamill.stage import Engine, Progress

DECODED_BYTES = 8 * 2**20  # of arrays made at a time; bounds memory, not results
COPIED_BYTES = 2**20  # of arrays put together at a time: few enough for the processor's cache
WORTH_SAMPLES, WORTH_BYTES = 50_000, 2**26  # to make, and of their payload, from which on workers are worth a start
LIGHT = ("label", "weight", "draw", "sample_id")  # fields that the plan gives

Unmade: TypeAlias = tuple[str, NDArray[np.int64], list[tuple[NDArray[np.int64], str, NDArray[np.int64]]]]
"""A part and the rows whose arrays are wanted; then positions among them of repaired ones, and the part and rows of
their payload."""


@dataclass(frozen=True)
class Piece:
    """The samples of one part that go into one split.

    Attributes:
        key: Name of their segment.
        split: Number of the split.
        path: The part.
        rows: Their rows in the part, int32, shape ``(N,)``.
        known: Rows of the previous shard that hold their arrays, ``ABSENT`` where none does; ``None`` where nothing is
            known of any.
        repaired: Row of each sample among all repaired ones, or ``NOT_REPAIRED``, shape ``(N,)``; ``None`` where no
            sample at all was repaired.
        linked: The previous shard's segment that holds them all, where there is one.
    """

    key: str
    split: int
    path: Path
    rows: NDArray[np.int32]
    known: NDArray[np.integer[Any]] | None
    repaired: NDArray[np.int64] | None
    linked: Segment | None

    @property
    def unmade(self) -> NDArray[np.int64]:
        """Positions of the samples whose arrays have to be made, shape ``(n,)``."""
        if self.linked is not None:
            return np.arange(0)
        return np.arange(len(self.rows)) if self.known is None else np.flatnonzero(self.known == ABSENT)

    @property
    def payload_bytes(self) -> int:
        """Size of the payload to be made into arrays, about: the part's, by how many of its rows that is."""
        return len(self.unmade) * self.path.stat().st_size // (int(self.rows[-1]) + 1)


@dataclass(frozen=True)
class Packed:
    """What was written.

    Attributes:
        rows: Samples by split.
        size_bytes: Size of the fields of all samples.
        num_segments: Segments of payload.
        num_linked: Segments that were there already.
        num_made: Samples whose arrays had to be made.
    """

    rows: dict[str, int]
    size_bytes: int
    num_segments: int
    num_linked: int
    num_made: int

    def summary(self) -> str:
        """How much of it was work."""
        return (
            f"{self.num_linked} of {self.num_segments} segments were there already; "
            f"made {self.num_made} of {sum(self.rows.values())} arrays"
        )


class Packer:
    """Writes one shard per split: first what the plan says of every sample, then their payload."""

    def __init__(self, folder: Path, *, dataset: Dataset, recipe: Recipe, repairs: Path, previous: Previous) -> None:
        """Start empty shards.

        Args:
            folder: Receives a folder per split; must not hold anything yet.
            dataset: What holds for every sample.
            recipe: How samples become arrays.
            repairs: Parts folder whose rows replace the payload of the same samples.
            previous: What may serve again.
        """
        found = parts.read_manifest(repairs).parts
        self._repairs = [(repairs / part.name, part) for part in found]
        self._repair_ends = np.cumsum([part.num_rows for part in found], dtype=np.int64)
        self._recipe = recipe
        self._previous = previous
        self._pieces: list[Piece] = []
        self._num_rows = [0] * len(SPLITS)
        self._stack = contextlib.ExitStack()
        meta = recipe.meta(is_repaired=bool(found))
        self._writers = [
            ShardWriter(folder / split, split=split, dataset=dataset, meta=meta, fields=recipe.fields)
            for split in SPLITS
        ]

    def __enter__(self) -> Self:
        """Start writing."""
        for writer in self._writers:
            self._stack.enter_context(writer)
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Finish the shards, unless an error is on its way."""
        self._stack.__exit__(error, value, tb)

    def place(self, placement: Placement) -> NDArray[np.int64]:
        """Write what the plan says of the samples of one part.

        Returns:
            Row of each sample in the shard of its split, shape ``(N,)``.
        """
        rows = np.empty(len(placement.rows), np.int64)
        for split, writer in enumerate(self._writers):
            here = np.flatnonzero(placement.split == split)
            rows[here] = self._num_rows[split] + np.arange(len(here))
            self._num_rows[split] += len(here)
            if len(here):
                writer.write({name: getattr(placement, name)[here] for name in LIGHT})
                self._pieces.append(self._piece(placement, split=split, here=here))
        return rows

    def write_payload(self, *, engine: Engine, progress: Progress) -> "Packed":
        """Write the arrays of every sample placed so far."""
        pa.default_memory_pool().release_unused()  # what placing the samples took
        making = functools.partial(make_arrays, recipe=self._recipe)
        num_made = sum(len(piece.unmade) for piece in self._pieces)
        is_much = num_made >= WORTH_SAMPLES or sum(piece.payload_bytes for piece in self._pieces) >= WORTH_BYTES
        made = _Queue((engine.map if is_much else map)(making, self._unmade(engine)))
        for piece in progress(self._pieces, total=len(self._pieces), label="packing segments"):
            writer = self._writers[piece.split]
            if piece.linked is not None:
                writer.reuse("x", self._previous.folder(piece.split), piece.linked)
                continue
            writer.next_segment("x", key=piece.key)
            for arrays in self._arrays(piece, made=made):
                writer.write({"x": arrays})
            if piece.known is None:  # all were made: what that took would otherwise lie about in the heap
                pa.default_memory_pool().release_unused()
        pa.default_memory_pool().release_unused()
        self._previous.check_unchanged()
        row_bytes = sum(field.element_bytes for field in self._recipe.fields.values())
        return Packed(
            rows=dict(zip(SPLITS, self._num_rows, strict=True)),
            size_bytes=sum(self._num_rows) * row_bytes,
            num_segments=len(self._pieces),
            num_linked=sum(piece.linked is not None for piece in self._pieces),
            num_made=num_made,
        )

    def _piece(self, placement: Placement, *, split: int, here: NDArray[np.int64]) -> Piece:
        ids, repaired = placement.sample_id[here], placement.repaired[here]
        key = self._segment_key(ids, repaired=repaired)
        linked = self._previous.segment(key, split=split)
        known = None if linked is not None or self._repairs else self._previous.rows(ids, split=split)
        rows = placement.rows[here].astype(np.int32)
        return Piece(key, split, placement.path, rows, known, repaired if self._repairs else None, linked)

    def _segment_key(self, ids: NDArray[np.uint8], *, repaired: NDArray[np.int64]) -> str:
        total = hashlib.blake2b(self._recipe.key.encode(), digest_size=HASH_BYTES)
        total.update(ids.tobytes())
        for place, (path, rows) in self._locate(repaired):
            total.update(f"{path.stem} {place.tolist()} {rows.tolist()}".encode())
        return total.hexdigest()

    def _locate(
        self, repaired: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], tuple[Path, NDArray[np.int64]]]]:
        """Positions of the repaired samples, part by part, with the part and their rows in it."""
        places = np.flatnonzero(repaired != NOT_REPAIRED)
        numbers = np.searchsorted(self._repair_ends, repaired[places], side="right")
        for number in np.unique(numbers):
            path, part = self._repairs[number]
            here = places[numbers == number]
            yield here, (path, repaired[here] - (self._repair_ends[number] - part.num_rows))

    def _unmade(self, engine: Engine) -> Iterator[Unmade]:
        count = self._recipe.rows_in(DECODED_BYTES)
        for piece in self._pieces:
            unmade = piece.unmade
            for some in np.split(unmade, range(count, len(unmade), count)) if len(unmade) else ():
                repaired = () if piece.repaired is None else self._locate(piece.repaired[some])
                replaced = [(places, engine.share(path), rows) for places, (path, rows) in repaired]
                yield engine.share(piece.path), piece.rows[some].astype(np.int64), replaced

    def _arrays(self, piece: Piece, *, made: "_Queue") -> Iterator[NDArray[Any]]:
        """The arrays of a piece in order, some at a time: copied where they are known, else taken from ``made``."""
        count = self._recipe.rows_in(COPIED_BYTES)
        for start in range(0, len(piece.rows), count):
            known = np.full(min(count, len(piece.rows) - start), ABSENT)
            if piece.known is not None:
                known = piece.known[start : start + count]
            is_new = known == ABSENT
            if is_new.all():
                yield from made.take(len(known))
            else:
                yield self._copied(known, is_new=is_new, split=piece.split, made=made)

    def _copied(
        self, known: NDArray[np.integer[Any]], *, is_new: NDArray[np.bool_], split: int, made: "_Queue"
    ) -> NDArray[Any]:
        if not is_new.any():
            return self._previous.arrays(known, split=split)
        arrays = self._previous.arrays(np.where(is_new, known.max(), known), split=split)  # any row where it is new
        arrays[is_new] = np.concatenate(list(made.take(int(is_new.sum()))))
        return arrays


class _Queue:
    """Arrays that come some rows at a time, handed out in other numbers."""

    def __init__(self, arrays: Iterator[NDArray[Any]]) -> None:
        self._arrays = arrays
        self._waiting: NDArray[Any] | None = None

    def take(self, count: int) -> Iterator[NDArray[Any]]:
        """The next ``count`` rows, which must come."""
        while count:
            rows = next(self._arrays) if self._waiting is None else self._waiting
            self._waiting = rows[count:] if count < len(rows) else None  # an empty rest would hold all of its memory
            yield rows[:count]
            count -= len(rows[:count])


def make_arrays(item: Unmade, *, recipe: Recipe) -> NDArray[Any]:
    """Arrays of some rows of a part, repaired payload in the place of what it repairs, shape ``(N, *shape)``."""
    path, rows, repaired = item
    arrays = _mapped((len(rows), *recipe.preprocessor.shape), dtype=recipe.preprocessor.dtype)
    own = np.setdiff1d(np.arange(len(rows)), [place for places, _, _ in repaired for place in places])
    for places, where, its_rows in [(own, path, rows[own]), *repaired]:
        for some, table in parts.iter_rows(where, its_rows, columns=recipe.columns):
            arrays[places[some]] = recipe.preprocessor.arrays(table)
    return arrays


def _mapped(shape: tuple[int, ...], *, dtype: str) -> NDArray[Any]:
    """An array in memory of its own, which goes back to the system with it; in the heap it would leave holes."""
    count = math.prod(shape)
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return np.empty(shape, dtype)
    memory = mmap.mmap(-1, max(1, count * np.dtype(dtype).itemsize), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, dtype, count).reshape(shape)
