import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamill import runs, splitting
from datamill.errors import DataError
from datamill.recall import State
from datamill.samples import content_hash
from datamill.splitting import TRAITS, Roll, Rule, Strategy, Traits, assign, deal, draw, observe, require_all

SHARES = (0.7, 0.15, 0.15)
CLASSES = ("a", "b", "c")
STABLE: list[Strategy] = ["hash", "stratified", "group"]

NAMES = st.integers(0, 10_000).map(str)
SAMPLES = st.lists(
    st.tuples(NAMES, st.sampled_from(CLASSES), st.sampled_from(["g1", "g2", "g3", None])), unique_by=lambda s: s[0]
)
Sample = tuple[str, str, str | None]


def rule_of(strategy: Strategy, *, seed: int = 5, cuts: Sequence[datetime] = ()) -> Rule:
    return Rule(strategy=strategy, shares=SHARES, cuts=cuts, num_folds=3, seed=seed)


def traits_of(
    samples: Sequence[Sample],
    *,
    rule: Rule,
    leaks: Sequence[str | None] | None = None,
    hours: Sequence[int | None] | None = None,
) -> Traits:
    contents, labels, groups = ([sample[place] for sample in samples] for place in range(3))
    times = [None if hour is None else datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in hours or [0] * len(samples)]
    table = pa.table(
        {
            "content_hash": pa.array([hashed(content) for content in contents], pa.string()),
            "label": pa.array(labels, pa.string()),
            "group": pa.array(groups, pa.string()),
            "time": pa.array(times, pa.timestamp("us", tz="UTC")),
        }
    )
    clusters = [leak and hashed(leak) for leak in leaks or [None] * len(samples)]
    verdicts = pa.table(
        {"fate": pa.array(["kept"] * len(samples), pa.string()), "leak_group": pa.array(clusters, pa.string())}
    )
    return observe(table, verdicts, classes=CLASSES, rule=rule)


def hashed(name: object) -> str:
    return content_hash(str(name).encode())


def placed(
    traits: Traits, *, rule: Rule, at_once: int = 7, state: Path | None = None
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("datamill.splitting.RUN_ROWS", at_once)
        patch.setattr("datamill.runs.RUN_ROWS", at_once)
        patch.setattr("datamill.runs.RUN_BYTES", 28 * at_once)
        roll = roll_of(traits, folder=Path(folder))
        kept = State(state or Path(folder) / "state", made_with=str(rule))
        some = list(assign(roll, classes=CLASSES, rule=rule, state=kept))
    nothing = np.empty(0, np.int8)
    return (
        np.concatenate([nothing, *(one.splits for one in some)]),
        np.concatenate([nothing, *(one.folds for one in some)]),
    )


def roll_of(traits: Traits, *, folder: Path) -> Roll:
    roll = Roll(folder)
    for start in range(0, len(traits), 5):
        roll.add(traits[start : start + 5])
    return roll


def units_of(*keys: list[int]) -> list[int]:
    """First sample of the unit of each sample with these keys of each kind."""
    traits = np.zeros(len(keys[0]), TRAITS)
    for name, values in zip(("content", "leak", "group"), keys, strict=False):
        traits[name] = values
    with tempfile.TemporaryDirectory() as folder:
        units: list[int] = roll_of(traits, folder=Path(folder)).links().of(np.arange(len(traits))).tolist()
    return units


def split(
    samples: Sequence[Sample], *, strategy: Strategy, leaks: Sequence[str | None] | None = None, seed: int = 5
) -> dict[str, int]:
    rule = rule_of(strategy, seed=seed)
    splits, _ = placed(traits_of(samples, rule=rule, leaks=leaks), rule=rule)
    return dict(zip([sample[0] for sample in samples], splits.tolist(), strict=True))


ANCHOR: Sample = ("anchor", "a", "g1")  # so that the group strategy always sees a group


@pytest.mark.parametrize("strategy", STABLE)
@settings(max_examples=30, deadline=None)
@given(samples=SAMPLES, seed=st.integers(0, 99), kept=st.floats(0, 1))
def test_no_sample_moves_when_others_come_go_or_change_places(
    strategy: Strategy, samples: list[Sample], seed: int, kept: float
) -> None:
    before = split([ANCHOR, *samples], strategy=strategy)
    rng = np.random.default_rng(seed)
    some = [ANCHOR, *(sample for sample in samples if rng.random() < kept)]
    shuffled = [some[place] for place in rng.permutation(len(some))]
    after = split(shuffled, strategy=strategy)
    assert after == {name: before[name] for name in after}


@settings(max_examples=30, deadline=None)
@given(samples=SAMPLES, later=SAMPLES)
def test_exactly_dealt_samples_stay_when_others_come_after_them(samples: list[Sample], later: list[Sample]) -> None:
    names = {sample[0] for sample in samples}
    before = split(samples, strategy="stratified_exact")
    after = split(samples + [sample for sample in later if sample[0] not in names], strategy="stratified_exact")
    assert before == {name: after[name] for name in before}


@pytest.mark.parametrize("strategy", ["hash", "stratified"])
def test_shares_are_met_within_binomial_error_in_every_class(strategy: Strategy) -> None:
    samples: list[Sample] = [(str(row), "abc"[row % 3], None) for row in range(6000)]
    splits = split(samples, strategy=strategy)
    for label in CLASSES:
        held_out = [splits[name] for name, its_label, _ in samples if its_label == label]
        for position, share in enumerate(SHARES):
            deviation = held_out.count(position) - 2000 * share
            assert abs(deviation) < 4 * (2000 * share * (1 - share)) ** 0.5


def test_assignments_are_those_of_every_version_before() -> None:
    samples: list[Sample] = [(str(row), "abc"[row % 3], ("g1", None)[row % 2]) for row in range(12)]
    found = {strategy: "".join(map(str, split(samples, strategy=strategy).values())) for strategy in STABLE}
    assert found == {"hash": "101012121110", "stratified": "020000020001", "group": "101012121110"}
    assert draw(pa.array(["x", "y"]), seed=5).tolist() == [0.45905208947262277, 0.39105288708219543]


def test_exact_shares_are_met_to_the_sample_in_every_class() -> None:
    samples: list[Sample] = [(str(row), "a" if row < 40 else "b", None) for row in range(100)]
    splits = split(samples, strategy="stratified_exact")
    counts = {label: [0, 0, 0] for label in "ab"}
    for name, label, _ in samples:
        counts[label][splits[name]] += 1
    assert counts == {"a": [28, 6, 6], "b": [42, 9, 9]}


def test_dealt_numbers_fill_every_twentieth_once_per_block() -> None:
    numbers = deal(np.zeros(40, np.int32), names=["a"], seed=1, dealt=np.zeros(1, np.int64))
    for block in (numbers[:20], numbers[20:]):
        assert sorted((block * 20).astype(int).tolist()) == list(range(20))
    assert numbers[:20].tolist() != numbers[20:].tolist()
    later = deal(np.zeros(15, np.int32), names=["a"], seed=1, dealt=np.array([25]))
    assert later.tolist() == numbers[25:].tolist()


@settings(max_examples=30, deadline=None)
@given(samples=SAMPLES)
def test_samples_of_one_group_share_a_split_under_every_strategy(samples: list[Sample]) -> None:
    samples = [ANCHOR, *samples]
    for strategy in (*STABLE, "stratified_exact"):
        check_groups_are_whole(samples, split(samples, strategy=strategy))


def check_groups_are_whole(samples: list[Sample], splits: dict[str, int]) -> None:
    for group in ("g1", "g2", "g3"):
        assert len({splits[name] for name, _, its_group in samples if its_group == group}) <= 1


@pytest.mark.parametrize("strategy", [*STABLE, "stratified_exact"])
@settings(max_examples=20, deadline=None)
@given(samples=SAMPLES, seed=st.integers(0, 99))
def test_near_duplicates_share_a_split_and_a_fold(strategy: Strategy, samples: list[Sample], seed: int) -> None:
    samples = [ANCHOR, *samples]
    rng = np.random.default_rng(seed)
    leaks = [None if rng.random() < 0.3 else str(rng.integers(4)) for _ in samples]
    rule = rule_of(strategy)
    splits, folds = placed(traits_of(samples, rule=rule, leaks=leaks), rule=rule)
    sides = {(leak, int(side), int(fold)) for leak, side, fold in zip(leaks, splits, folds, strict=True) if leak}
    assert len(sides) == len({leak for leak in leaks if leak})


def test_a_near_duplicate_that_comes_later_moves_nobody() -> None:
    samples: list[Sample] = [(str(row), "a", None) for row in range(30)]
    before = split(samples, strategy="hash")
    copies: list[Sample] = [(f"copy of {row}", "a", None) for row in range(30)]
    after = split([*samples, *copies], strategy="hash", leaks=[str(row) for row in range(30)] * 2)
    assert {name: after[name] for name in before} == before
    assert [after[f"copy of {row}"] for row in range(30)] == [before[str(row)] for row in range(30)]


def test_a_dropped_sample_still_decides_for_those_it_ties() -> None:
    samples: list[Sample] = [(str(row), "a", None) for row in range(40)]
    rule = rule_of("hash")
    leaks = ["one"] + [None] * 19 + ["one"] * 20
    traits = traits_of(samples, rule=rule, leaks=leaks)
    everyone, _ = placed(traits, rule=rule)
    traits["is_surviving"] = np.arange(40) > 0
    some, _ = placed(traits, rule=rule)
    assert some.tolist() == everyone[1:].tolist()


def test_equal_content_is_tied_even_under_different_labels() -> None:
    rule = rule_of("stratified")
    traits = traits_of([("same", "a", None), ("other", "a", None), ("same", "b", None)], rule=rule)
    assert units_of(traits["content"].tolist()) == [0, 1, 0]
    splits, _ = placed(traits, rule=rule)
    assert splits[0] == splits[2]


@pytest.mark.parametrize("strategy", [*STABLE, "stratified_exact"])
def test_how_much_is_looked_at_at_a_time_does_not_matter(strategy: Strategy) -> None:
    rng = np.random.default_rng(1)
    samples: list[Sample] = [(str(row), "abc"[row % 3], ("g1", None, None)[row % 3]) for row in range(90)]
    rule = rule_of(strategy)
    traits = traits_of(samples, rule=rule, leaks=[str(rng.integers(40)) for _ in samples])
    traits["is_surviving"] = rng.random(90) < 0.8
    whole, folds = placed(traits, rule=rule, at_once=90)
    for at_once in (1, 13):
        splits, its_folds = placed(traits, rule=rule, at_once=at_once)
        assert (splits.tolist(), its_folds.tolist()) == (whole.tolist(), folds.tolist())


def test_ties_of_two_kinds_chain() -> None:
    assert units_of([7, 7, 8, 0, 9], [0, 1, 1, 0, 2]) == [0, 0, 0, 3, 4]


@settings(max_examples=50, deadline=None)
@given(keys=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30))
def test_units_are_the_samples_that_ties_connect(keys: list[tuple[int, int, int]]) -> None:
    unit = list(range(len(keys)))
    for _ in keys:
        for row, its in enumerate(keys):
            for other, theirs in enumerate(keys):
                if any(one == another != 0 for one, another in zip(its, theirs, strict=True)):
                    unit[row] = min(unit[row], unit[other])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "RUN_ROWS", 4)
        patch.setattr(runs, "RUN_BYTES", 100)
        assert units_of(*(list(kind) for kind in zip(*keys, strict=True))) == unit


@pytest.mark.parametrize("strategy", [*STABLE, "stratified_exact"])
@settings(max_examples=30, deadline=None)
@given(histories=st.lists(SAMPLES, min_size=2, max_size=3))
def test_a_run_after_others_gives_what_the_first_run_would(strategy: Strategy, histories: list[list[Sample]]) -> None:
    rule = rule_of(strategy)
    with tempfile.TemporaryDirectory() as folder:
        for samples in histories:
            traits = traits_of([ANCHOR, *samples], rule=rule)
            after_others, first = placed(traits, rule=rule, state=Path(folder) / "kept"), placed(traits, rule=rule)
            assert [one.tolist() for one in after_others] == [one.tolist() for one in first]


def test_a_content_is_drawn_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    own = splitting.draw
    monkeypatch.setattr(splitting, "draw", lambda keys, *, seed: asked.append(len(keys)) or own(keys, seed=seed))
    samples: list[Sample] = [(str(row), "abc"[row % 3], None) for row in range(30)]
    rule = rule_of("stratified")
    placed(traits_of(samples[:-2], rule=rule), rule=rule, state=tmp_path / "kept", at_once=100)
    placed(traits_of(samples[5:], rule=rule), rule=rule, state=tmp_path / "kept", at_once=100)
    assert asked == [28, 28, 2, 2]


def test_a_damaged_state_is_not_believed(tmp_path: Path) -> None:
    samples: list[Sample] = [(str(row), "abc"[row % 3], None) for row in range(30)]
    rule = rule_of("hash")
    traits = traits_of(samples, rule=rule)
    whole = placed(traits, rule=rule, state=tmp_path / "kept")
    content = bytearray((tmp_path / "kept" / "drawn").read_bytes())
    content[20::22] = bytes([2] * len(content[20::22]))  # every position
    (tmp_path / "kept" / "drawn").write_bytes(content)
    assert placed(traits, rule=rule, state=tmp_path / "kept")[0].tolist() == whole[0].tolist()


def test_seeds_give_different_splits() -> None:
    samples: list[Sample] = [(str(row), "a", None) for row in range(50)]
    assert split(samples, strategy="hash", seed=1) != split(samples, strategy="hash", seed=2)


CUTS = (datetime(2024, 1, 1, 8, tzinfo=UTC), datetime(2024, 1, 1, 16, tzinfo=UTC))


def by_time(hours: Sequence[int | None], *, leaks: Sequence[str | None] | None = None) -> list[int]:
    rule = rule_of("time", cuts=CUTS)
    samples: list[Sample] = [(str(row), "a", None) for row in range(len(hours))]
    splits: list[int] = placed(traits_of(samples, rule=rule, leaks=leaks, hours=hours), rule=rule)[0].tolist()
    return splits


def test_time_cuts_include_their_first_moment() -> None:
    assert by_time([0, 7, 8, 15, 16, 23]) == [0, 0, 1, 1, 2, 2]


def test_near_duplicates_over_time_go_where_the_earliest_is() -> None:
    assert by_time([23, 9, 1], leaks=["x", None, "x"]) == [0, 1, 0]


def test_a_sample_without_time_is_refused() -> None:
    with pytest.raises(DataError, match=r"split\.strategy is 'time' and 2 of 3 samples have no time"):
        by_time([None, 1, None])


def test_groups_are_refused_where_none_are_known() -> None:
    with pytest.raises(DataError, match=r"split\.strategy is 'group' and none of 2 samples has a group"):
        split([("1", "a", None), ("2", "a", "")], strategy="group")


def test_folds_cover_train_and_nothing_else() -> None:
    rule = rule_of("hash")
    splits, folds = placed(traits_of([(str(row), "a", None) for row in range(400)], rule=rule), rule=rule)
    assert folds.dtype == np.int8
    assert set(folds[splits == 0].tolist()) == {0, 1, 2}
    assert set(folds[splits != 0].tolist()) == {-1}


def test_an_empty_split_is_refused_with_the_sizes() -> None:
    with pytest.raises(DataError, match=r"split validation would be empty: sizes are \{'train': 2, 'validation': 0"):
        require_all([2, 0, 1])
