"""Accuracy by slice."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.evaluation.slices import Slice, buckets, measure, slicings, wilson, worst


def test_the_interval_of_a_known_share() -> None:
    assert wilson(8, total=10, level=0.95) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(total=st.integers(1, 500), share=st.floats(0, 1))
def test_the_interval_holds_the_share_and_stays_in_bounds(total: int, share: float) -> None:
    successes = round(share * total)
    low, high = wilson(successes, total=total, level=0.95)
    assert 0 <= low <= successes / total + 1e-12
    assert successes / total - 1e-12 <= high <= 1


def test_slices_come_by_property_then_value_and_leave_missing_values_out() -> None:
    is_correct = np.array([True, False, True, True])
    slices = measure(
        [("class", ["10", "9", "9", "10"]), ("hue", ["red", None, "red", None])], is_correct=is_correct, level=0.9
    )
    assert [(s.property, s.value, s.count, s.accuracy) for s in slices] == [
        ("class", "9", 2, 0.5),
        ("class", "10", 2, 1.0),
        ("hue", "red", 2, 1.0),
    ]


def test_numbers_fall_into_quartiles() -> None:
    names = buckets(pa.array([0.0, 1.0, 2.0, 3.0, 4.0, None]))
    assert names == ["0 to 1", "1 to 2", "2 to 3", "3 to 4", "3 to 4", None]


def test_a_number_that_is_mostly_one_value_gets_fewer_buckets() -> None:
    assert set(buckets(pa.array([0.0] * 90 + [1.0, 2.0, 3.0, 4.0, 5.0])) or []) == {"0 to 5"}


def test_infinite_numbers_are_in_no_bucket() -> None:
    assert (buckets(pa.array([1.0, 2.0, 3.0, 4.0, 5.0, float("inf")])) or [])[-1] is None


def test_few_distinct_values_stand_for_themselves() -> None:
    assert buckets(pa.array([1, 3, 1])) == ["1", "3", "1"]
    assert buckets(pa.array(["a", None, "b"])) == ["a", None, "b"]


def test_constants_and_long_lists_of_texts_are_no_slices() -> None:
    assert buckets(pa.array([2.0, 2.0])) is None
    assert buckets(pa.array([None, None], pa.string())) is None
    assert buckets(pa.array([f"name {row}" for row in range(21)])) is None


def test_a_feature_called_group_does_not_hide_the_groups() -> None:
    traits = [("group", pa.chunked_array([["a", "b"]])), ("group", pa.chunked_array([[1.0, 2.0]]))]
    assert [name for name, _ in slicings(traits, labels=["x", "y"])] == ["class", "group", "group"]


def test_the_worst_slice_has_enough_samples() -> None:
    rows = [Slice("class", "a", 2, 0.0, 0, 1), Slice("class", "b", 9, 0.5, 0, 1), Slice("class", "c", 10, 0.5, 0, 1)]
    found = worst(rows, min_count=5)
    assert found is not None
    assert found.value == "c"
    assert worst(rows, min_count=11) is None
