"""Near duplicates: pairs whose fingerprints differ in few bits, confirmed on thumbnails; never all pairs.

Samples are compared within buckets, and what a bucket gives depends on the samples in it alone. So a run looks only
into the buckets of samples that were not there the last time or are gone (``datamill.recall``), and takes the pairs of
all others over::

    samples     a ``KNOWN`` of each sample compared, in the order of contents
    pairs       a ``PAIR`` of each pair found: places of its samples, and the buckets in which it was compared
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.cleaning.buckets import Rows, bucketed, candidates, changed_prints, choices
from datamill.cleaning.duplicates import Copies, of_first
from datamill.cleaning.observing import SKETCH_RANGE, Ids, Thumbnails, records_at
from datamill.cleaning.pairs import Pairs, note, taken_over
from datamill.cleaning.policies import NearPolicy
from datamill.cleaning.union import GONE, SEEN, Union, strangers, unite
from datamill.fates import Fates
from datamill.ledger import Fate
from datamill.links import Links, joined, linked
from datamill.recall import State
from datamill.runs import RUN_ROWS, SortedRuns

NEAR_DUPLICATE = "near_duplicate"
READ_AT_ONCE = 2**15  # pairs whose thumbnails are in memory; bounds it, and each time features are read from end to end
COMPARED_AT_ONCE = 4_096  # pairs; bounds memory
MAX_WAITING = 2**15  # pairs that wait to be confirmed; bounds memory
PRINT = np.dtype([("row", np.int64), ("print", np.uint64)])

Samples = Callable[[], Iterable[NDArray[Any]]]
"""Starts reading the samples to compare, some at a time, in the order of contents: an ``observing.CONTENT`` each."""


class Pictures(Protocol):
    """Thumbnails of samples."""

    def sketches(self, rows: NDArray[np.int64] | None) -> NDArray[np.uint64]:
        """Of all samples, shape ``(N,)``; only those of ``rows``, ascending, need be filled, where these are given."""

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Grey pixels of some samples, ascending, shape ``(len(rows), D)``."""


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


def near_clusters(
    samples: Samples, *, pictures: Pictures, max_bits: int, likeness: Likeness, scratch: Path, state: State
) -> Links:
    """Clusters of near-duplicate images: those that pairs of them join, directly or through others.

    Multi-index hashing: of ``max_bits + SHARED`` blocks of the fingerprint, at least ``SHARED`` are equal in
    fingerprints that differ in ``max_bits`` bits or fewer, so only samples that share that many are compared. Within
    such a bucket samples are sorted by one number of their sketch, and each is compared with the next
    ``MAX_NEIGHBORS``: work grows linearly with the samples. A larger bucket of equal sketches may hide a pair; its
    chain of neighbours mostly joins it all the same. Where thousands look alike, links to the first sample of a
    cluster may stand for its pairs.

    The samples wait in a file, so memory grows with the pairs at most. The outcome does not depend on ``state``.

    Args:
        samples: Reads those to compare.
        pictures: Thumbnails of all samples.
        max_bits: Hamming distance that is still near.
        likeness: What the thumbnails of a pair must agree in.
        scratch: Folder for files.
        state: Of the last run; becomes that of this one.

    Returns:
        The first sample of each cluster, by row.

    Source: M. Norouzi, A. Punjani, D. J. Fleet, "Fast exact search in Hamming space with multi-index hashing", 2014.
    """

    def afresh() -> Links:
        state.forget()
        return near_clusters(
            samples, pictures=pictures, max_bits=max_bits, likeness=likeness, scratch=scratch, state=state
        )

    facts = state.facts()
    former = state.folder / "samples" if facts else None
    rows = strangers(samples(), former=former)
    union = unite(samples(), former=former, sketches=pictures.sketches(rows), scratch=scratch)
    if facts and union.widest != facts["widest"]:
        return afresh()
    pairs = taken_over(state.folder / "pairs", union=union) if facts else Pairs()
    _compare(union, pairs=pairs, pictures=pictures, max_bits=max_bits, likeness=likeness)
    if facts and not pairs.is_complete:  # links cannot be taken apart, so none may stand for pairs that are gone
        return afresh()
    state.forget()
    if pairs.is_complete:
        note(pairs, union=union, path=scratch / "pairs")
        kept = [scratch / "samples", scratch / "pairs"]
        state.keep(kept, facts={"widest": union.widest})
    pa.default_memory_pool().release_unused()
    return _clusters(pairs.codes, union=union)


def equal_clusters(samples: Samples, *, scratch: Path) -> Links:
    """Clusters of samples whose fingerprints are equal."""
    prints = SortedRuns(scratch / "prints", PRINT, key="print")
    for block in samples():
        prints.add(block[["row", "print"]])
    found = [np.empty((0, 2), np.int64)]
    for block in prints.shared():
        same = np.flatnonzero(block["print"][1:] == block["print"][:-1])
        found.append(np.stack([block["row"][same], block["row"][same + 1]], axis=1))
    prints.remove()
    return linked(np.concatenate(found))


def find_near(
    samples: Samples, *, thumbnails: Thumbnails | None, policy: NearPolicy, scratch: Path, state: State
) -> Links:
    """Clusters of near-duplicates among some samples.

    Args:
        samples: Reads those to compare.
        thumbnails: Of all samples; without them the fingerprints must be equal.
        policy: How alike they must be.
        scratch: Folder for files.
        state: Of the last run; becomes that of this one.
    """
    if thumbnails is None:
        return equal_clusters(samples, scratch=scratch)
    return near_clusters(
        samples,
        pictures=thumbnails,
        max_bits=policy.max_bits,
        likeness=Likeness(policy.max_mean_difference, policy.max_pixel_difference),
        scratch=scratch,
        state=state,
    )


def settle_near(fates: Fates, *, clusters: Links, copies: Copies, sample_ids: Ids, policy: NearPolicy) -> None:
    """Decide about all of a cluster of near-duplicates but its first sample and that one's exact copies.

    Args:
        fates: Receives the decisions.
        clusters: Samples that are near-duplicates, each the first of its content.
        copies: Samples of equal content.
        sample_ids: Id of each sample.
        policy: What becomes of them.
    """
    rows = np.union1d(clusters.rows, copies.links.rows)
    contents = copies.links.of(rows)
    firsts = clusters.of(contents)
    is_near = firsts != contents
    links = Links(rows[is_near], firsts[is_near])
    fate: Fate = "dropped" if policy.policy == "drop" else "kept"
    details = functools.partial(of_first, links=links, ids=sample_ids)
    fates.decide(links.rows, fate=fate, reason=NEAR_DUPLICATE, details=details)


def _compare(union: Union, *, pairs: Pairs, pictures: Pictures, max_bits: int, likeness: Likeness) -> None:
    """Bring pairs up to date: look into the buckets of all samples that came or went."""
    changed = changed_prints(union)
    limit = likeness.mean * SKETCH_RANGE + 1  # rounding took less than 1 from each
    waiting: list[tuple[Rows, NDArray[np.uint16]]] = []
    for number, chosen in enumerate(choices(max_bits=max_bits)):
        for places, seen, is_new in bucketed(union, chosen=chosen, changed=changed):
            look = functools.partial(candidates, count=union.count, chosen=chosen, max_bits=max_bits, limit=limit)
            is_now = seen["row"] != GONE
            now = look(places[is_now], seen[is_now], widest=union.widest)
            then = look(places[~is_new], seen[~is_new], widest=union.widest)
            pairs.untick(np.setdiff1d(then, now, assume_unique=True), bit=1 << number)
            left = pairs.tick(np.setdiff1d(now, then, assume_unique=True), bit=1 << number)
            waiting.append((left, np.full(len(left), 1 << number, np.uint16)))
            if sum(len(codes) for codes, _ in waiting) > MAX_WAITING:
                _settle(waiting, pairs=pairs, union=union, pictures=pictures, likeness=likeness)
                waiting = []
            pa.default_memory_pool().release_unused()  # else the heap grows with the samples
    _settle(waiting, pairs=pairs, union=union, pictures=pictures, likeness=likeness)
    pairs.drop_uncompared()


def _settle(
    waiting: list[tuple[Rows, NDArray[np.uint16]]],
    *,
    pairs: Pairs,
    union: Union,
    pictures: Pictures,
    likeness: Likeness,
) -> None:
    """Take the pairs whose thumbnails are alike."""
    codes = np.concatenate([np.empty(0, np.int64), *(codes for codes, _ in waiting)])
    choices = np.concatenate([np.empty(0, np.uint16), *(choices for _, choices in waiting)])
    order = np.argsort(codes, kind="stable")
    codes, starts = np.unique(codes[order], return_index=True)
    if not len(codes):
        return
    choices = np.bitwise_or.reduceat(choices[order], starts)
    alike = np.zeros(len(codes), bool)
    for start in range(0, len(codes), READ_AT_ONCE):
        rows, left, right = _ends(codes[start : start + READ_AT_ONCE], union=union)
        pixels, ends = pictures.read(rows), np.stack([left, right], axis=1)
        for first in range(0, len(ends), COMPARED_AT_ONCE):
            left, right = ends[first : first + COMPARED_AT_ONCE].T
            here = slice(start + first, start + first + len(left))
            alike[here] = likeness.holds(pixels[left], pixels[right])
    pairs.add(codes[alike], choices[alike], count=union.count)


def _clusters(codes: Rows, *, union: Union) -> Links:
    """The clusters that pairs of places form, by row."""
    return joined(*_ends(codes, union=union))


def _ends(codes: Rows, *, union: Union) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Rows of all samples of some pairs, ascending, and among these the places of the first and second of each pair."""
    left, right = np.empty(len(codes), np.int32), np.empty(len(codes), np.int32)
    for start in range(0, len(codes), RUN_ROWS):
        here = slice(start, start + RUN_ROWS)
        left[here], right[here] = np.divmod(codes[here], max(union.count, 1))
    places = np.union1d(left, right)
    rows = records_at(union.path, places, SEEN)["row"]
    order = np.argsort(rows)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    for ends in (left, right):
        for start in range(0, len(codes), RUN_ROWS):
            here = slice(start, start + RUN_ROWS)
            ends[here] = rank[np.searchsorted(places, ends[here])]
    return rows[order], left, right
