"""Tests of one number or category at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from datamill.drift.detectors import Setting
from datamill.drift.univariate import (
    ChiSquare,
    CramerVonMises,
    FisherExact,
    KolmogorovSmirnov,
    StabilityIndex,
    Uncertainty,
    cramers_v,
    scaled_wasserstein,
    tenths,
)

SETTING = Setting(num_permutations=100, level=0.05, seed=0)
values = st.lists(st.integers(-5, 5).map(float) | st.floats(-1e3, 1e3, width=32), min_size=2, max_size=40)


@given(values, values)
def test_the_largest_gap_is_scipys_statistic(left: list[float], right: list[float]) -> None:
    found = KolmogorovSmirnov(np.array(left), setting=SETTING).test(np.array(right))
    known = stats.ks_2samp(left, right, method="asymp")
    assert found.statistic == pytest.approx(known.statistic, abs=1e-12)
    assert found.p_value == pytest.approx(known.pvalue, abs=1e-9)


@given(values, values)
def test_the_distance_moved_is_scipys_wasserstein_distance_in_deviations(left: list[float], right: list[float]) -> None:
    known = stats.wasserstein_distance(left, right)
    deviation = np.std(left) or 1.0
    found = scaled_wasserstein(np.sort(left), np.sort(right)) * deviation
    assert found == pytest.approx(known, abs=1e-6, rel=1e-9)


def test_a_sample_moved_by_one_deviation_has_effect_one() -> None:
    reference = np.random.default_rng(0).normal(5, 2, 1_000)
    found = KolmogorovSmirnov(reference, setting=SETTING).test(reference + reference.std())
    assert found.effect == pytest.approx(1.0)
    assert found.p_value is not None
    assert found.p_value < 1e-50


def test_equal_samples_have_p_value_one_and_no_effect() -> None:
    same = np.arange(50.0)
    for detector in (KolmogorovSmirnov, CramerVonMises, StabilityIndex):
        found = detector(same, setting=SETTING).test(same)
        assert found.effect == 0
        assert found.p_value is not None
        assert found.p_value > 0.99


def test_a_constant_reference_is_compared_in_its_own_unit() -> None:
    found = KolmogorovSmirnov(np.full(50, 3.0), setting=SETTING).test(np.full(50, 5.0))
    assert (found.statistic, found.effect) == (1.0, 2.0)


def test_the_stability_index_of_known_shares() -> None:
    reference, window = np.repeat([0, 1], [50, 50]), np.repeat([0, 1], [80, 20])
    found = StabilityIndex(reference, setting=SETTING).test(window)
    assert found.statistic == pytest.approx(0.3 * np.log(0.8 / 0.5) - 0.3 * np.log(0.2 / 0.5))
    assert found.p_value == pytest.approx(stats.chi2.sf(found.statistic * 50, 1))


def test_the_stability_index_bears_a_bin_without_values() -> None:
    found = StabilityIndex(np.arange(100.0), setting=SETTING).test(np.full(30, 1_000.0))
    assert np.isfinite(found.statistic)
    assert found.statistic > 1


def test_the_p_value_of_the_stability_index_is_uniform_without_drift() -> None:
    rng = np.random.default_rng(0)
    detector = StabilityIndex(rng.normal(size=20_000), setting=SETTING)
    p_values = [detector.test(rng.normal(size=500)).p_value for _ in range(400)]
    assert np.mean(np.array(p_values, float) < 0.05) == pytest.approx(0.05, abs=0.03)


def test_chi_square_counts_a_category_that_only_the_window_has() -> None:
    found = ChiSquare(np.repeat([0, 1], 50), setting=SETTING).test(np.repeat([0, 1, 2], 30))
    known = stats.chi2_contingency([[50, 50, 0], [30, 30, 30]])
    assert (found.statistic, found.p_value) == (known.statistic, known.pvalue)


def test_one_category_alone_cannot_differ() -> None:
    found = ChiSquare(np.zeros(50, np.int64), setting=SETTING).test(np.zeros(30, np.int64))
    assert (found.p_value, found.effect) == (1.0, 0.0)


def test_fishers_statistic_is_the_odds_ratio_of_window_to_reference() -> None:
    found = FisherExact(np.repeat([0, 1], [80, 20]), setting=SETTING).test(np.repeat([0, 1], [50, 50]))
    assert found.statistic == pytest.approx((50 / 50) / (20 / 80))
    assert found.p_value == pytest.approx(stats.fisher_exact([[50, 20], [50, 80]]).pvalue)


def test_uncertainty_sees_a_model_that_hesitates() -> None:
    sure, unsure = np.tile([0.98, 0.01, 0.01], (60, 1)), np.tile([0.4, 0.3, 0.3], (60, 1))
    detector = Uncertainty(sure, setting=SETTING)
    assert detector.test(sure).statistic == 0
    assert detector.test(unsure).statistic == 1


def test_samples_with_nothing_in_common_have_association_one() -> None:
    assert cramers_v(np.array([[30.0, 0], [0, 70]])) == pytest.approx(1.0)
    assert cramers_v(np.array([[30.0, 10], [60, 20]])) == pytest.approx(0.0)


def test_tenths_of_few_values_are_distinct() -> None:
    assert tenths(np.repeat([1.0, 2.0], 50)).tolist() == [1.0, 1.5, 2.0]
