"""Which split a sample belongs to: a function of the sample itself, so that growing data moves nobody.

Every sample gets a number in [0, 1) and the split whose share that number falls into. Samples that must not be
separated form a *unit* (near-duplicates, and the samples of a group where groups are known) and share the number of
the unit's first sample. Under ``hash``, ``stratified`` and ``group`` the number is a hash of content or group, so an
assignment depends on no other sample and on no history: data may be appended anywhere, removed or reordered. The only
exception is the tie itself: a near-duplicate follows its unit's first sample, so a newcomer that comes earlier in
sample order, or that links two units, may pull them to its side, because the alternative is a leak.

Samples are read as a stream; what is known of each waits in a file, 39 bytes (``TRAITS``). Memory holds the samples
that are tied to others. What was drawn for a content the last time is taken over (``datamill.recall``).
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill import arrays, ledger
from datamill.errors import DataError
from datamill.hashes import digits, halves
from datamill.links import Links, linked
from datamill.recall import Former, State, match
from datamill.runs import RUN_ROWS, SortedRuns

SPLITS = ("train", "validation", "test")
BLOCK = 20  # samples of a class over which ``deal`` is exact: shares in steps of 5 % come out to the sample
DRAWN_AT_ONCE = 8_192  # contents; bounds memory
NO_FOLD = -1
UNDECIDED = -1  # position of a sample that cannot be placed by itself

HASHED_STRATEGIES = ("hash", "stratified", "group")  # a sample's content or group decides
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


TRAITS = np.dtype(
    [
        ("content", np.uint64),  # hash of its content: the first half, and
        ("rest", np.uint64),  # the second
        ("leak", np.uint64),  # hash of its cluster of near-duplicates, 0 for none
        ("group", np.uint64),  # hash of its group, 0 for none
        ("label", np.int32),  # number of its class
        ("position", np.int8),  # place in ``SPLITS`` that its group or time gives it, else ``UNDECIDED``
        ("fold", np.int8),  # fold that its group gives it, else ``NO_FOLD``
        ("is_surviving", np.bool_),  # whether it is assigned at all; dropped samples tie others
    ]
)
"""What is known of a sample by itself."""
TIES = ("leak", "group")  # samples that share one of these, or their content, are tied
HASHED = np.dtype([("first", np.uint64), ("row", np.int64)])
CONTENT = np.dtype([("first", np.uint64), ("second", np.uint64), ("row", np.int64), ("label", np.int32)])
"""Halves of a sample's content hash, its row, and the number of its class, or ``GROUPED``."""
GROUPED = -1
DRAWN = np.dtype(
    [("first", np.uint64), ("second", np.uint64), ("label", np.int32), ("position", np.int8), ("fold", np.int8)]
)
"""The position and fold that a content of a class has alone."""

Traits = NDArray[Any]  # of type ``TRAITS``


def observe(table: pa.Table, verdicts: pa.Table, *, classes: Sequence[str], rule: Rule) -> Traits:
    """What is known of some samples one by one.

    A sample with a group has no label of its own, so that its unit's place does not depend on which of its samples
    comes first.

    Args:
        table: Columns ``content_hash``, ``label``, ``group``, and ``time`` for strategy ``time``.
        verdicts: Columns ``fate`` and ``leak_group``, the id of the first sample of each one's cluster of
            duplicates, null or "" for none.
        classes: Class names by number.
        rule: How samples are assigned.
    """
    groups = pc.fill_null(table["group"], "")
    traits = np.empty(table.num_rows, TRAITS)
    traits["content"], traits["rest"] = halves(table["content_hash"]).T
    traits["leak"] = _leak_hashes(pc.fill_null(verdicts["leak_group"], ""))
    traits["group"] = _name_hashes(groups)
    traits["label"] = pc.index_in(table["label"], value_set=pa.array(classes, pa.string())).to_numpy()
    traits["position"] = _positions_in_time(table["time"], rule=rule) if rule.strategy == "time" else UNDECIDED
    traits["fold"] = NO_FOLD
    is_grouped = pc.not_equal(groups, "")
    if pc.any(is_grouped).as_py():
        positions, folds = _drawn(pc.binary_join_element_wise("group", groups.filter(is_grouped), " "), rule=rule)
        traits["fold"][is_grouped.to_numpy()] = folds
        if rule.strategy in HASHED_STRATEGIES:
            traits["position"][is_grouped.to_numpy()] = positions
    traits["is_surviving"] = ledger.is_surviving(verdicts).to_numpy()
    return traits


@final
class Roll:
    """All samples and what ties them, in files."""

    def __init__(self, scratch: Path) -> None:
        """Start empty, in a folder."""
        self.scratch = scratch
        self._path = scratch / "traits"
        self._path.write_bytes(b"")
        self._ties = {name: SortedRuns(scratch / f"ties-{name}", HASHED, key="first") for name in TIES}
        self.contents = SortedRuns(scratch / "contents", CONTENT, key="first")
        self.num_samples = 0

    def add(self, traits: Traits) -> None:
        """Append samples."""
        with self._path.open("ab") as file:
            arrays.append(file, traits)
        for name, runs in self._ties.items():
            rows = np.flatnonzero(traits[name])
            records = np.empty(len(rows), HASHED)
            records["first"], records["row"] = traits[name][rows], self.num_samples + rows
            runs.add(records)
        contents = np.empty(len(traits), CONTENT)
        contents["first"], contents["second"] = traits["content"], traits["rest"]
        contents["row"] = self.num_samples + np.arange(len(traits))
        contents["label"] = np.where(traits["group"] == 0, traits["label"], GROUPED)
        self.contents.add(contents)
        self.num_samples += len(traits)

    def blocks(self) -> Iterator[tuple[int, Traits]]:
        """The samples, ``RUN_ROWS`` at a time, and the number of the first."""
        start = 0
        with self._path.open("rb") as file:
            while len(traits := np.fromfile(file, TRAITS, count=RUN_ROWS)):
                yield start, traits
                start += len(traits)

    def links(self) -> Links:
        """The samples of one unit: those that a tie of any kind connects, directly or through others."""
        pairs = [np.empty((0, 2), np.int64)]
        for runs in (self.contents, *self._ties.values()):
            for records in runs.shared():
                hashes, rows = records["first"], records["row"]
                is_first = np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)]
                start = np.maximum.accumulate(np.where(is_first, np.arange(len(hashes)), 0))
                pairs.append(np.stack([rows[start], rows], axis=1)[~is_first])
        return linked(np.concatenate(pairs))


@dataclass(frozen=True)
class Assigned:
    """Where some surviving samples belong, in order.

    Attributes:
        splits: Positions in ``SPLITS``, int8, shape ``(N,)``.
        folds: Folds from 0 to ``num_folds - 1``, ``NO_FOLD`` outside train, int8, shape ``(N,)``.
        labels: Number of the class of each, int32, shape ``(N,)``.
        num_units: Units whose first sample is among these samples, or those that did not survive between them (count).
    """

    splits: NDArray[np.int8]
    folds: NDArray[np.int8]
    labels: NDArray[np.int32]
    num_units: int


def assign(roll: Roll, *, classes: Sequence[str], rule: Rule, state: State) -> Iterator[Assigned]:
    """Split and fold of each surviving sample, some at a time: the samples of a unit share them.

    Args:
        roll: All samples; also those that did not survive but tie others.
        classes: Class names by number.
        rule: How samples are assigned.
        state: What was drawn in the last run, and will be what was in this one; without effect on the outcome.

    Raises:
        DataError: Groups or times are needed and missing.
    """
    units = _Units(roll, rule=rule)
    drawn = _draw_all(roll, classes=classes, rule=rule, state=state)
    dealt = np.zeros(len(classes) + 1, np.int64)  # units of each class that were dealt so far
    for start, traits in roll.blocks():
        rows = np.arange(start, start + len(traits))
        unit = units.between(start, start + len(traits))
        is_first = np.where(unit < 0, traits["is_surviving"], units.lives[unit] & (units.firsts[unit] == rows))
        positions, folds = drawn.beside(traits, start=start, rule=rule)
        if rule.strategy == "stratified_exact":
            labels = np.where(traits["group"][is_first] == 0, traits["label"][is_first], len(classes))
            numbers = deal(labels.astype(np.int32), names=[*classes, ""], seed=rule.seed, dealt=dealt)
            dealt += np.bincount(labels, minlength=len(dealt))
            positions[is_first] = _place(numbers, shares=rule.shares)
        positions, folds = units.settle(unit, rows=rows, positions=positions, folds=folds)
        kept = traits["is_surviving"]
        yield Assigned(
            splits=positions[kept],
            folds=np.where(positions == 0, folds, np.int8(NO_FOLD))[kept],
            labels=traits["label"][kept],
            num_units=int(is_first.sum()),
        )


@dataclass(frozen=True)
class _Drawn:
    """What samples without a group have alone: a position and a fold each, int8, shape ``(N,)``."""

    positions: NDArray[np.int8]
    folds: NDArray[np.int8]

    def beside(self, traits: Traits, *, start: int, rule: Rule) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """Position and fold of each of some samples, from the number of the first on."""
        is_alone, here = traits["group"] == 0, slice(start, start + len(traits))
        folds = np.where(is_alone, self.folds[here], traits["fold"])
        if rule.strategy not in HASHED_STRATEGIES:
            return traits["position"].copy(), folds
        return np.where(is_alone, self.positions[here], traits["position"]), folds


def _draw_all(roll: Roll, *, classes: Sequence[str], rule: Rule, state: State) -> _Drawn:
    """Draw for every sample without a group whose content was not there the last time."""
    drawn = _Drawn(np.full(roll.num_samples, UNDECIDED, np.int8), np.full(roll.num_samples, NO_FOLD, np.int8))
    path = roll.scratch / "drawn"
    then = Former(state.folder / path.name if state.facts() is not None else None, DRAWN)
    with path.open("wb") as file:
        for block in roll.contents.merged():
            block = block[block["label"] != GROUPED]
            if not len(block):
                continue
            old, now = then.up_to(block["first"][-1]), np.empty(len(block), DRAWN)
            places = match(block, old, fields=("second", "label"))
            now[places >= 0] = old[places[places >= 0]]
            new = np.flatnonzero(places < 0)
            for start in range(0, len(new), DRAWN_AT_ONCE):
                some = new[start : start + DRAWN_AT_ONCE]
                now[some] = _draw_contents(block[some], classes=classes, rule=rule)
            drawn.positions[block["row"]], drawn.folds[block["row"]] = now["position"], now["fold"]
            arrays.append(file, now)
    state.keep([path], facts={})
    return drawn


def _draw_contents(contents: NDArray[Any], *, classes: Sequence[str], rule: Rule) -> NDArray[Any]:
    """A ``DRAWN`` for each ``CONTENT``."""
    hashes = digits(np.stack([contents["first"], contents["second"]], axis=1))
    drawn = np.empty(len(contents), DRAWN)
    for name in ("first", "second", "label"):
        drawn[name] = contents[name]
    labels = pa.array(classes, pa.string()).take(pa.array(contents["label"]))
    drawn["position"], drawn["fold"] = _drawn(hashes, labels=labels, rule=rule)
    return drawn


def _drawn(
    keys: pa.Array | pa.ChunkedArray, *, rule: Rule, labels: pa.Array | None = None
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Position and fold that keys have alone; a group has no label."""
    folds = draw(pc.binary_join_element_wise("fold", keys, " "), seed=rule.seed) * rule.num_folds
    if rule.strategy not in HASHED_STRATEGIES:
        return np.full(len(keys), UNDECIDED, np.int8), folds.astype(np.int8)
    if rule.strategy == "stratified":
        keys = pc.binary_join_element_wise(labels if labels is not None else "", keys, "\0")
    return _place(draw(keys, seed=rule.seed), shares=rule.shares), folds.astype(np.int8)


@final
class _Units:
    """The units of several samples.

    Attributes:
        firsts: The first sample of each, ascending, and -1 for samples that are alone.
        lives: Whether a sample of each survived.
    """

    def __init__(self, roll: Roll, *, rule: Rule) -> None:
        links = roll.links()
        firsts, self._tied = np.unique(links.firsts, return_inverse=True)  # the unit of each that is tied to an earlier
        self._rows = links.rows
        self.firsts = np.append(firsts, -1)
        self.lives = np.zeros(len(self.firsts), bool)
        self._positions = np.full(len(self.firsts), len(SPLITS) if rule.strategy == "time" else UNDECIDED, np.int8)
        self._folds = np.zeros(len(self.firsts), np.int8)
        self._is_by_time = rule.strategy == "time"
        num_groups = num_timeless = num_kept = 0
        for start, traits in roll.blocks():
            unit, kept = self.between(start, start + len(traits)), traits["is_surviving"]
            self.lives[unit[kept]] = True
            if self._is_by_time:
                np.minimum.at(self._positions, unit[kept], traits["position"][kept])
            num_groups += np.count_nonzero(traits["group"])
            num_timeless += np.count_nonzero(traits["position"][kept] == UNDECIDED)
            num_kept += np.count_nonzero(kept)
        if rule.strategy == "group" and not num_groups:
            raise DataError(
                f"split.strategy is 'group' and none of {roll.num_samples} samples has a group; name its column in "
                "ingest, or choose another strategy"
            )
        if self._is_by_time and num_timeless:
            raise DataError(
                f"split.strategy is 'time' and {num_timeless} of {num_kept} samples have no time; "
                "give them one, or choose another strategy"
            )

    def between(self, start: int, stop: int) -> NDArray[np.int64]:
        """Number of the unit of each sample from ``start`` up to ``stop``, -1 for those that are alone."""
        unit = np.full(stop - start, -1)
        low, high = np.searchsorted(self.firsts[:-1], [start, stop])
        unit[self.firsts[low:high] - start] = np.arange(low, high)
        low, high = np.searchsorted(self._rows, [start, stop])
        unit[self._rows[low:high] - start] = self._tied[low:high]
        return unit

    def settle(
        self, unit: NDArray[np.int64], *, rows: NDArray[np.int64], positions: NDArray[np.int8], folds: NDArray[np.int8]
    ) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """Position and fold of some samples: those of their unit's first sample, or the earliest one's position."""
        first = np.flatnonzero((unit >= 0) & (self.firsts[unit] == rows))
        self._folds[unit[first]] = folds[first]
        if not self._is_by_time:
            self._positions[unit[first]] = positions[first]
        is_alone = unit < 0
        return np.where(is_alone, positions, self._positions[unit]), np.where(is_alone, folds, self._folds[unit])


def require_all(sizes: Sequence[int]) -> None:
    """Refuse an assignment that leaves a split empty.

    Args:
        sizes: Samples of each of ``SPLITS`` (count).

    Raises:
        DataError: A split has no sample.
    """
    named = dict(zip(SPLITS, sizes, strict=True))
    empty = [name for name, size in named.items() if not size]
    if empty:
        raise DataError(
            f"split {' and '.join(empty)} would be empty: sizes are {named}; bring more samples or groups, change "
            "split.fractions (strategy 'time': the two cut points), or try another split.seed"
        )


def draw(keys: pa.Array | pa.ChunkedArray, *, seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) per key, shape ``(N,)``: the same for the same key and seed, whatever other keys there are."""
    start, hashed = f"{seed}\0".encode(), hashlib.blake2b
    digests = [hashed(start + key, digest_size=8).digest() for key in pc.cast(keys, pa.binary()).to_pylist()]
    bits = np.frombuffer(b"".join(digests), ">u8") >> np.uint64(11)
    return np.asarray(bits / 2**53, np.float64)  # 53 bits are what a float64 holds exactly below 1


def deal(
    labels: NDArray[np.int32], *, names: Sequence[str], seed: int, dealt: NDArray[np.int64]
) -> NDArray[np.float64]:
    """A number in [0, 1) per sample, shape ``(N,)``, spread evenly within each class.

    The samples of a class are dealt in order, ``BLOCK`` at a time, one to each of ``BLOCK`` equal intervals in random
    order. So of every whole block of a class each split gets its share to within one sample. A sample's number depends
    on how many of its class come before it: samples that come later change nothing, samples in between do.

    Args:
        labels: Number of each sample's class, shape ``(N,)``.
        names: Names of the classes; a class's numbers depend on its name.
        seed: Equal seeds give equal numbers.
        dealt: How many samples of each class were dealt before these, shape ``(K,)``.
    """
    numbers = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        stream, before = _integer(names[label]), int(dealt[label])
        for block in range(before // BLOCK, (before + len(rows) - 1) // BLOCK + 1):
            rng = np.random.default_rng([seed, stream, block])
            values = (rng.permutation(BLOCK) + rng.random(BLOCK)) / BLOCK
            start, stop = max(block * BLOCK, before), min((block + 1) * BLOCK, before + len(rows))
            numbers[rows[start - before : stop - before]] = values[start - block * BLOCK : stop - block * BLOCK]
    return numbers


def _positions_in_time(times: pa.ChunkedArray, *, rule: Rule) -> NDArray[np.int8]:
    """Place in ``SPLITS`` of each sample by its time, ``UNDECIDED`` where it has none."""
    cuts = pa.array(rule.cuts, times.type).cast(pa.int64()).to_numpy()
    moments = pc.fill_null(times.cast(pa.int64()), 0).to_numpy()
    places = np.searchsorted(cuts, moments, side="right")
    return np.where(times.is_valid().to_numpy(), places, UNDECIDED).astype(np.int8)


def _place(numbers: NDArray[np.float64], *, shares: Sequence[float]) -> NDArray[np.int8]:
    return np.searchsorted(np.cumsum(shares)[:-1], numbers, side="right").astype(np.int8)


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
