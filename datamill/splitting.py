"""Which split a sample belongs to: a function of the sample itself, so that growing data moves nobody.

Every sample gets a number in [0, 1) and the split whose share that number falls into. Samples that must not be
separated form a *unit* (near-duplicates, and the samples of a group where groups are known) and share the number of
the unit's first sample. Under ``hash``, ``stratified`` and ``group`` the number is a hash of content or group, so an
assignment depends on no other sample and on no history: data may be appended anywhere, removed or reordered. The only
exception is the tie itself: a near-duplicate follows its unit's first sample, so a newcomer that comes earlier in
sample order, or that links two units, may pull them to its side, because the alternative is a leak.

Samples are read as a stream. What is held of each is a few numbers, 31 bytes (``Traits``).
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill import ledger
from datamill.errors import DataError
from datamill.hashes import halves

SPLITS = ("train", "validation", "test")
BLOCK = 20  # samples of a class over which ``deal`` is exact: shares in steps of 5 % come out to the sample
BLOCK_ROWS = 65_536  # looked up at a time
NO_FOLD = -1
UNDECIDED = -1  # position of a sample that cannot be placed by itself

Strategy = Literal["hash", "stratified", "stratified_exact", "group", "time"]


@dataclass(frozen=True)
class Rule:
    """How samples are assigned.

    Attributes:
        strategy: ``hash`` and ``group`` hash a sample's content or group, ``stratified`` does so in a stream per class.
            All three meet the shares in expectation, in every class within binomial error, and no rule under which the
            sample alone decides can do better. ``stratified_exact`` deals the units of each class in order (``deal``).
            ``time`` cuts at two moments.
        shares: Target share of each of ``SPLITS``; sum 1.
        cuts: First moment of validation and of test; empty unless for ``time``.
        num_folds: Folds of train (count).
        seed: Equal seeds give equal assignments.
    """

    strategy: Strategy
    shares: Sequence[float]
    cuts: Sequence[datetime]
    num_folds: int
    seed: int


@dataclass(frozen=True)
class Traits:
    """What is known of some samples one by one; arrays of one entry per sample.

    Attributes:
        content: Hash of its content, uint64.
        leak: Hash of its cluster of near-duplicates, 0 for none, uint64.
        group: Hash of its group, 0 for none, uint64.
        label: Number of its class, int32.
        position: Place in ``SPLITS`` that it would have alone, or ``UNDECIDED``, int8.
        fold: Fold that it would have alone, int8.
        is_surviving: Whether it is assigned at all; dropped samples tie others.
    """

    content: NDArray[np.uint64]
    leak: NDArray[np.uint64]
    group: NDArray[np.uint64]
    label: NDArray[np.int32]
    position: NDArray[np.int8]
    fold: NDArray[np.int8]
    is_surviving: NDArray[np.bool_]

    @classmethod
    def blank(cls, num_samples: int) -> "Traits":
        """Room for those of so many samples; what stays zero takes no memory."""
        kinds = (*[np.uint64] * 3, np.int32, np.int8, np.int8, np.bool_)
        return cls(*(np.zeros(num_samples, kind) for kind in kinds))

    def put(self, start: int, piece: "Traits") -> None:
        """Write those of some samples from row ``start`` on."""
        for field in fields(self):
            values = getattr(piece, field.name)
            if values.any():
                getattr(self, field.name)[start : start + len(values)] = values


def observe(table: pa.Table, verdicts: pa.Table, *, classes: Sequence[str], rule: Rule) -> Traits:
    """What is known of some samples one by one.

    A sample with a group has no label of its own, so that its unit's place does not depend on which of its samples
    comes first.

    Args:
        table: Columns ``content_hash``, ``label``, ``group``, and ``time`` for strategy ``time``.
        verdicts: Columns ``fate`` and ``leak_group``, the id of the first sample of each one's cluster of
            near-duplicates, null or "" for none.
        classes: Class names by number.
        rule: How samples are assigned.
    """
    groups = pc.fill_null(table["group"], "")
    is_alone = pc.equal(groups, "")
    keys = pc.if_else(is_alone, table["content_hash"], pc.binary_join_element_wise("group", groups, " "))
    folds = draw(pc.binary_join_element_wise("fold", keys, " "), seed=rule.seed) * rule.num_folds
    return Traits(
        content=halves(table["content_hash"])[:, 0],
        leak=_leak_hashes(pc.fill_null(verdicts["leak_group"], "")),
        group=_name_hashes(groups),
        label=pc.index_in(table["label"], value_set=pa.array(classes, pa.string())).to_numpy(),
        position=_positions(table, keys=keys, is_alone=is_alone, rule=rule),
        fold=folds.astype(np.int8),
        is_surviving=ledger.is_surviving(verdicts).to_numpy(),
    )


def tie(*keys: NDArray[np.uint64]) -> NDArray[np.int32]:
    """First sample of each sample's unit, shape ``(N,)``: samples with an equal key, or linked by others, share one.

    Args:
        keys: One or more kinds of hashes, shape ``(N,)`` each; equal ones within a kind tie, 0 ties nothing.
    """
    first = np.arange(len(keys[0]), dtype=np.int32)
    knots: list[NDArray[np.int32]] = []  # of each kind: number of the knot a sample hangs on, -1 for none
    count = 0
    for values in keys:
        shared = _shared(values)
        if len(shared):
            knots.append(_places(values, shared=shared, start=count))
            count += len(shared)
    if knots:
        knot = np.maximum.reduce(knots)
        tied = np.flatnonzero(knot >= 0).astype(np.int32)
        unit = _components(knots, count=count)[knot[tied]]
        lowest = np.full(count, len(first), np.int32)
        np.minimum.at(lowest, unit, tied)
        first[tied] = lowest[unit]
    return first


def assign(
    traits: Traits, *, first: NDArray[np.int32], classes: Sequence[str], rule: Rule
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Split and fold of each of the M surviving samples, shape ``(M,)``: the samples of a unit share them.

    Args:
        traits: What is known of each sample, shape ``(N,)``; also of those that did not survive but tie others.
        first: First sample of each one's unit (``tie``), shape ``(N,)``.
        classes: Class names by number.
        rule: How samples are assigned.

    Returns:
        Positions in ``SPLITS``, and folds from 0 to ``num_folds - 1``, ``NO_FOLD`` outside train.

    Raises:
        DataError: Groups or times are needed and missing.
    """
    unit = first[traits.is_surviving]
    if rule.strategy == "group" and not traits.group.any():
        raise DataError(
            f"split.strategy is 'group' and none of {len(first)} samples has a group; name its column in ingest, or "
            "choose another strategy"
        )
    if rule.strategy == "time":
        splits = _earliest(traits.position[traits.is_surviving], unit=unit, num_samples=len(first))
    elif rule.strategy == "stratified_exact":
        label = np.where(traits.group == 0, traits.label, len(classes))
        units = np.unique(unit)
        placed = np.empty(len(first), np.int8)
        placed[units] = _place(deal(label[units], names=[*classes, ""], seed=rule.seed), shares=rule.shares)
        splits = placed[unit]
    else:
        splits = traits.position[unit]
    return splits, np.where(splits == 0, traits.fold[unit], np.int8(NO_FOLD))


def require_all(splits: NDArray[np.int8]) -> None:
    """Refuse an assignment that leaves a split empty.

    Raises:
        DataError: A split has no sample.
    """
    sizes = {name: int((splits == position).sum()) for position, name in enumerate(SPLITS)}
    empty = [name for name, size in sizes.items() if not size]
    if empty:
        raise DataError(
            f"split {' and '.join(empty)} would be empty: sizes are {sizes}; bring more samples or groups, change "
            "split.fractions (strategy 'time': the two cut points), or try another split.seed"
        )


def draw(keys: pa.Array | pa.ChunkedArray, *, seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) per key, shape ``(N,)``: the same for the same key and seed, whatever other keys there are."""
    start = hashlib.blake2b(f"{seed}\0".encode(), digest_size=8)
    digests = []
    for key in pc.cast(keys, pa.binary()).to_pylist():
        total = start.copy()
        total.update(key)
        digests.append(total.digest())
    bits = np.frombuffer(b"".join(digests), ">u8") >> np.uint64(11)
    return np.asarray(bits / 2**53, np.float64)  # 53 bits are what a float64 holds exactly below 1


def deal(labels: NDArray[np.int32], *, names: Sequence[str], seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) per sample, shape ``(N,)``, spread evenly within each class.

    The samples of a class are dealt in order, ``BLOCK`` at a time, one to each of ``BLOCK`` equal intervals in random
    order. So of every whole block of a class each split gets its share to within one sample. A sample's number depends
    on how many of its class come before it: samples that come later change nothing, samples in between do.

    Args:
        labels: Number of each sample's class, shape ``(N,)``.
        names: Names of the classes; a class's numbers depend on its name.
        seed: Equal seeds give equal numbers.
    """
    numbers = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        stream = _integer(names[label])
        for block, start in enumerate(range(0, len(rows), BLOCK)):
            rng = np.random.default_rng([seed, stream, block])
            dealt = (rng.permutation(BLOCK) + rng.random(BLOCK)) / BLOCK
            some = rows[start : start + BLOCK]
            numbers[some] = dealt[: len(some)]
    return numbers


def _positions(table: pa.Table, *, keys: pa.ChunkedArray, is_alone: pa.ChunkedArray, rule: Rule) -> NDArray[np.int8]:
    """Place in ``SPLITS`` of each sample alone, ``UNDECIDED`` where others or a missing time decide."""
    if rule.strategy == "stratified_exact":
        return np.full(table.num_rows, UNDECIDED, np.int8)
    if rule.strategy == "time":
        times = table["time"]
        cuts = pa.array(rule.cuts, times.type).cast(pa.int64()).to_numpy()
        moments = pc.fill_null(times.cast(pa.int64()), 0).to_numpy()
        places = np.searchsorted(cuts, moments, side="right")
        return np.where(times.is_valid().to_numpy(), places, UNDECIDED).astype(np.int8)
    if rule.strategy == "stratified":
        keys = pc.binary_join_element_wise(pc.if_else(is_alone, table["label"], ""), keys, "\0")
    return _place(draw(keys, seed=rule.seed), shares=rule.shares)


def _place(numbers: NDArray[np.float64], *, shares: Sequence[float]) -> NDArray[np.int8]:
    return np.searchsorted(np.cumsum(shares)[:-1], numbers, side="right").astype(np.int8)


def _earliest(positions: NDArray[np.int8], *, unit: NDArray[np.int32], num_samples: int) -> NDArray[np.int8]:
    """Position in ``SPLITS`` of each sample's unit: that of its earliest sample."""
    num_missing = int((positions == UNDECIDED).sum())
    if num_missing:
        raise DataError(
            f"split.strategy is 'time' and {num_missing} of {len(positions)} samples have no time; "
            "give them one, or choose another strategy"
        )
    earliest = np.full(num_samples, len(SPLITS), np.int8)
    np.minimum.at(earliest, unit, positions)
    return earliest[unit]


def _shared(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The values that occur more than once, ascending; 0 is none."""
    if not values.any():
        return np.empty(0, np.uint64)
    in_order = np.sort(values)
    repeats = np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
    return np.asarray(repeats[repeats != 0], np.uint64)


def _places(values: NDArray[np.uint64], *, shared: NDArray[np.uint64], start: int) -> NDArray[np.int32]:
    """Place of each value among ``shared``, counted from ``start``; -1 where it is not there, shape ``(N,)``."""
    places = np.empty(len(values), np.int32)
    for first in range(0, len(values), BLOCK_ROWS):
        block = values[first : first + BLOCK_ROWS]
        near = np.minimum(np.searchsorted(shared, block), len(shared) - 1)
        places[first : first + BLOCK_ROWS] = np.where(shared[near] == block, near + start, -1)
    return places


def _components(knots: Sequence[NDArray[np.int32]], *, count: int) -> NDArray[np.int32]:
    """Number of each knot's connected component, shape ``(count,)``; a sample on two knots connects them."""
    pairs = [
        (one[both], other[both])
        for one, other in itertools.combinations(knots, 2)
        for both in [(one >= 0) & (other >= 0)]
    ]
    starts, stops = (np.concatenate([np.empty(0, np.int32), *(pair[end] for pair in pairs)]) for end in range(2))
    if not len(starts):
        return np.arange(count, dtype=np.int32)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(starts), np.int8), (starts, stops)), shape=(count, count))
    return np.asarray(connected_components(edges, directed=False)[1], np.int32)


def _leak_hashes(leak_groups: pa.ChunkedArray) -> NDArray[np.uint64]:
    """The first half of each id, 0 for none."""
    is_known = pc.not_equal(leak_groups, "")
    hashes = np.zeros(len(leak_groups), np.uint64)
    hashes[is_known.to_numpy()] = halves(leak_groups.filter(is_known))[:, 0]
    return hashes


def _name_hashes(names: pa.ChunkedArray) -> NDArray[np.uint64]:
    """A hash of each name, 0 for the empty one."""
    encoded = pc.dictionary_encode(names.combine_chunks())
    hashes = [_integer(name) if name else 0 for name in encoded.dictionary.to_pylist()]
    return np.asarray(np.array([*hashes, 0], np.uint64)[encoded.indices.to_numpy()], np.uint64)


def _integer(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
