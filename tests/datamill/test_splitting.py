from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.errors import DataError
from datamill.splitting import (
    Strategy,
    Units,
    assign_folds,
    by_hash,
    by_time,
    deal,
    find_units,
    require_all,
    require_groups,
    tie,
)

SHARES = (0.7, 0.15, 0.15)
STABLE: list[Strategy] = ["hash", "stratified", "group"]

NAMES = st.integers(0, 10_000).map(str)
SAMPLES = st.lists(
    st.tuples(NAMES, st.sampled_from("abc"), st.sampled_from(["g1", "g2", "g3", None])), unique_by=lambda s: s[0]
)
Sample = tuple[str, str, str | None]


def table_of(samples: list[Sample]) -> pa.Table:
    contents, labels, groups = ([sample[place] for sample in samples] for place in range(3))
    return pa.table(
        {
            "content_hash": pa.array(contents, pa.string()),
            "label": pa.array(labels, pa.string()),
            "group": pa.array(groups, pa.string()),
        }
    )


def assign(samples: list[Sample], *, strategy: Strategy, leaks: Sequence[str | None] | None = None) -> dict[str, int]:
    units = find_units(table_of(samples), leak_groups=leaks or [None] * len(samples))
    splits = by_hash(units, strategy=strategy, shares=SHARES, seed=5)
    return dict(zip([sample[0] for sample in samples], splits.tolist(), strict=True))


ANCHOR: Sample = ("anchor", "a", "g1")  # so that the group strategy always sees a group


@pytest.mark.parametrize("strategy", STABLE)
@settings(max_examples=30, deadline=None)
@given(samples=SAMPLES, seed=st.integers(0, 99), kept=st.floats(0, 1))
def test_no_sample_moves_when_others_come_go_or_change_places(
    strategy: Strategy, samples: list[Sample], seed: int, kept: float
) -> None:
    before = assign([ANCHOR, *samples], strategy=strategy)
    rng = np.random.default_rng(seed)
    some = [ANCHOR, *(sample for sample in samples if rng.random() < kept)]
    shuffled = [some[place] for place in rng.permutation(len(some))]
    after = assign(shuffled, strategy=strategy)
    assert after == {name: before[name] for name in after}


@settings(max_examples=30, deadline=None)
@given(samples=SAMPLES, later=SAMPLES)
def test_exactly_dealt_samples_stay_when_others_come_after_them(samples: list[Sample], later: list[Sample]) -> None:
    names = {sample[0] for sample in samples}
    before = assign(samples, strategy="stratified_exact")
    after = assign(samples + [sample for sample in later if sample[0] not in names], strategy="stratified_exact")
    assert before == {name: after[name] for name in before}


@pytest.mark.parametrize("strategy", ["hash", "stratified"])
def test_shares_are_met_within_binomial_error_in_every_class(strategy: Strategy) -> None:
    samples: list[Sample] = [(str(row), "abc"[row % 3], None) for row in range(6000)]
    splits = assign(samples, strategy=strategy)
    for label in "abc":
        held_out = [splits[name] for name, its_label, _ in samples if its_label == label]
        for position, share in enumerate(SHARES):
            deviation = held_out.count(position) - 2000 * share
            assert abs(deviation) < 4 * (2000 * share * (1 - share)) ** 0.5


def test_exact_shares_are_met_to_the_sample_in_every_class() -> None:
    samples: list[Sample] = [(str(row), "a" if row < 40 else "b", None) for row in range(100)]
    splits = assign(samples, strategy="stratified_exact")
    counts = {label: [0, 0, 0] for label in "ab"}
    for name, label, _ in samples:
        counts[label][splits[name]] += 1
    assert counts == {"a": [28, 6, 6], "b": [42, 9, 9]}


def test_dealt_numbers_fill_every_twentieth_once_per_block() -> None:
    numbers = deal(["a"] * 40, seed=1)
    for block in (numbers[:20], numbers[20:]):
        assert sorted((block * 20).astype(int).tolist()) == list(range(20))
    assert numbers[:20].tolist() != numbers[20:].tolist()


@settings(max_examples=30, deadline=None)
@given(samples=SAMPLES)
def test_samples_of_one_group_share_a_split_under_every_strategy(samples: list[Sample]) -> None:
    samples = [ANCHOR, *samples]
    for strategy in (*STABLE, "stratified_exact"):
        check_groups_are_whole(samples, assign(samples, strategy=strategy))


def check_groups_are_whole(samples: list[Sample], splits: dict[str, str]) -> None:
    for group in ("g1", "g2", "g3"):
        assert len({splits[name] for name, _, its_group in samples if its_group == group}) <= 1


@pytest.mark.parametrize("strategy", [*STABLE, "stratified_exact"])
@settings(max_examples=20, deadline=None)
@given(samples=SAMPLES, seed=st.integers(0, 99))
def test_near_duplicates_share_a_split_and_a_fold(strategy: Strategy, samples: list[Sample], seed: int) -> None:
    samples = [ANCHOR, *samples]
    rng = np.random.default_rng(seed)
    leaks = [None if rng.random() < 0.3 else str(rng.integers(4)) for _ in samples]
    units = find_units(table_of(samples), leak_groups=leaks)
    splits = by_hash(units, strategy=strategy, shares=SHARES, seed=5)
    folds = assign_folds(units, splits=splits, num_folds=3, seed=5)
    sides = {(leak, int(split), int(fold)) for leak, split, fold in zip(leaks, splits, folds, strict=True) if leak}
    assert len(sides) == len({leak for leak in leaks if leak})


def test_a_near_duplicate_that_comes_later_moves_nobody() -> None:
    samples: list[Sample] = [(str(row), "a", None) for row in range(30)]
    before = assign(samples, strategy="hash")
    copies: list[Sample] = [(f"copy of {row}", "a", None) for row in range(30)]
    after = assign([*samples, *copies], strategy="hash", leaks=[str(row) for row in range(30)] * 2)
    assert {name: after[name] for name in before} == before
    assert [after[f"copy of {row}"] for row in range(30)] == [before[str(row)] for row in range(30)]


def test_equal_content_is_tied_even_under_different_labels() -> None:
    table = table_of([("same", "a", None), ("other", "a", None), ("same", "b", None)])
    units = find_units(table, leak_groups=["", "", ""])
    assert units.first.tolist() == [0, 1, 0]
    assert units.label.tolist() == ["a", "a", "a"]


def test_ties_of_two_kinds_chain() -> None:
    assert tie(["x", "x", "y", None, "z"], [None, "1", "1", "", "2"]).tolist() == [0, 0, 0, 3, 4]


def test_seeds_give_different_splits() -> None:
    units = find_units(table_of([(str(row), "a", None) for row in range(50)]), leak_groups=[None] * 50)
    first, other = (by_hash(units, strategy="hash", shares=SHARES, seed=seed) for seed in (1, 2))
    assert first.tolist() != other.tolist()


def moments(*hours: int | None) -> pa.ChunkedArray:
    values = [None if hour is None else datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in hours]
    return pa.chunked_array([pa.array(values, pa.timestamp("us", tz="UTC"))])


def single(count: int) -> Units:
    return Units(first=np.arange(count), key=np.arange(count).astype(str), label=np.array(["a"] * count))


CUTS = {"validation_from": datetime(2024, 1, 1, 8, tzinfo=UTC), "test_from": datetime(2024, 1, 1, 16, tzinfo=UTC)}


def test_time_cuts_include_their_first_moment() -> None:
    assert by_time(moments(0, 7, 8, 15, 16, 23), units=single(6), **CUTS).tolist() == [0, 0, 1, 1, 2, 2]


def test_near_duplicates_over_time_go_where_the_earliest_is() -> None:
    units = Units(first=np.array([0, 1, 0]), key=np.array(["0", "1", "0"]), label=np.array(["a"] * 3))
    assert by_time(moments(23, 9, 1), units=units, **CUTS).tolist() == [0, 1, 0]


def test_a_sample_without_time_is_refused() -> None:
    with pytest.raises(DataError, match=r"split\.strategy is 'time' and 2 of 3 samples have no time"):
        by_time(moments(None, 1, None), units=single(3), **CUTS)


def test_groups_are_refused_where_none_are_known() -> None:
    with pytest.raises(DataError, match=r"split\.strategy is 'group' and none of 2 samples has a group"):
        require_groups([None, None])


def test_folds_cover_train_and_nothing_else() -> None:
    splits = np.array([0] * 300 + [1] * 10 + [2] * 10, np.int8)
    folds = assign_folds(single(320), splits=splits, num_folds=3, seed=0)
    assert folds.dtype == np.int8
    assert set(folds[:300].tolist()) == {0, 1, 2}
    assert set(folds[300:].tolist()) == {-1}


def test_an_empty_split_is_refused_with_the_sizes() -> None:
    with pytest.raises(DataError, match=r"split validation would be empty: sizes are \{'train': 2, 'validation': 0"):
        require_all(np.array([0, 0, 2], np.int8))
