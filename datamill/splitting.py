"""Which split a sample belongs to: a function of the sample itself, so that growing data moves nobody.

Every sample gets a number in [0, 1) and the split whose share that number falls into. Samples that must not be
separated form a *unit* (near-duplicates, and the samples of a group where groups are known) and share the number of
the unit's first sample. Under ``hash``, ``stratified`` and ``group`` the number is a hash of content or group, so an
assignment depends on no other sample and on no history: data may be appended anywhere, removed or reordered. The only
exception is the tie itself: a near-duplicate follows its unit's first sample, so a newcomer that comes earlier in
sample order, or that links two units, may pull them to its side, because the alternative is a leak.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from datamill.errors import DataError

SPLITS = ("train", "validation", "test")
BLOCK = 20  # samples of a class over which ``deal`` is exact: shares in steps of 5 % come out to the sample
NO_FOLD = -1

Strategy = Literal["hash", "stratified", "stratified_exact", "group"]


@dataclass(frozen=True)
class Units:
    """Which samples stay together, and what decides for them; arrays of one entry per sample.

    Attributes:
        first: Row of the unit's first sample, shape ``(N,)``; the unit's identity.
        key: What is hashed: content or group of that sample, shape ``(N,)``.
        label: Class of that sample, shape ``(N,)``; "" where a group decides.
    """

    first: NDArray[np.int64]
    key: NDArray[np.str_]
    label: NDArray[np.str_]

    def take(self, rows: NDArray[np.int64]) -> "Units":
        """The entries of some samples."""
        return Units(first=self.first[rows], key=self.key[rows], label=self.label[rows])


def find_units(table: pa.Table, *, leak_groups: Sequence[str | None]) -> Units:
    """Units of samples that must share a split: equal content, one cluster of near-duplicates, or one group.

    A unit with a group has no label of its own, so that its place does not depend on which of its samples comes first.

    Args:
        table: Columns ``content_hash``, ``label`` and ``group``, in sample order, dropped samples included.
        leak_groups: Cluster of near-duplicates of each sample, ``None`` or "" for none.
    """
    contents, labels, groups = (table[name].to_pylist() for name in ("content_hash", "label", "group"))
    first = tie(contents, leak_groups, groups)
    keys = [f"group {group}" if group else content for content, group in zip(contents, groups, strict=True)]
    own = ["" if group else label for label, group in zip(labels, groups, strict=True)]
    return Units(first=first, key=np.array(keys, str)[first], label=np.array(own, str)[first])


def require_groups(groups: Sequence[str | None]) -> None:
    """Refuse to split by group where none is known.

    Raises:
        DataError: No sample has a group.
    """
    if not any(groups):
        raise DataError(
            f"split.strategy is 'group' and none of {len(groups)} samples has a group; name its column in ingest, or "
            "choose another strategy"
        )


def by_hash(units: Units, *, strategy: Strategy, shares: Sequence[float], seed: int) -> NDArray[np.int8]:
    """Position in ``SPLITS`` of each sample, shape ``(N,)``; the samples of a unit share one.

    ``hash`` and ``group`` hash the unit's key; ``stratified`` does so in a stream per class. All three meet the shares
    in expectation, in every class within binomial error, and no rule under which the sample alone decides can do
    better. ``stratified_exact`` deals the units of each class in order (``deal``).

    Args:
        units: The samples' units.
        strategy: How a unit gets its number in [0, 1).
        shares: Target share of each of ``SPLITS``; sum 1.
        seed: Equal seeds give equal assignments.
    """
    if strategy == "stratified_exact":
        _, row, of_sample = np.unique(units.first, return_index=True, return_inverse=True)
        numbers = deal(units.label[row].tolist(), seed=seed)[of_sample.ravel()]
    elif strategy == "stratified":
        numbers = draw([f"{label}\0{key}" for label, key in zip(units.label, units.key, strict=True)], seed=seed)
    else:
        numbers = draw(units.key.tolist(), seed=seed)
    return np.asarray(np.searchsorted(np.cumsum(shares)[:-1], numbers, side="right"), np.int8)


def by_time(
    times: pa.ChunkedArray, *, units: Units, validation_from: datetime, test_from: datetime
) -> NDArray[np.int8]:
    """Position in ``SPLITS`` of each sample by time, shape ``(N,)``; a unit goes where its earliest sample does.

    Raises:
        DataError: A sample has no time.
    """
    if times.null_count:
        raise DataError(
            f"split.strategy is 'time' and {times.null_count} of {len(times)} samples have no time; "
            "give them one, or choose another strategy"
        )
    moments = times.cast(pa.int64()).to_numpy()
    cuts = pa.array([validation_from, test_from], times.type).cast(pa.int64()).to_numpy()
    own = np.searchsorted(cuts, moments, side="right").astype(np.int8)
    _, of_sample = np.unique(units.first, return_inverse=True)
    earliest = np.full(len(own), len(SPLITS), np.int8)
    np.minimum.at(earliest, of_sample.ravel(), own)
    return np.asarray(earliest[of_sample.ravel()], np.int8)


def assign_folds(units: Units, *, splits: NDArray[np.int8], num_folds: int, seed: int) -> NDArray[np.int8]:
    """Fold of each training sample, shape ``(N,)``: 0 to ``num_folds - 1``, ``NO_FOLD`` outside train."""
    folds = np.floor(draw([f"fold {key}" for key in units.key], seed=seed) * num_folds).astype(np.int8)
    return np.where(splits == 0, folds, np.int8(NO_FOLD))


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


def tie(*keys: Sequence[str | None]) -> NDArray[np.int64]:
    """First sample of each sample's unit, shape ``(N,)``: samples with an equal key, or linked by others, share one.

    Args:
        keys: One or more sequences of N keys each; equal strings within a sequence tie, ``None`` and "" tie nothing.
    """
    num_samples = len(keys[0])
    samples: list[int] = []
    knots: list[int] = []
    knot_of: dict[tuple[int, str], int] = {}
    for kind, values in enumerate(keys):
        for row, value in enumerate(values):
            if value:
                samples.append(row)
                knots.append(num_samples + knot_of.setdefault((kind, value), len(knot_of)))
    size = num_samples + len(knot_of)
    edges = coo_array((np.ones(len(samples), np.int8), (samples, knots)), shape=(size, size))
    _, unit = connected_components(edges, directed=False)
    _, first, of_unit = np.unique(unit[:num_samples], return_index=True, return_inverse=True)
    return np.asarray(first[of_unit.ravel()], np.int64)


def draw(keys: Sequence[str], *, seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) per key, shape ``(N,)``: the same for the same key and seed, whatever other keys there are."""
    return np.array([_uniform(f"{seed}\0{key}") for key in keys], np.float64)


def deal(labels: Sequence[str], *, seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) per sample, shape ``(N,)``, spread evenly within each class.

    The samples of a class are dealt in order, ``BLOCK`` at a time, one to each of ``BLOCK`` equal intervals in random
    order. So of every whole block of a class each split gets its share to within one sample. A sample's number depends
    on how many of its class come before it: samples that come later change nothing, samples in between do.
    """
    seen: dict[str, int] = {}
    blocks: dict[tuple[str, int], NDArray[np.float64]] = {}
    numbers = np.empty(len(labels))
    for row, label in enumerate(labels):
        block, position = divmod(seen.setdefault(label, 0), BLOCK)
        seen[label] += 1
        if position == 0:
            rng = np.random.default_rng([seed, _integer(label), block])
            blocks[label, block] = (rng.permutation(BLOCK) + rng.random(BLOCK)) / BLOCK
        numbers[row] = blocks[label, block][position]
    return numbers


def _uniform(text: str) -> float:
    return (_integer(text) >> 11) / 2**53  # 53 bits are what a float64 holds exactly below 1


def _integer(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
