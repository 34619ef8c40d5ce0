"""Buckets of samples whose fingerprints agree in part, and the pairs in them that may be near-duplicates.

What a bucket gives depends on the samples in it alone.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamill.cleaning.observing import records_at
from datamill.cleaning.union import SEEN, Union, sketched
from datamill.links import contains

NUM_BITS = 64
SHARED = 2  # blocks: more make smaller buckets, and more ways to choose them
MAX_NEIGHBORS = 64  # samples of one bucket that a sample is compared with; bounds the work where thousands look alike
PAIRED_AT_ONCE = 16_384  # samples; bounds memory
PART_ROWS = 2**17  # samples of several buckets that are looked at together, on average; bounds memory
ODD = 0x9E3779B97F4A7C15  # spreads the bits of a number over the upper ones
VALUE_BITS = 16  # of each number of a sketch
FILTER_BITS = 16
TOUCHED = 16  # samples in the buckets of one that changed, about

Rows = NDArray[Any]


def choices(*, max_bits: int) -> Iterator[np.uint64]:
    """Every choice of ``SHARED`` blocks of a fingerprint, as a mask."""
    num_blocks = max_bits + SHARED
    edges = [NUM_BITS * place // num_blocks for place in range(num_blocks + 1)]
    blocks = [(1 << high) - (1 << low) for low, high in itertools.pairwise(edges)]
    for chosen in itertools.combinations(blocks, SHARED):
        yield np.uint64(sum(chosen))


def changed_prints(union: Union) -> NDArray[np.uint64] | None:
    """Fingerprints of the samples that came or went; ``None`` for all."""
    if union.added is None:
        return None
    seen = records_at(union.path, np.concatenate([union.added, union.gone]), SEEN)
    return np.asarray(np.unique(seen["print"]), np.uint64)


def bucketed(
    union: Union, *, chosen: np.uint64, changed: NDArray[np.uint64] | None
) -> Iterator[tuple[Rows, NDArray[Any], NDArray[np.bool_]]]:
    """Whole buckets in order, many at a time: of each sample its place, what is known of it, and whether it is new.

    Buckets lie one after the other, and the samples of one ascend in the widest number of their sketch.
    """
    wanted = None if changed is None else np.unique(_buckets(changed, chosen=chosen))
    num_rows = union.count if changed is None else min(union.count, TOUCHED * len(changed))
    num_parts = -(-num_rows // PART_ROWS)
    for part in range(num_parts):
        low, high = (part << FILTER_BITS) // num_parts, (part + 1 << FILTER_BITS) // num_parts
        is_asked = np.zeros(1 << FILTER_BITS, bool)
        is_asked[low:high] = True
        if wanted is not None:
            is_asked &= np.bincount(_upper(wanted), minlength=len(is_asked)) > 0
        places, pieces = [np.empty(0, np.int64)], [np.empty(0, SEEN)]
        for start, block in union.blocks():
            keys = _buckets(block["print"], chosen=chosen)
            here = np.flatnonzero(is_asked[_upper(keys)])
            if wanted is not None:
                here = here[contains(wanted, keys[here])]
            places.append(start + here)
            pieces.append(block[here])
        yield _in_order(np.concatenate(places), np.concatenate(pieces), union=union, chosen=chosen)


def candidates(
    places: Rows, seen: NDArray[Any], *, count: int, chosen: np.uint64, widest: int, max_bits: int, limit: float
) -> Rows:
    """Pairs among samples in order whose fingerprints are near and whose sketches do not rule out that they are alike.

    Returns:
        Codes of the pairs, ascending.
    """
    prints, sketches = np.ascontiguousarray(seen["print"]), np.ascontiguousarray(seen["sketch"])
    values, found = np.ascontiguousarray(sketched(sketches)[:, widest]), [np.empty(0, np.int64)]
    for start in range(0, len(places), PAIRED_AT_ONCE):
        lefts = np.arange(start, min(start + PAIRED_AT_ONCE, len(places)))
        left, right = _neighbors(lefts, prints, values, chosen=chosen, max_bits=max_bits, limit=limit)
        may_be = functools.reduce(np.logical_and, _differences(sketches, left, right) <= limit)
        left, right = places[left[may_be]], places[right[may_be]]
        found.append(np.minimum(left, right) * count + np.maximum(left, right))
    return np.sort(np.concatenate(found))


def _in_order(
    places: Rows, seen: NDArray[Any], *, union: Union, chosen: np.uint64
) -> tuple[Rows, NDArray[Any], NDArray[np.bool_]]:
    values = sketched(seen["sketch"])[:, union.widest] ^ np.int16(-1 << VALUE_BITS - 1)
    order = np.argsort(_buckets(seen["print"], chosen=chosen) | values.view(np.uint16), kind="stable")
    places = places[order]
    is_new = np.ones(len(places), bool) if union.added is None else contains(union.added, places)
    return places, seen[order], is_new


def _buckets(prints: NDArray[np.uint64], *, chosen: np.uint64) -> NDArray[np.uint64]:
    """Numbers that are equal where the chosen blocks are; their lower ``VALUE_BITS`` are 0."""
    return (prints & chosen) * np.uint64(ODD) & np.uint64(-1 << VALUE_BITS & (1 << NUM_BITS) - 1)


def _upper(buckets: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (buckets >> np.uint64(NUM_BITS - FILTER_BITS)).astype(np.int64)


def _neighbors(
    left: Rows,
    prints: NDArray[np.uint64],
    values: NDArray[np.int16],
    *,
    chosen: np.uint64,
    max_bits: int,
    limit: float,
) -> tuple[Rows, Rows]:
    """Pairs of a place and one of the next, whose values and fingerprints are near."""
    found = [np.empty((2, 0), np.int64)]
    for step in range(1, MAX_NEIGHBORS + 1):
        left = left[: np.searchsorted(left, len(prints) - step)]
        right = left + step
        differing = prints[left] ^ prints[right]
        is_next = (differing & chosen == 0) & (values[right] - values[left] <= limit)
        left, differing = left[is_next], differing[is_next]  # sorted: the next step takes the others further apart
        if not len(left):
            break
        for _ in range(max_bits):
            differing &= differing - (differing > 0)  # without its lowest bit
        near = left[differing == 0]
        found.append(np.stack([near, near + step]))
    left, right = np.concatenate(found, axis=1)
    return left, right


def _differences(codes: NDArray[np.uint64], left: Rows, right: Rows) -> NDArray[np.int16]:
    """How far the four numbers of pairs of sketches are apart, shape ``(4, P)``."""
    return np.asarray(np.abs(sketched(codes[left]).T - sketched(codes[right]).T), np.int16)
