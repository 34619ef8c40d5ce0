import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamill.evaluation.metrics import HEADLINES, Predictions
from datamill.lineage.decomposition import decompose, sign_test
from datamill.lineage.measured import scorer


def predictions(label, said, *, num_classes=3):
    probabilities = np.full((len(label), num_classes), 0.1)
    probabilities[np.arange(len(label)), said] = 0.8
    return Predictions(np.array(label), probabilities)


def parts(a, b, *, partner, is_same=None, metric="accuracy"):
    partner = np.array(partner)
    same = partner >= 0 if is_same is None else np.array(is_same)
    return decompose(a, b, partner=partner, is_same=same, metric=metric, score=scorer(metric, num_bins=5))


def test_equal_test_sets_leave_everything_to_the_model():
    a, b = predictions([0, 1, 2, 0], [0, 1, 2, 0]), predictions([0, 1, 2, 0], [0, 1, 0, 1])
    found = parts(a, b, partner=[0, 1, 2, 3])
    assert found.parts == {"left": 0, "joined": 0, "changed": 0, "truth": 0, "model": -0.5}
    assert (found.num_common, found.num_lost, found.num_won) == (4, 2, 0)
    assert found.model_b.tolist() == [0, 0, -0.25, -0.25]


def test_a_test_label_that_changed_is_truth_and_not_model():
    a, b = predictions([0, 1, 2, 0], [0, 1, 2, 0]), predictions([0, 1, 2, 1], [0, 1, 2, 0])
    found = parts(a, b, partner=[0, 1, 2, 3])
    assert found.parts["truth"] == -0.25
    assert found.parts["model"] == 0
    assert found.rows_b.tolist() == [0, 0, 0, -0.25]


def test_a_class_that_is_only_called_otherwise_accounts_for_nothing():
    a, b = predictions([0, 0, 1], [0, 0, 1]), predictions([2, 2, 1], [2, 2, 1])
    assert parts(a, b, partner=[0, 1, 2]).parts == {"left": 0, "joined": 0, "changed": 0, "truth": 0, "model": 0}


def test_a_hard_sample_that_leaves_raises_the_number():
    a, b = predictions([0, 1, 2, 0], [0, 1, 2, 1]), predictions([0, 1, 2], [0, 1, 2])
    found = parts(a, b, partner=[0, 1, 2, -1])
    assert found.parts["left"] == 0.25
    assert found.rows_a.tolist() == [0, 0, 0, 0.25]


def test_without_a_common_sample_no_part_can_be_told():
    a, b = predictions([0, 1], [0, 1]), predictions([0, 1], [1, 1])
    assert parts(a, b, partner=[-1, -1]).parts == {"other": -0.5}


@pytest.mark.parametrize(("lost", "won", "p_value"), [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (1, 9, 0.021484375)])
def test_the_sign_test_is_exact(lost, won, p_value):
    assert sign_test(lost, won) == pytest.approx(p_value)


@st.composite
def two_runs(draw):
    sizes = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    sides = [
        predictions(*(draw(st.lists(st.integers(0, 2), min_size=size, max_size=size)) for _ in range(2)))
        for size in sizes
    ]
    num_common = draw(st.integers(0, min(sizes)))
    partner = np.full(sizes[0], -1)
    partner[draw(st.permutations(range(sizes[0])))[:num_common]] = draw(st.permutations(range(sizes[1])))[:num_common]
    is_same = np.array(draw(st.lists(st.booleans(), min_size=sizes[0], max_size=sizes[0]))) & (partner >= 0)
    return *sides, partner, is_same


@given(runs=two_runs(), metric=st.sampled_from(HEADLINES))
def test_parts_and_the_shares_of_samples_sum_to_the_difference_whatever_the_metric(runs, metric):
    a, b, partner, is_same = runs
    score = scorer(metric, num_bins=5)
    difference = score(b) - score(a)
    if not np.isfinite(difference):
        return
    found = decompose(a, b, partner=partner, is_same=is_same, metric=metric, score=score)
    assert sum(found.parts.values()) == pytest.approx(difference, abs=1e-9)
    if "other" not in found.parts and metric in {"accuracy", "log_loss", "brier"}:
        shares = found.rows_a.sum() + found.rows_b.sum() + found.model_b.sum()
        assert shares == pytest.approx(difference, abs=1e-9)
        assert found.model_b.sum() == pytest.approx(found.parts["model"], abs=1e-9)
