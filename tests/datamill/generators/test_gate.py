"""The gate: real-looking sets pass, foreign ones and copies do not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamill.generators import gate

RULES = gate.Rules(num_neighbors=3, min_density=0.5, min_coverage=0.5, near_copy_ratio=0.3, reject_outside=True)


def _points(count: int, *, seed: int, dimensions: int = 4, offset: float = 0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).normal(size=(count, dimensions)) + offset).astype(np.float32)


def _judge(candidates: NDArray[np.float32], *, rules: gate.Rules = RULES, exact: tuple[int, ...] = ()) -> gate.Verdict:
    train = _points(80, seed=0)
    is_exact = np.isin(np.arange(len(candidates)), exact)
    return gate.judge(candidates, train=train, held_out=train[40:], is_exact=is_exact, rules=rules)


@given(seed=st.integers(0, 1000), num_neighbors=st.integers(1, 5), count=st.integers(7, 40))
@settings(max_examples=20, deadline=None)
def test_an_identical_set_covers_everything_and_is_at_least_as_dense(seed: int, num_neighbors: int, count: int) -> None:
    real = _points(count, seed=seed)
    radii = gate.neighbor_radii(real, num_neighbors=num_neighbors)
    assert gate.coverage(real, real, radii=radii) == 1
    assert gate.count_balls(real, real, radii=radii).mean() / num_neighbors >= 1


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_a_set_far_away_has_neither_density_nor_coverage(seed: int) -> None:
    real, far = _points(20, seed=seed), _points(20, seed=seed + 1, offset=1000)
    radii = gate.neighbor_radii(real, num_neighbors=3)
    assert gate.coverage(far, real, radii=radii) == 0
    assert gate.count_balls(far, real, radii=radii).sum() == 0


def test_balls_are_counted_on_a_line() -> None:
    real = np.array([[0], [1], [3], [7]], np.float32)
    radii = gate.neighbor_radii(real, num_neighbors=1)
    assert radii == pytest.approx([1, 1, 2, 4])
    assert gate.count_balls(np.array([[0.5], [3.5], [50]], np.float32), real, radii=radii).tolist() == [2, 2, 0]
    assert gate.coverage(np.array([[0.5]], np.float32), real, radii=radii) == 0.5


def test_blocks_do_not_change_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    real, others = _points(30, seed=1), _points(25, seed=2)
    radii, nearest = gate.neighbor_radii(real, num_neighbors=4), gate.nearest_neighbors(real, others)
    monkeypatch.setattr(gate, "BLOCK_VALUES", 70)
    assert gate.neighbor_radii(real, num_neighbors=4) == pytest.approx(radii)
    assert gate.nearest_neighbors(real, others)[1].tolist() == nearest[1].tolist()


def test_expected_coverage_is_what_real_points_reach() -> None:
    reached = []
    for seed in range(60):
        real, others = _points(40, seed=seed), _points(15, seed=1000 + seed)
        reached.append(gate.coverage(others, real, radii=gate.neighbor_radii(real, num_neighbors=3)))
    expected = gate.expected_coverage(num_real=40, num_generated=15, num_neighbors=3)
    assert np.mean(reached) == pytest.approx(expected, abs=0.02)
    assert gate.expected_coverage(num_real=40, num_generated=0, num_neighbors=3) == 0


def test_fresh_points_of_the_same_kind_are_mostly_admitted() -> None:
    verdict = _judge(_points(40, seed=5))
    assert verdict.reasons.count("") >= 25
    assert set(verdict.reasons) <= {"", "outside_support", "near_copy"}


def test_exact_and_near_copies_of_training_rows_are_rejected() -> None:
    candidates = _points(40, seed=5)
    candidates[0] = _points(80, seed=0)[3]
    candidates[1] = _points(80, seed=0)[70] + 1e-3
    verdict = _judge(candidates, exact=(0,))
    assert verdict.reasons[:2] == ["exact_copy", "near_copy"]
    assert verdict.nearest[:2].tolist() == [3, 70]
    assert "the limit is" in verdict.details[1]


def test_a_generator_that_only_memorises_scores_nothing() -> None:
    verdict = _judge(_points(80, seed=0)[:30])
    assert set(verdict.reasons) == {"near_copy"}
    assert (verdict.density, verdict.coverage) == (0, 0)


def test_a_class_far_from_the_real_one_stays_out_as_a_whole() -> None:
    verdict = _judge(_points(40, seed=5, offset=50))
    assert set(verdict.reasons) == {"low_density"}
    assert verdict.details[0] == "the class's density is 0.000, at least 0.5 is asked for"


def test_a_class_without_diversity_stays_out_as_a_whole() -> None:
    patient = gate.Rules(num_neighbors=3, min_density=0.5, min_coverage=0.5, near_copy_ratio=0, reject_outside=True)
    verdict = _judge(np.float32(0.4) + _points(40, seed=5) * np.float32(0.01), rules=patient)
    assert set(verdict.reasons) == {"low_coverage"}


def test_outsiders_pass_where_the_rule_is_off() -> None:
    candidates = np.concatenate([_points(40, seed=5), _points(1, seed=6, offset=30)])
    assert _judge(candidates).reasons[-1] == "outside_support"
    relaxed = gate.Rules(num_neighbors=3, min_density=0.5, min_coverage=0.5, near_copy_ratio=0.3, reject_outside=False)
    assert _judge(candidates, rules=relaxed).reasons[-1] == ""


def test_no_candidates_give_an_empty_verdict() -> None:
    verdict = _judge(np.zeros((0, 4), np.float32))
    assert (verdict.reasons, verdict.density, verdict.coverage) == ([], 0, 0)


def test_the_radii_of_some_points_are_those_of_all_of_them() -> None:
    points = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    some = gate.neighbor_radii(points, num_neighbors=2, num_points=7)
    assert some == pytest.approx(gate.neighbor_radii(points, num_neighbors=2)[:7])
