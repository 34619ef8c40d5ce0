"""Near duplicates: pairs whose fingerprints differ in few bits, confirmed on thumbnails; never all pairs."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from datamill.cleaning.duplicates import Copies, of_first
from datamill.cleaning.observing import SEEN, SKETCH_RANGE, Ids, Observed
from datamill.cleaning.policies import NearPolicy
from datamill.fates import Fates
from datamill.ledger import Fate
from datamill.links import Links, linked
from datamill.runs import SortedRuns

NEAR_DUPLICATE = "near_duplicate"
NUM_BITS = 64
SHARED = 2  # blocks: more make smaller buckets, and more ways to choose them
MAX_NEIGHBORS = 64  # samples of one bucket that a sample is compared with; bounds the work where thousands look alike
PAIRED_AT_ONCE = 8_192  # samples; bounds memory
COMPARED_AT_ONCE = 4_096  # pairs; bounds memory
MAX_PAIRS = 2**18  # beyond them only one link per sample of a cluster is kept; bounds memory
ODD = 0x9E3779B97F4A7C15  # spreads the bits of a number over the upper ones
VALUE_BITS = 16  # of each number of a sketch

SORTED = np.dtype([("key", np.uint64), *((name, SEEN[name]) for name in SEEN.names or ())])

Rows = NDArray[Any]
Samples = Callable[[], Iterable[NDArray[Any]]]
"""Starts reading the samples to compare, some at a time, in sample order: a ``SEEN`` each."""
Read = Callable[[Rows], NDArray[np.uint8]]
"""Thumbnails of some samples: grey pixels, shape ``(rows, D)``."""


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
    samples: Samples, *, num_samples: int, read: Read, max_bits: int, likeness: Likeness, scratch: Path
) -> NDArray[np.int64]:
    """Pairs of near-duplicate images.

    Multi-index hashing: of ``max_bits + SHARED`` blocks of the fingerprint, at least ``SHARED`` are equal in
    fingerprints that differ in ``max_bits`` bits or fewer, so only samples that share that many are compared. Within
    such a bucket samples are sorted by one number of their sketch, and each is compared with the next
    ``MAX_NEIGHBORS``: work grows linearly with the samples. A larger bucket of equal sketches may hide a pair; its
    chain of neighbours mostly joins it all the same. Where thousands look alike, links to the first sample of a
    cluster may stand for its pairs.

    The samples are sorted in files (``SortedRuns``), so memory grows with the pairs at most.

    Args:
        samples: Reads those to compare.
        num_samples: All samples (count).
        read: Gives thumbnails of all samples.
        max_bits: Hamming distance that is still near.
        likeness: What the thumbnails of a pair must agree in.
        scratch: Folder for files.

    Returns:
        Rows of each pair, the smaller first, sorted, without repetition, shape ``(P, 2)``.

    Source: M. Norouzi, A. Punjani, D. J. Fleet, "Fast exact search in Hamming space with multi-index hashing", 2014.
    """
    waiting, found = _Codes(), _Codes()
    for left, right in _candidates(samples, max_bits=max_bits, reach=likeness.mean, scratch=scratch):
        waiting.add(np.minimum(left, right) * num_samples + np.maximum(left, right))
        if waiting.count > MAX_PAIRS:
            found.add(_confirmed(waiting.take(), num_samples=num_samples, read=read, likeness=likeness))
            if found.count > MAX_PAIRS:
                found.add(_linking(found.take(), num_samples=num_samples))
    found.add(_confirmed(waiting.take(), num_samples=num_samples, read=read, likeness=likeness))
    return _pairs(found.take(), num_samples=num_samples)


def equal_pairs(samples: Samples, *, scratch: Path) -> NDArray[np.int64]:
    """Pairs of samples whose fingerprints are equal: each with the next one of its kind, shape ``(P, 2)``."""
    prints = SortedRuns(scratch / "prints", SEEN, key="print")
    for block in samples():
        prints.add(block)
    found = [np.empty((0, 2), np.int64)]
    for block in prints.shared():
        same = np.flatnonzero(block["print"][1:] == block["print"][:-1])
        found.append(np.stack([block["row"][same], block["row"][same + 1]], axis=1))
    prints.remove()
    return np.concatenate(found)


def find_near(
    samples: Samples, *, observed: Observed, num_samples: int, policy: NearPolicy, scratch: Path
) -> NDArray[np.int64]:
    """Pairs of near-duplicates among some samples, shape ``(P, 2)``.

    Args:
        samples: Reads those to compare.
        observed: Facts about all samples.
        num_samples: All samples (count).
        policy: How alike they must be; without thumbnails the fingerprints must be equal.
        scratch: Folder for files.
    """
    if observed.thumbnails is None:
        return equal_pairs(samples, scratch=scratch)
    return near_pairs(
        samples,
        num_samples=num_samples,
        read=observed.thumbnails.read,
        max_bits=policy.max_bits,
        likeness=Likeness(policy.max_mean_difference, policy.max_pixel_difference),
        scratch=scratch,
    )


def settle_near(fates: Fates, *, pairs: NDArray[np.int64], copies: Copies, sample_ids: Ids, policy: NearPolicy) -> None:
    """Decide about all of a cluster of near-duplicates but its first sample and that one's exact copies.

    Args:
        fates: Receives the decisions.
        pairs: Rows that are near-duplicates, each the first of its content, shape ``(P, 2)``.
        copies: Samples of equal content.
        sample_ids: Id of each sample.
        policy: What becomes of them.
    """
    clusters = linked(pairs)
    rows = np.union1d(clusters.rows, copies.links.rows)
    contents = copies.links.of(rows)
    firsts = clusters.of(contents)
    is_near = firsts != contents
    links = Links(rows[is_near], firsts[is_near])
    fate: Fate = "dropped" if policy.policy == "drop" else "kept"
    details = functools.partial(of_first, links=links, ids=sample_ids)
    fates.decide(links.rows, fate=fate, reason=NEAR_DUPLICATE, details=details)


def _candidates(samples: Samples, *, max_bits: int, reach: float, scratch: Path) -> Iterator[tuple[Rows, Rows]]:
    """Pairs whose fingerprints are near and whose sketches do not rule out thumbnails that differ by ``reach`` or less.

    The samples are sorted anew for every choice of blocks, so that those to compare lie side by side.
    """
    widest = _widest(samples())
    limit = reach * SKETCH_RANGE + 1  # rounding took less than 1 from each
    choices = [*_choices(max_bits=max_bits), np.uint64(0)]
    current = _keyed_runs(scratch / "near-0")
    for block in samples():
        current.add(_keyed(block, chosen=choices[0], widest=widest))
    for number, (chosen, following) in enumerate(itertools.pairwise(choices), start=1):
        next_runs = _keyed_runs(scratch / f"near-{number}")
        before = np.empty(0, SORTED)
        for block in current.merged():
            if following:
                next_runs.add(_keyed(block, chosen=following, widest=widest))
            block = np.concatenate([before, block])
            count = max(len(block) - MAX_NEIGHBORS, 0)  # the others may have neighbours that come later
            yield from _neighbors(block, count, chosen=chosen, widest=widest, max_bits=max_bits, limit=limit)
            before = block[count:].copy()
        yield from _neighbors(before, len(before), chosen=chosen, widest=widest, max_bits=max_bits, limit=limit)
        current.remove()
        current = next_runs
    current.remove()


def _keyed_runs(path: Path) -> SortedRuns:
    return SortedRuns(path, SORTED, key="key")


def _widest(blocks: Iterable[NDArray[Any]]) -> int:
    """Which number of the sketches varies the most."""
    count, sums, squares = 0, np.zeros(4, np.int64), np.zeros(4, np.int64)
    for block in blocks:
        values = _sketched(block["sketch"]).astype(np.int64)
        count, sums, squares = count + len(values), sums + values.sum(axis=0), squares + (values**2).sum(axis=0)
    variances = [count * square - total**2 for total, square in zip(sums.tolist(), squares.tolist(), strict=True)]
    return variances.index(max(variances))


def _neighbors(
    block: NDArray[Any], count: int, *, chosen: np.uint64, widest: int, max_bits: int, limit: float
) -> Iterator[tuple[Rows, Rows]]:
    """Candidates among sorted samples: pairs of one of the first ``count`` and one that comes after it."""
    rows, prints, sketches = (np.ascontiguousarray(block[name]) for name in ("row", "print", "sketch"))
    values = np.ascontiguousarray(_sketched(sketches)[:, widest])
    for start in range(0, count, PAIRED_AT_ONCE):
        places = np.arange(start, min(start + PAIRED_AT_ONCE, count))
        left, right = _near(places, prints, values, chosen=chosen, max_bits=max_bits, limit=limit)
        may_be = functools.reduce(np.logical_and, _differences(sketches, left, right) <= limit)
        yield rows[left[may_be]], rows[right[may_be]]


def _choices(*, max_bits: int) -> Iterator[np.uint64]:
    """Every choice of ``SHARED`` blocks of a fingerprint, as a mask."""
    num_blocks = max_bits + SHARED
    edges = [NUM_BITS * place // num_blocks for place in range(num_blocks + 1)]
    blocks = [(1 << high) - (1 << low) for low, high in itertools.pairwise(edges)]
    for chosen in itertools.combinations(blocks, SHARED):
        yield np.uint64(sum(chosen))


def _keyed(block: NDArray[Any], *, chosen: np.uint64, widest: int) -> NDArray[Any]:
    """Samples with keys that bring equal chosen blocks side by side, and among them ascending values."""
    records = np.empty(len(block), SORTED)
    for name in SEEN.names or ():
        records[name] = block[name]
    keys = block["print"] & chosen
    keys *= np.uint64(ODD)
    keys &= np.uint64(-1 << VALUE_BITS & (1 << NUM_BITS) - 1)
    keys |= (_sketched(block["sketch"])[:, widest] ^ np.int16(-1 << VALUE_BITS - 1)).view(np.uint16)
    records["key"] = keys
    return records


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
    return np.ascontiguousarray(codes).view(np.int16).reshape(-1, 4)


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
    """The pairs whose thumbnails are alike."""
    alike = np.zeros(len(codes), bool)
    for start in range(0, len(codes), COMPARED_AT_ONCE):
        pairs = _pairs(codes[start : start + COMPARED_AT_ONCE], num_samples=num_samples)
        rows, places = np.unique(pairs, return_inverse=True)
        pixels = read(rows)
        left, right = places.reshape(pairs.shape).T
        alike[start : start + COMPARED_AT_ONCE] = likeness.holds(pixels[left], pixels[right])
    return np.asarray(codes[alike])


def _pairs(codes: Rows, *, num_samples: int) -> Rows:
    return np.stack(np.divmod(codes, max(num_samples, 1)), axis=1)


def _linking(codes: Rows, *, num_samples: int) -> Rows:
    """A pair per sample with the first of its cluster, which joins the same samples as all the pairs."""
    links = linked(_pairs(codes, num_samples=num_samples))
    return links.firsts * num_samples + links.rows
