"""Features as detectors take them."""

import numpy as np
import pyarrow as pa
import pytest

from datamill.drift.columns import OTHER, all_numbers, coded, drawn, kind_of, numbers, standardised


def column(*values: object, of: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, of)])


def test_kinds_of_columns() -> None:
    assert [kind_of(column(1.0)), kind_of(column(1)), kind_of(column(True))] == ["number"] * 3
    assert kind_of(column("x")) == "category"
    assert kind_of(column(b"x")) is None


def test_numbers_are_the_finite_ones() -> None:
    values = column(1.0, None, float("nan"), float("inf"), 2.0)
    assert numbers(values).tolist() == [1.0, 2.0]
    assert np.isnan(all_numbers(values)[1:3]).all()
    assert numbers(column(True, False)).tolist() == [1.0, 0.0]


def test_rare_values_share_a_code() -> None:
    reference = column(*["a"] * 60, *["b"] * 39, "c")
    both = coded(reference, column(*["a"] * 5, *["d", "b"], None))
    assert both.names == ("a", "b", OTHER)
    assert np.bincount(both.reference).tolist() == [60, 39, 1]
    assert both.window.tolist() == [0] * 5 + [2, 1]


def test_codes_are_in_order_of_frequency() -> None:
    both = coded(column(*"xyzz" * 30), column(*"xyzz" * 30))
    assert both.names == ("z", "x", "y")


def test_drawing_is_seeded_and_does_not_repeat() -> None:
    rows = drawn(1_000, limit=50, seed=3, of="window")
    assert len(set(rows.tolist())) == 50
    assert rows.tolist() == drawn(1_000, limit=50, seed=3, of="window").tolist()
    assert rows.tolist() != drawn(1_000, limit=50, seed=3, of="reference").tolist()
    assert drawn(3, limit=50, seed=3, of="window").tolist() == [0, 1, 2]


def test_rows_of_numbers_are_at_the_references_scale() -> None:
    reference = pa.table({"a": [1.0, 3.0], "flat": [5.0, 5.0], "c": ["x", "y"], "gone": [1.0, 2.0]})
    window = pa.table({"a": [5.0, None], "flat": [7.0, 5.0], "c": ["y", "new"]})
    both = np.arange(2)
    left, right = standardised(reference, window, reference_rows=both, window_rows=both)
    assert left.tolist() == [[-1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    assert right.tolist() == [[3.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


def test_a_wild_value_does_not_rule_all_distances() -> None:
    reference, window = pa.table({"a": [1.0, 3.0]}), pa.table({"a": [1e30, float("inf")]})
    _, right = standardised(reference, window, reference_rows=np.arange(2), window_rows=np.arange(2))
    assert right.ravel().tolist() == pytest.approx([10.0, 0.0])
