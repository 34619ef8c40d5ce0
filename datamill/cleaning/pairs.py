"""Pairs of near-duplicates, and the buckets in which each was compared."""

from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from datamill import arrays
from datamill.cleaning.buckets import Rows
from datamill.cleaning.union import Union
from datamill.links import linked
from datamill.runs import RUN_ROWS

MAX_PAIRS = 2**20  # beyond them, and one per sample, only a link per sample of a cluster is kept; bounds memory
PER_SAMPLE = 1
PAIR = np.dtype([("left", np.uint32), ("right", np.uint32), ("choices", np.uint16)])


@final
class Pairs:
    """Pairs of places, each as one number: the smaller place by how many there are, and the larger one.

    Attributes:
        codes: The pairs, ascending.
        choices: In which choices of blocks each was compared, as bits.
        is_complete: Whether all pairs are here, and not links that stand for them.
    """

    def __init__(self, codes: Rows | None = None, choices: NDArray[np.uint16] | None = None) -> None:
        """Take pairs, ascending, and where they were compared; none by default."""
        self.codes: Rows = codes if codes is not None else np.empty(0, np.int64)
        self.choices = choices if choices is not None else np.empty(0, np.uint16)
        self.is_complete = True

    def tick(self, codes: Rows, *, bit: int) -> Rows:
        """Note where pairs were compared; those that are not here are given back."""
        places = self._places(codes)
        self.choices[places[places >= 0]] |= np.uint16(bit)
        return codes[places < 0]

    def untick(self, codes: Rows, *, bit: int) -> None:
        """Note where pairs are not compared any more."""
        places = self._places(codes)
        self.choices[places[places >= 0]] &= np.uint16(~bit & 0xFFFF)

    def add(self, codes: Rows, choices: NDArray[np.uint16], *, count: int) -> None:
        """Take pairs that are not here, of ``count`` places; too many become links."""
        where = np.searchsorted(self.codes, codes)
        self.codes = np.insert(self.codes, where, codes)
        self.choices = np.insert(self.choices, where, choices)
        if len(self.codes) > max(MAX_PAIRS, PER_SAMPLE * count):
            links = linked(np.stack(np.divmod(self.codes, count), axis=1))
            self.codes = np.sort(links.firsts * count + links.rows)
            self.choices = np.full(len(self.codes), 0xFFFF, np.uint16)
            self.is_complete = False

    def drop_uncompared(self) -> None:
        """Leave out the pairs that are compared nowhere."""
        self.codes, self.choices = self.codes[self.choices != 0], self.choices[self.choices != 0]

    def _places(self, codes: Rows) -> NDArray[np.int64]:
        if not len(self.codes):
            return np.full(len(codes), -1)
        near = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        return np.where(self.codes[near] == codes, near, -1)


def taken_over(path: Path, *, union: Union) -> Pairs:
    """The pairs of the last run."""
    assert union.added is not None
    known = np.fromfile(path, PAIR)
    shifts = union.added - np.arange(len(union.added))  # as many of those there before came before each new one
    left, right = (one + np.searchsorted(shifts, one, side="right") for one in (known["left"], known["right"]))
    return Pairs(left.astype(np.int64) * union.count + right, known["choices"].copy())


def note(pairs: Pairs, *, union: Union, path: Path) -> None:
    """Write the pairs for the next run."""
    with path.open("wb") as file:
        for start in range(0, len(pairs.codes), RUN_ROWS):
            here = slice(start, start + RUN_ROWS)
            known = np.empty(len(pairs.codes[here]), PAIR)
            for name, places in zip(("left", "right"), np.divmod(pairs.codes[here], union.count), strict=True):
                known[name] = places - np.searchsorted(union.gone, places)
            known["choices"] = pairs.choices[here]
            arrays.append(file, known)
