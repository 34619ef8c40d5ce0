import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.training.batches import epoch_order, num_batches, split_batches

ONES = np.ones(12, np.float32)


@settings(max_examples=30, deadline=None)
@given(num_rows=st.integers(0, 200), seed=st.integers(0, 2**32), epoch=st.integers(1, 100))
def test_equal_probabilities_visit_each_row_once(num_rows: int, seed: int, epoch: int) -> None:
    order = epoch_order(np.full(num_rows, 0.5, np.float32), seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(num_rows))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    first = epoch_order(ONES, seed=1, epoch=1).tolist()
    assert epoch_order(ONES, seed=1, epoch=1).tolist() == first
    assert epoch_order(ONES, seed=1, epoch=2).tolist() != first
    assert epoch_order(ONES, seed=2, epoch=1).tolist() != first


def test_rows_are_drawn_in_proportion() -> None:
    draw = np.array([1] * 5000 + [3] * 5000, np.float32)
    order = epoch_order(draw, seed=0, epoch=1)
    assert len(order) == 10_000
    assert np.mean(order >= 5000) == pytest.approx(0.75, abs=0.02)


@settings(max_examples=30, deadline=None)
@given(draw=st.lists(st.sampled_from([0.0, 1.0, 7.0]), min_size=1, max_size=30).filter(any), seed=st.integers(0, 99))
def test_rows_of_probability_zero_are_never_drawn(draw: list[float], seed: int) -> None:
    order = epoch_order(np.array(draw, np.float32), seed=seed, epoch=1)
    assert all(draw[row] > 0 for row in order)


@settings(max_examples=30, deadline=None)
@given(num_rows=st.integers(0, 100), batch_size=st.integers(1, 40))
def test_batches_are_even_and_no_larger_than_asked(num_rows: int, batch_size: int) -> None:
    batches = split_batches(np.arange(num_rows), batch_size=batch_size)
    sizes = [len(batch) for batch in batches]
    assert [row for batch in batches for row in batch] == list(range(num_rows))
    assert len(sizes) == num_batches(num_rows, batch_size=batch_size)
    assert max(sizes, default=0) <= batch_size
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
