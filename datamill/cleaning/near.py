"""Near duplicates: pairs whose fingerprints differ in few bits, confirmed on thumbnails; never all pairs.

Samples are compared within buckets, and what a bucket gives depends on the samples in it alone. So a run looks only
into the buckets of samples that were not there the last time or are gone (``datamill.recall``), and takes the pairs of
all others over::

    samples     a ``KNOWN`` of each sample compared, in the order of contents
    pairs       a ``PAIR`` of each pair found: places of its samples, and the buckets in which it was compared
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from datamill import recall
from datamill.cleaning.duplicates import Copies, of_first
from datamill.cleaning.observing import SKETCH_RANGE, Ids, Thumbnails, records_at
from datamill.cleaning.policies import NearPolicy
from datamill.fates import Fates
from datamill.ledger import Fate
from datamill.links import Links, contains, joined, linked
from datamill.recall import Former
from datamill.runs import RUN_ROWS, SortedRuns

NEAR_DUPLICATE = "near_duplicate"
NUM_BITS = 64
SHARED = 2  # blocks: more make smaller buckets, and more ways to choose them
MAX_NEIGHBORS = 64  # samples of one bucket that a sample is compared with; bounds the work where thousands look alike
PAIRED_AT_ONCE = 16_384  # samples; bounds memory
READ_AT_ONCE = 8_192  # pairs whose thumbnails are in memory; bounds it
COMPARED_AT_ONCE = 4_096  # pairs; bounds memory
PART_ROWS = 2**17  # samples of several buckets that are looked at together, on average; bounds memory
MAX_WAITING = 2**17  # pairs that wait to be confirmed; bounds memory
MAX_PAIRS = 2**20  # beyond them only one link per sample of a cluster is kept; bounds memory
ODD = 0x9E3779B97F4A7C15  # spreads the bits of a number over the upper ones
VALUE_BITS = 16  # of each number of a sketch
FILTER_BITS = 16
TOUCHED = 16  # samples in the buckets of one that changed, about

SEEN = np.dtype([("row", np.int64), ("print", np.uint64), ("sketch", np.uint64)])
"""A sample that is compared, or was the last time and is ``GONE``."""
GONE = -1
KNOWN = np.dtype([(name, np.uint64) for name in ("first", "second", "print", "sketch")])
PRINT = np.dtype([("row", np.int64), ("print", np.uint64)])
MATCHED = ("second", "print")  # what makes a sample the same, besides the first half of its content hash
PAIR = np.dtype([("left", np.uint32), ("right", np.uint32), ("choices", np.uint16)])

Rows = NDArray[Any]
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


@dataclass(frozen=True)
class State:
    """Where the last run's samples and pairs are, and will be.

    Attributes:
        folder: The stage's own.
        made_with: Stands for all that decides which samples are near, apart from their content.
    """

    folder: Path
    made_with: str


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
        recall.forget(state.folder)
        return near_clusters(
            samples, pictures=pictures, max_bits=max_bits, likeness=likeness, scratch=scratch, state=state
        )

    facts = recall.recalled(state.folder, made_with=state.made_with)
    former = state.folder / "samples" if facts else None
    sketches = pictures.sketches(_strangers(samples(), former=former))
    union = _unite(samples(), former=former, sketches=sketches, scratch=scratch)
    if facts and union.widest != facts["widest"]:
        return afresh()
    pairs = _taken_over(state.folder / "pairs", union=union) if facts else _Pairs()
    _compare(union, pairs=pairs, pictures=pictures, max_bits=max_bits, likeness=likeness)
    if facts and not pairs.is_complete:  # links cannot be taken apart, so none may stand for pairs that are gone
        return afresh()
    recall.forget(state.folder)
    if pairs.is_complete:
        _note(pairs, union=union, path=scratch / "pairs")
        kept = [scratch / "samples", scratch / "pairs"]
        recall.keep(state.folder, kept, made_with=state.made_with, facts={"widest": union.widest})
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


@dataclass(frozen=True)
class _Union:
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


def _strangers(blocks: Iterable[NDArray[Any]], *, former: Path | None) -> NDArray[np.int64] | None:
    """Rows of the samples that were not there the last time, ascending; ``None`` for all."""
    if former is None:
        return None
    then, found = Former(former, KNOWN), [np.empty(0, np.int64)]
    for block in blocks:
        if len(block):
            found.append(block["row"][recall.match(block, then.up_to(block["first"][-1]), fields=MATCHED) < 0])
    return np.sort(np.concatenate(found))


def _unite(
    blocks: Iterable[NDArray[Any]], *, former: Path | None, sketches: NDArray[np.uint64], scratch: Path
) -> _Union:
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
            seen.tofile(union)
            now.tofile(samples)
            start += len(seen)
    return _Union(
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
        values = _sketched(sketches).astype(np.int64)
        self._count += len(values)
        self._sums += values.sum(axis=0)
        self._squares += (values**2).sum(axis=0)

    @property
    def widest(self) -> int:
        """Which one varies the most."""
        sums, squares = self._sums.tolist(), self._squares.tolist()
        variances = [self._count * square - total**2 for total, square in zip(sums, squares, strict=True)]
        return variances.index(max(variances))


@final
class _Pairs:
    """Pairs of places, each as one number: the smaller place by how many there are, and the larger one.

    Attributes:
        codes: The pairs, ascending.
        choices: In which choices of blocks each was compared, as bits.
        is_complete: Whether all pairs are here, and not links that stand for them.
    """

    def __init__(self, codes: Rows | None = None, choices: NDArray[np.uint16] | None = None) -> None:
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
        if len(self.codes) > MAX_PAIRS:
            links = linked(_pairs(self.codes, count=count))
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


def _compare(union: _Union, *, pairs: _Pairs, pictures: Pictures, max_bits: int, likeness: Likeness) -> None:
    """Bring pairs up to date: look into the buckets of all samples that came or went."""
    changed = _changed(union)
    limit = likeness.mean * SKETCH_RANGE + 1  # rounding took less than 1 from each
    waiting: list[tuple[Rows, NDArray[np.uint16]]] = []
    for number, chosen in enumerate(_choices(max_bits=max_bits)):
        for places, seen, is_new in _bucketed(union, chosen=chosen, changed=changed):
            look = functools.partial(_near, count=union.count, chosen=chosen, max_bits=max_bits, limit=limit)
            is_now = seen["row"] != GONE
            now = look(places[is_now], seen[is_now], widest=union.widest)
            then = look(places[~is_new], seen[~is_new], widest=union.widest)
            pairs.untick(np.setdiff1d(then, now, assume_unique=True), bit=1 << number)
            left = pairs.tick(np.setdiff1d(now, then, assume_unique=True), bit=1 << number)
            waiting.append((left, np.full(len(left), 1 << number, np.uint16)))
            if sum(len(codes) for codes, _ in waiting) > MAX_WAITING:
                _settle(waiting, pairs=pairs, union=union, pictures=pictures, likeness=likeness)
                waiting = []
    _settle(waiting, pairs=pairs, union=union, pictures=pictures, likeness=likeness)
    pairs.drop_uncompared()


def _changed(union: _Union) -> NDArray[np.uint64] | None:
    """Fingerprints of the samples that came or went; ``None`` for all."""
    if union.added is None:
        return None
    seen = records_at(union.path, np.concatenate([union.added, union.gone]), SEEN)
    return np.asarray(np.unique(seen["print"]), np.uint64)


def _bucketed(
    union: _Union, *, chosen: np.uint64, changed: NDArray[np.uint64] | None
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


def _in_order(
    places: Rows, seen: NDArray[Any], *, union: _Union, chosen: np.uint64
) -> tuple[Rows, NDArray[Any], NDArray[np.bool_]]:
    values = _sketched(seen["sketch"])[:, union.widest] ^ np.int16(-1 << VALUE_BITS - 1)
    order = np.argsort(_buckets(seen["print"], chosen=chosen) | values.view(np.uint16), kind="stable")
    places = places[order]
    is_new = np.ones(len(places), bool) if union.added is None else contains(union.added, places)
    return places, seen[order], is_new


def _buckets(prints: NDArray[np.uint64], *, chosen: np.uint64) -> NDArray[np.uint64]:
    """Numbers that are equal where the chosen blocks are; their lower ``VALUE_BITS`` are 0."""
    return (prints & chosen) * np.uint64(ODD) & np.uint64(-1 << VALUE_BITS & (1 << NUM_BITS) - 1)


def _upper(buckets: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (buckets >> np.uint64(NUM_BITS - FILTER_BITS)).astype(np.int64)


def _near(
    places: Rows, seen: NDArray[Any], *, count: int, chosen: np.uint64, widest: int, max_bits: int, limit: float
) -> Rows:
    """Pairs among samples in order whose fingerprints are near and whose sketches do not rule out that they are alike.

    Returns:
        Codes of the pairs, ascending.
    """
    prints, sketches = np.ascontiguousarray(seen["print"]), np.ascontiguousarray(seen["sketch"])
    values, found = np.ascontiguousarray(_sketched(sketches)[:, widest]), [np.empty(0, np.int64)]
    for start in range(0, len(places), PAIRED_AT_ONCE):
        lefts = np.arange(start, min(start + PAIRED_AT_ONCE, len(places)))
        left, right = _neighbors(lefts, prints, values, chosen=chosen, max_bits=max_bits, limit=limit)
        may_be = functools.reduce(np.logical_and, _differences(sketches, left, right) <= limit)
        left, right = places[left[may_be]], places[right[may_be]]
        found.append(np.minimum(left, right) * count + np.maximum(left, right))
    return np.sort(np.concatenate(found))


def _choices(*, max_bits: int) -> Iterator[np.uint64]:
    """Every choice of ``SHARED`` blocks of a fingerprint, as a mask."""
    num_blocks = max_bits + SHARED
    edges = [NUM_BITS * place // num_blocks for place in range(num_blocks + 1)]
    blocks = [(1 << high) - (1 << low) for low, high in itertools.pairwise(edges)]
    for chosen in itertools.combinations(blocks, SHARED):
        yield np.uint64(sum(chosen))


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
    return np.asarray(np.abs(_sketched(codes[left]).T - _sketched(codes[right]).T), np.int16)


def _sketched(codes: NDArray[np.uint64]) -> NDArray[np.int16]:
    """Sketches that were made one number each, shape ``(N, 4)``."""
    return np.ascontiguousarray(codes).view(np.int16).reshape(-1, 4)


def _settle(
    waiting: list[tuple[Rows, NDArray[np.uint16]]],
    *,
    pairs: _Pairs,
    union: _Union,
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


def _pairs(codes: Rows, *, count: int) -> Rows:
    return np.stack(np.divmod(codes, max(count, 1)), axis=1)


def _clusters(codes: Rows, *, union: _Union) -> Links:
    """The clusters that pairs of places form, by row."""
    return joined(*_ends(codes, union=union))


def _ends(codes: Rows, *, union: _Union) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
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


def _taken_over(path: Path, *, union: _Union) -> _Pairs:
    """The pairs of the last run."""
    assert union.added is not None
    known = np.fromfile(path, PAIR)
    shifts = union.added - np.arange(len(union.added))  # as many of those there before came before each new one
    left, right = (one + np.searchsorted(shifts, one, side="right") for one in (known["left"], known["right"]))
    return _Pairs(left.astype(np.int64) * union.count + right, known["choices"].copy())


def _note(pairs: _Pairs, *, union: _Union, path: Path) -> None:
    """Write the pairs for the next run."""
    with path.open("wb") as file:
        for start in range(0, len(pairs.codes), RUN_ROWS):
            here = slice(start, start + RUN_ROWS)
            known = np.empty(len(pairs.codes[here]), PAIR)
            for name, places in zip(("left", "right"), np.divmod(pairs.codes[here], union.count), strict=True):
                known[name] = places - np.searchsorted(union.gone, places)
            known["choices"] = pairs.choices[here]
            known.tofile(file)
