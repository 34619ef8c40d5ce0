"""Near duplicates: pairs whose fingerprints differ in few bits, confirmed on thumbnails; never all pairs."""

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from datamill.cleaning.clusters import first_of_cluster
from datamill.cleaning.duplicates import of_first
from datamill.cleaning.observing import SKETCH_RANGE, Ids, Observed
from datamill.cleaning.policies import NearPolicy
from datamill.fates import Fates
from datamill.ledger import Fate

NEAR_DUPLICATE = "near_duplicate"
NUM_BITS = 64
SHARED = 2  # blocks: more make smaller buckets, and more ways to choose them
MAX_NEIGHBORS = 64  # samples of one bucket that a sample is compared with; bounds the work where thousands look alike
SORTED_AT_ONCE = 65_536  # samples; bounds memory
BLOCK_ROWS = 32_768  # thumbnails read at a time; bounds memory
COMPARED_AT_ONCE = 16_384  # pairs; bounds memory
MAX_PAIRS = 2**22  # beyond them only one link per sample of a cluster is kept; bounds memory
ODD = 0x9E3779B97F4A7C15  # spreads the bits of a number over the upper ones
VALUE_BITS = 16  # of each number of a sketch

Rows = NDArray[Any]
Read = Callable[[int, int], NDArray[np.uint8]]
"""Thumbnails of the samples from one row up to another: grey pixels, shape ``(rows, D)``."""


@dataclass(frozen=True)
class Likeness:
    """How alike two thumbnails must be (0 to 1)."""

    mean: float
    """Largest mean difference."""
    pixel: float
    """Largest difference between two pixels."""

    def holds(self, left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Whether pairs of thumbnails, shape ``(P, D)`` each, are alike, shape ``(P,)``."""
        difference = np.maximum(left, right) - np.minimum(left, right)
        is_near = difference.sum(axis=1, dtype=np.int64) <= self.mean * 255 * difference.shape[1]
        return np.asarray(is_near & (difference.max(axis=1) <= self.pixel * 255), bool)


def near_pairs(
    rows: Rows,
    *,
    fingerprints: NDArray[np.uint64],
    sketches: NDArray[np.int16],
    read: Read,
    max_bits: int,
    likeness: Likeness,
) -> NDArray[np.int64]:
    """Pairs of near-duplicate images.

    Multi-index hashing: of ``max_bits + SHARED`` blocks of the fingerprint, at least ``SHARED`` are equal in
    fingerprints that differ in ``max_bits`` bits or fewer, so only samples that share that many are compared. Within
    such a bucket samples are sorted by one number of their sketch, and each is compared with the next
    ``MAX_NEIGHBORS``: work grows linearly with the samples. A larger bucket of equal sketches may hide a pair; its
    chain of neighbours mostly joins it all the same. Where thousands look alike, links to the first sample of a
    cluster may stand for its pairs.

    Args:
        rows: Which samples to compare, ascending, shape ``(M,)``.
        fingerprints: Of all samples, shape ``(N,)``.
        sketches: As ``sketch`` makes them of the thumbnails, shape ``(N, 4)``.
        read: Gives thumbnails.
        max_bits: Hamming distance that is still near.
        likeness: What the thumbnails of a pair must agree in.

    Returns:
        Rows of each pair, the smaller first, sorted, without repetition, shape ``(P, 2)``.

    Source: M. Norouzi, A. Punjani, D. J. Fleet, "Fast exact search in Hamming space with multi-index hashing", 2014.
    """
    num_samples = len(fingerprints)
    waiting, found = _Codes(), _Codes()
    for left, right in _candidates(rows, fingerprints, sketches, max_bits=max_bits, reach=likeness.mean):
        waiting.add(np.minimum(left, right) * num_samples + np.maximum(left, right))
        if waiting.count > MAX_PAIRS:
            found.add(_confirmed(waiting.take(), num_samples=num_samples, read=read, likeness=likeness))
            if found.count > MAX_PAIRS:
                found.add(_links(found.take(), num_samples=num_samples))
    found.add(_confirmed(waiting.take(), num_samples=num_samples, read=read, likeness=likeness))
    return _pairs(found.take(), num_samples=num_samples)


def equal_pairs(fingerprints: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Pairs of samples whose fingerprints are equal: each with the next one of its kind, shape ``(P, 2)``."""
    order = np.argsort(fingerprints, kind="stable")
    same = np.flatnonzero(fingerprints[order[1:]] == fingerprints[order[:-1]])
    return np.stack([order[same], order[same + 1]], axis=1)


def find_near(*, observed: Observed, rows: Rows, policy: NearPolicy) -> NDArray[np.int64]:
    """Pairs of near-duplicates among some samples, shape ``(P, 2)``.

    Args:
        observed: Facts about all samples.
        rows: Those to compare, ascending, shape ``(M,)``.
        policy: How alike they must be; without thumbnails the fingerprints must be equal.
    """
    if observed.thumbnails is None:
        return np.asarray(rows[equal_pairs(observed.fingerprints[rows])], np.int64)
    return near_pairs(
        rows,
        fingerprints=observed.fingerprints,
        sketches=observed.sketches,
        read=observed.thumbnails.read,
        max_bits=policy.max_bits,
        likeness=Likeness(policy.max_mean_difference, policy.max_pixel_difference),
    )


def settle_near(
    fates: Fates,
    *,
    pairs: NDArray[np.int64],
    content: NDArray[np.int32],
    sample_ids: Ids,
    policy: NearPolicy,
) -> None:
    """Decide about all of a cluster of near-duplicates but its first sample and that one's exact copies.

    Args:
        fates: Receives the decisions.
        pairs: Rows that are near-duplicates, each the first of its content, shape ``(P, 2)``.
        content: First row with each sample's content, shape ``(N,)``.
        sample_ids: Id of each sample.
        policy: What becomes of them.
    """
    first = first_of_cluster(pairs, num_samples=len(content))[content]
    fate: Fate = "dropped" if policy.policy == "drop" else "kept"
    rows = np.flatnonzero(first != content)
    fates.decide(
        rows, fate=fate, reason=NEAR_DUPLICATE, details=functools.partial(of_first, first=first, ids=sample_ids)
    )


def _candidates(
    rows: Rows, fingerprints: NDArray[np.uint64], sketches: NDArray[np.int16], *, max_bits: int, reach: float
) -> Iterator[tuple[Rows, Rows]]:
    """Pairs whose fingerprints are near and whose sketches do not rule out thumbnails that differ by ``reach`` or less.

    The samples are sorted anew for every choice of blocks, so that those to compare lie side by side in memory.
    """
    order, prints, codes = rows.astype(np.int32), fingerprints[rows], sketches.view(np.uint64).ravel()[rows]
    widest = (
        int(np.argmax([np.std(_sketched(codes)[:, place], dtype=np.float64) for place in range(4)])) if len(rows) else 0
    )
    limit = reach * SKETCH_RANGE + 1  # rounding took less than 1 from each
    for chosen in _choices(max_bits=max_bits):
        again = _sorted(prints, _sketched(codes)[:, widest], chosen=chosen)
        order, prints, codes = order[again], prints[again], codes[again]
        values = np.ascontiguousarray(_sketched(codes)[:, widest])
        for start in range(0, len(order), SORTED_AT_ONCE):
            places = np.arange(start, min(start + SORTED_AT_ONCE, len(order)))
            left, right = _near(places, prints, values, chosen=chosen, max_bits=max_bits, limit=limit)
            may_be = functools.reduce(np.logical_and, _differences(codes, left, right) <= limit)
            yield order[left[may_be]].astype(np.int64), order[right[may_be]].astype(np.int64)


def _choices(*, max_bits: int) -> Iterator[np.uint64]:
    """Every choice of ``SHARED`` blocks of a fingerprint, as a mask."""
    num_blocks = max_bits + SHARED
    edges = [NUM_BITS * place // num_blocks for place in range(num_blocks + 1)]
    blocks = [(1 << high) - (1 << low) for low, high in itertools.pairwise(edges)]
    for chosen in itertools.combinations(blocks, SHARED):
        yield np.uint64(sum(chosen))


def _sorted(prints: NDArray[np.uint64], values: NDArray[np.int16], *, chosen: np.uint64) -> Rows:
    """Places in order: equal chosen blocks side by side, and among them ascending values."""
    keys = prints & chosen
    keys *= np.uint64(ODD)
    keys &= np.uint64(-1 << VALUE_BITS & (1 << NUM_BITS) - 1)
    keys |= (values ^ np.int16(-1 << VALUE_BITS - 1)).view(np.uint16)
    return np.argsort(keys, kind="stable").astype(np.int32)


def _near(
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
    return np.asarray(np.abs(_sketched(codes[left]).T - _sketched(codes[right]).T), np.int16)


def _sketched(codes: NDArray[np.uint64]) -> NDArray[np.int16]:
    """Sketches that were made one number each, shape ``(N, 4)``."""
    return codes.view(np.int16).reshape(-1, 4)


@final
class _Codes:
    """Pairs of rows, each as one number: the smaller row by the number of samples, and the larger one."""

    def __init__(self) -> None:
        self._pieces: list[Rows] = []
        self.count = 0

    def add(self, codes: Rows) -> None:
        self._pieces.append(codes)
        self.count += len(codes)

    def take(self) -> Rows:
        """All pairs, sorted, without repetition; none is left."""
        codes: Rows = np.unique(np.concatenate([np.empty(0, np.int64), *self._pieces]))
        self._pieces, self.count = [], 0
        return codes


def _confirmed(codes: Rows, *, num_samples: int, read: Read, likeness: Likeness) -> Rows:
    """The pairs whose thumbnails are alike; two blocks of thumbnails are in memory at a time."""
    pairs = _pairs(codes, num_samples=num_samples)
    blocks = pairs // BLOCK_ROWS
    order = np.lexsort((blocks[:, 1], blocks[:, 0]))
    alike = np.zeros(len(codes), bool)
    block = lru_cache(2)(lambda number: read(number * BLOCK_ROWS, min((number + 1) * BLOCK_ROWS, num_samples)))
    starts = np.flatnonzero(np.diff(blocks[order], axis=0, prepend=-1).any(axis=1))
    for some in np.split(order, starts[1:]) if len(order) else ():
        left, right = (block(int(number)) for number in blocks[some[0]])
        for first in range(0, len(some), COMPARED_AT_ONCE):
            piece = some[first : first + COMPARED_AT_ONCE]
            places = pairs[piece] % BLOCK_ROWS
            alike[piece] = likeness.holds(left[places[:, 0]], right[places[:, 1]])
    return np.asarray(codes[alike])


def _pairs(codes: Rows, *, num_samples: int) -> Rows:
    return np.stack(np.divmod(codes, max(num_samples, 1)), axis=1)


def _links(codes: Rows, *, num_samples: int) -> Rows:
    """A link per sample to the first of its cluster, which joins the same samples as all the pairs."""
    first = first_of_cluster(_pairs(codes, num_samples=num_samples), num_samples=num_samples)
    linked = np.flatnonzero(first != np.arange(num_samples))
    return first[linked] * num_samples + linked
