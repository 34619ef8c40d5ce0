"""What the shards of the last run still hold that a new run can take over."""

import contextlib
import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamill.errors import DataError
from datamill.hashes import HashIndex
from datamill.shards import SPLITS
from datamill.shards.entries import Segment
from datamill.shards.fields import ArrayField, Rows
from datamill.shards.native import Shard, open_shard
from datamill.shards.recipe import Recipe

ABSENT = -1  # as ``HashIndex`` says it


class Previous:
    """The shards of the last run, as far as they can serve again; empty where there are none."""

    def __init__(self, folder: Path | None, *, recipe: Recipe) -> None:
        """Open what is below ``folder``; shards that are missing, damaged or of another version serve nothing."""
        self._shards: dict[int, Shard] = {}
        self._segments: dict[tuple[int, str], tuple[Segment, slice]] = {}  # with their rows, by split and key
        self._folders: dict[int, Path] = {}
        self._recipe = recipe
        for number, split in enumerate(SPLITS if folder is not None else ()):
            assert folder is not None
            self._folders[number] = folder / split
            with contextlib.suppress(DataError):
                self._shards[number] = shard = open_shard(folder / split)
                stop = 0
                for one in shard.index.segments.get("x", ()):
                    start, stop = stop, stop + one.num_rows
                    self._segments[number, one.key] = one, slice(start, stop)

    def segment(self, key: str, *, split: int) -> Segment | None:
        """The segment of this name, if its bytes are what they were."""
        segment, rows = self._segments.get((split, key), (None, slice(0)))
        return segment if segment is not None and self._is_whole(split, rows) else None

    def rows(self, sample_id: NDArray[np.uint8], *, split: int) -> NDArray[np.integer[Any]] | None:
        """Row of each sample in the previous shard of the split, ``ABSENT`` where it has none, shape ``(N,)``.

        ``None`` where the split has no shard that can serve, or not all of these rows are what they were.
        """
        index = self._index(split)
        if index is None:
            return None
        rows = index.find(np.ascontiguousarray(sample_id).view(np.uint64))
        if not self._is_whole(split, rows[rows != ABSENT]):
            return None
        return rows.astype(np.min_scalar_type(-1 - self._shards[split].num_rows))  # mostly half of the memory

    def arrays(self, rows: NDArray[np.integer[Any]], *, split: int) -> NDArray[Any]:
        """Arrays of some rows that ``rows`` gave, shape ``(n, *shape)``; of rows that follow one another, no copy."""
        field = self._shards[split].fields["x"]
        assert isinstance(field, ArrayField)
        slots = field.slot_of(rows.astype(np.int64))
        is_run = slots[-1] - slots[0] == len(slots) - 1 and (np.diff(slots) == 1).all()
        return field.numpy[slots[0] : slots[-1] + 1] if is_run else field.numpy[slots]

    def check_unchanged(self) -> None:
        """Pass when what served is still what was opened.

        Raises:
            DataError: A file was altered or replaced meanwhile; a run after that takes over nothing of it.
        """
        for shard in self._shards.values():
            shard.check_unchanged()

    def folder(self, split: int) -> Path:
        """Where the previous shard of a split lies."""
        return self._folders[split]

    @functools.cache  # noqa: B019 - lives as long as one run of the stage
    def _index(self, split: int) -> HashIndex | None:
        shard = self._shards.get(split)
        if shard is None or shard.meta != self._recipe.meta(is_repaired=False):
            return None
        try:
            return HashIndex(np.ascontiguousarray(shard.sample_id).view(np.uint64))
        except DataError:
            return None

    def _is_whole(self, split: int, rows: Rows) -> bool:
        try:
            self._shards[split].touch("x", rows)
        except DataError:
            return False
        return True
