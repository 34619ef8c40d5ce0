"""The samples that are compared for likeness now, and those that were the last time."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from datamill import arrays, recall
from datamill.recall import Former

SEEN = np.dtype([("row", np.int64), ("print", np.uint64), ("sketch", np.uint64)])
"""A sample that is compared, or was the last time and is ``GONE``."""
GONE = -1
KNOWN = np.dtype([(name, np.uint64) for name in ("first", "second", "print", "sketch")])
MATCHED = ("second", "print")  # what makes a sample the same, besides the first half of its content hash


@dataclass(frozen=True)
class Union:
    """The samples that are compared now and those that were the last time, in a file, in the order of contents.

    Attributes:
        path: A ``SEEN`` each; their numbers in this file are what is called places.
        count: How many.
        added: Places of those that were not there the last time, ascending; ``None`` for all.
        gone: Places of those that are not there any more, ascending.
        widest: Which number of the sketches of those compared now varies the most.
    """

    path: Path
    count: int
    added: NDArray[np.int64] | None
    gone: NDArray[np.int64]
    widest: int

    def blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """The samples, some at a time, and the place of the first."""
        start = 0
        with self.path.open("rb") as file:
            while len(block := np.fromfile(file, SEEN, count=recall.READ_ROWS)):
                yield start, block
                start += len(block)


def strangers(blocks: Iterable[NDArray[Any]], *, former: Path | None) -> NDArray[np.int64] | None:
    """Rows of the samples that were not there the last time, ascending; ``None`` for all."""
    if former is None:
        return None
    then, found = Former(former, KNOWN), [np.empty(0, np.int64)]
    for block in blocks:
        if len(block):
            found.append(block["row"][recall.match(block, then.up_to(block["first"][-1]), fields=MATCHED) < 0])
    return np.sort(np.concatenate(found))


def unite(blocks: Iterable[NDArray[Any]], *, former: Path | None, sketches: NDArray[np.uint64], scratch: Path) -> Union:
    """Bring the samples together with those of the last run; those of this one are noted in ``scratch / "samples"``."""
    then = Former(former, KNOWN)
    added, gone, start, spread = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0, _Spread()
    path = scratch / "union"
    with path.open("wb") as union, (scratch / "samples").open("wb") as samples:
        for block in itertools.chain((block for block in blocks if len(block)), [None]):
            old = then.up_to(block["first"][-1] if block is not None else None)
            now = _known(block, sketches=sketches) if block is not None else np.empty(0, KNOWN)
            places = recall.match(now, old, fields=MATCHED)
            is_known = places >= 0
            now["sketch"][is_known] = old["sketch"][places[is_known]]
            lost = np.delete(old, places[is_known])
            is_gone = np.zeros(len(now) + len(lost), bool)
            is_gone[np.searchsorted(now["first"], lost["first"]) + np.arange(len(lost))] = True
            seen = np.empty(len(is_gone), SEEN)
            seen["row"][is_gone] = GONE
            seen["row"][~is_gone] = block["row"] if block is not None else 0
            for name in ("print", "sketch"):
                seen[name][is_gone], seen[name][~is_gone] = lost[name], now[name]
            if former is not None:
                added.append(start + np.flatnonzero(~is_gone)[~is_known])
                gone.append(start + np.flatnonzero(is_gone))
            spread.add(now["sketch"])
            arrays.append(union, seen)
            arrays.append(samples, now)
            start += len(seen)
    return Union(
        path,
        count=start,
        added=np.concatenate(added) if former is not None else None,
        gone=np.concatenate(gone),
        widest=spread.widest,
    )


def _known(block: NDArray[Any], *, sketches: NDArray[np.uint64]) -> NDArray[Any]:
    known = np.empty(len(block), KNOWN)
    for name in ("first", *MATCHED):
        known[name] = block[name]
    known["sketch"] = sketches[block["row"]]
    return known


@final
class _Spread:
    """How much each number of some sketches varies."""

    def __init__(self) -> None:
        self._count, self._sums, self._squares = 0, np.zeros(4, np.int64), np.zeros(4, np.int64)

    def add(self, sketches: NDArray[np.uint64]) -> None:
        values = sketched(sketches).astype(np.int64)
        self._count += len(values)
        self._sums += values.sum(axis=0)
        self._squares += (values**2).sum(axis=0)

    @property
    def widest(self) -> int:
        """Which one varies the most."""
        sums, squares = self._sums.tolist(), self._squares.tolist()
        variances = [self._count * square - total**2 for total, square in zip(sums, squares, strict=True)]
        return variances.index(max(variances))


def sketched(codes: NDArray[np.uint64]) -> NDArray[np.int16]:
    """Sketches that were made one number each, shape ``(N, 4)``."""
    return np.ascontiguousarray(codes).view(np.int16).reshape(-1, 4)
