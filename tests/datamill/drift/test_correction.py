"""Correction for many tests."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from datamill.drift.correction import decide, is_rejected
from datamill.drift.verdict import Kind, Outcome
from tests.datamill.drift.made import params

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def outcome(p_value: float | None, *, kind: Kind = "input", effect: float = 1.0, is_drift: bool = False) -> Outcome:
    return Outcome(kind, "ks", "", 0.0, p_value, effect, "wasserstein", is_drift)


def decided(*outcomes: Outcome, level: float = 0.05) -> list[bool]:
    found = decide(outcomes, level=level, correction="bonferroni", min_effect=params().min_effect)
    return [one.is_drift for one in found]


def test_bonferroni_divides_the_level_by_the_number_of_tests() -> None:
    found = is_rejected(np.array([0.01, 0.02, 0.5, 0.5]), level=0.05, correction="bonferroni")
    assert found.tolist() == [True, False, False, False]


def test_benjamini_hochberg_steps_up() -> None:
    found = is_rejected(np.array([0.04, 0.012, 0.5, 0.02]), level=0.05, correction="benjamini_hochberg")
    assert found.tolist() == [False, True, False, True]
    assert is_rejected(np.array([0.04, 0.03]), level=0.05, correction="benjamini_hochberg").all()


@given(p_values)
def test_benjamini_hochberg_rejects_whatever_bonferroni_does(values: list[float]) -> None:
    array = np.array(values)
    strict = is_rejected(array, level=0.05, correction="bonferroni")
    assert is_rejected(array, level=0.05, correction="benjamini_hochberg")[strict].all()


def test_a_significant_difference_that_is_too_small_is_no_drift() -> None:
    assert decided(outcome(1e-9, effect=0.09)) == [False]
    assert decided(outcome(1e-9, effect=0.1)) == [True]


def test_kinds_share_the_level_and_not_their_number_of_tests() -> None:
    many = [outcome(1.0) for _ in range(99)]
    assert decided(*many, outcome(0.02, kind="embedding"))[-1]
    assert not decided(*many, outcome(0.02))[-1]


def test_quality_takes_a_tenth_of_a_share() -> None:
    assert decided(outcome(0.045), outcome(1.0, kind="quality")) == [True, False]
    assert decided(outcome(0.046), outcome(1.0, kind="quality")) == [False, False]


def test_what_has_no_p_value_keeps_its_verdict() -> None:
    assert decided(outcome(None, is_drift=True), outcome(None)) == [True, False]
