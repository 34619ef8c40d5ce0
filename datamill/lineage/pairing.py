"""Which sample of one run is which sample of another: by source key, and by content where the key is another."""

# Shapes: N samples of run A, M samples of run B.

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.lineage.roster import Roster

ALONE = -1  # partner of a sample that the other run does not have


@dataclass(frozen=True)
class Pairs:
    """Partners of the samples of two runs.

    Attributes:
        of_a: Place in B of each sample of A, or ``ALONE``, shape ``(N,)``.
        of_b: Place in A of each sample of B, or ``ALONE``, shape ``(M,)``.
        is_renamed: Whether a sample of A was found in B by its content only, shape ``(N,)``.
    """

    of_a: NDArray[np.int64]
    of_b: NDArray[np.int64]
    is_renamed: NDArray[np.bool_]

    @property
    def both(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places in A and in B of the samples that both runs have, in the order of A."""
        rows = np.flatnonzero(self.of_a != ALONE)
        return rows, self.of_a[rows]


def pair(a: Roster, b: Roster) -> Pairs:
    """Partners by source key; what is left finds a partner of equal content, equal ones in their order."""
    of_a = match(a.sources, b.sources)
    of_b = inverse(of_a, count=len(b))
    left_a, left_b = np.flatnonzero(of_a == ALONE), np.flatnonzero(of_b == ALONE)
    found = match(a.contents.take(pa.array(left_a)), b.contents.take(pa.array(left_b)))
    is_found = found != ALONE
    of_a[left_a[is_found]] = left_b[found[is_found]]
    is_renamed = np.zeros(len(a), bool)
    is_renamed[left_a[is_found]] = True
    return Pairs(of_a, inverse(of_a, count=len(b)), is_renamed)


def match(left: pa.Array, right: pa.Array) -> NDArray[np.int64]:
    """Place in ``right`` of each text of ``left``, or ``ALONE``; the n-th of equal ones goes to the n-th there."""
    codes = pa.concat_arrays([left, right]).dictionary_encode().indices.to_numpy().astype(np.int64)
    keys_left, keys_right = (occurrence_keys(part) for part in (codes[: len(left)], codes[len(left) :]))
    if not len(keys_right):
        return np.full(len(left), ALONE, np.int64)
    order = np.argsort(keys_right)
    places = np.minimum(np.searchsorted(keys_right, keys_left, sorter=order), len(keys_right) - 1)
    return np.where(keys_right[order[places]] == keys_left, order[places], ALONE)


def occurrence_keys(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each code and how often it came before, different for every row, shape of ``codes``."""
    order = np.argsort(codes, kind="stable")
    ranked = codes[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(ranked) else np.zeros(0, np.int64)
    occurrence = np.arange(len(codes)) - np.repeat(starts, np.diff(np.r_[starts, len(codes)]))
    keys = np.empty(len(codes), np.int64)
    keys[order] = (ranked << 32) + occurrence
    return keys


def inverse(of_a: NDArray[np.int64], *, count: int) -> NDArray[np.int64]:
    """Partners seen from the other side, shape ``(count,)``."""
    of_b = np.full(count, ALONE, np.int64)
    rows = np.flatnonzero(of_a != ALONE)
    of_b[of_a[rows]] = rows
    return of_b
