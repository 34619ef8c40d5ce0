"""Tests of whole rows of numbers."""

import numpy as np
import pytest

from datamill.drift import multivariate
from datamill.drift.detectors import Setting
from datamill.drift.multivariate import (
    ClassifierTest,
    MeanDiscrepancy,
    Novelty,
    discrepancies,
    median_square,
    permutation_p_value,
    savage_scores,
    sum_score,
)

SETTING = Setting(num_permutations=200, level=0.05, seed=0)


def rows(num: int, *, seed: int, move: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(move, 1, (num, 3))


def test_the_discrepancy_is_the_sum_over_all_pairs() -> None:
    left, right = rows(30, seed=0), rows(20, seed=1, move=0.5)
    gamma = 1 / median_square(left)

    def mean(a: np.ndarray, b: np.ndarray, *, is_same: bool) -> float:
        kernel = np.exp(-gamma * ((a[:, None] - b) ** 2).sum(axis=2))
        return float((kernel.sum() - (len(a) if is_same else 0)) / (len(a) * (len(b) - is_same)))

    known = mean(left, left, is_same=True) + mean(right, right, is_same=True) - 2 * mean(left, right, is_same=False)
    assert MeanDiscrepancy(left, setting=SETTING).test(right).statistic == pytest.approx(known, abs=1e-12)


def test_the_discrepancy_does_not_depend_on_the_size_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    both, is_window = rows(50, seed=0), (np.arange(50) >= 30).astype(float)[:, None]
    whole = discrepancies(both, is_window_TP=is_window, gamma=0.2)
    monkeypatch.setattr(multivariate, "BLOCK_ROWS", 7)
    assert discrepancies(both, is_window_TP=is_window, gamma=0.2) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("detector", [MeanDiscrepancy, ClassifierTest, Novelty])
def test_moved_rows_are_found(detector: type) -> None:
    found = detector(rows(200, seed=0), setting=SETTING).test(rows(200, seed=1, move=1.5))
    assert found.p_value < 1e-4


@pytest.mark.parametrize("detector", [MeanDiscrepancy, Novelty])
def test_without_drift_one_window_in_twenty_is_significant(detector: type) -> None:
    p_values = [
        detector(rows(60, seed=2 * n), setting=Setting(100, 0.05, n)).test(rows(40, seed=2 * n + 1)).p_value
        for n in range(300)
    ]
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.035)


def test_a_tenth_of_strange_rows_is_novel_though_the_means_agree() -> None:
    window = rows(100, seed=1)
    window[:5], window[5:10] = 8, -8
    assert Novelty(rows(1_000, seed=0), setting=SETTING).test(window).p_value < 0.005


def test_a_window_in_the_middle_of_the_reference_is_not_novel() -> None:
    found = Novelty(rows(400, seed=0), setting=SETTING).test(rows(100, seed=1) * 0.1)
    assert (found.p_value > 0.99, found.effect) == (True, 0.5)


def test_savage_scores_of_four_values() -> None:
    assert savage_scores(np.array([3.0, 1.0, 4.0, 2.0])) == pytest.approx(
        [1 / 4 + 1 / 3 + 1 / 2, 1 / 4, 1 / 4 + 1 / 3 + 1 / 2 + 1, 1 / 4 + 1 / 3]
    )


def test_equal_values_share_their_scores() -> None:
    assert savage_scores(np.ones(5)) == pytest.approx(np.ones(5))
    assert sum_score(np.ones(5), num_summed=2)[0] == 0


def test_moments_of_a_sum_are_those_of_all_choices() -> None:
    from itertools import combinations

    scores = savage_scores(np.arange(8.0))
    sums = np.array([sum(chosen) for chosen in combinations(scores, 3)])
    statistic, skew = sum_score(scores, num_summed=3)
    assert statistic == pytest.approx((scores[-3:].sum() - sums.mean()) / sums.std())
    assert skew == pytest.approx(((sums - sums.mean()) ** 3).mean() / sums.std() ** 3)


def test_a_permutation_p_value_is_never_zero_and_goes_below_one_in_the_permutations() -> None:
    permuted = np.random.default_rng(0).gamma(2, 1, 200)
    assert permutation_p_value(-1.0, permuted) == 1.0
    assert 0 < permutation_p_value(30.0, permuted) < 1e-6
    assert permutation_p_value(np.inf, np.zeros(99)) == pytest.approx(0.01)


def test_the_tail_of_the_curve_is_the_tail_of_the_statistics() -> None:
    permuted = np.random.default_rng(0).gamma(2, 1, 2_000)
    at = float(np.quantile(permuted, 0.999))
    assert permutation_p_value(at, permuted) == pytest.approx(0.001, rel=0.5)


def test_equal_rows_have_no_discrepancy() -> None:
    found = MeanDiscrepancy(np.ones((20, 2)), setting=SETTING).test(np.ones((20, 2)))
    assert (found.statistic, found.p_value) == (0.0, 1.0)
