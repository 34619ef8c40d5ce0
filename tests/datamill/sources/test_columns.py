"""Values of a table's columns."""

import json
import math
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.sources.columns import as_json, as_kind, as_label, as_number, as_text, as_time, cells, hash_rows


def test_cells_are_trimmed_and_missing_tokens_are_null() -> None:
    assert cells([" red ", "", "NA", "n/a", "NaN", "null", "NULL", "none"]).to_pylist() == ["red", *[None] * 6, "none"]


@given(values=st.lists(st.floats(allow_nan=False)))
@settings(max_examples=100, deadline=None)
def test_a_number_written_by_python_reads_as_itself(values: list[float]) -> None:
    parsed = as_number(cells([repr(value) for value in values]))
    assert parsed.values.to_pylist() == values
    assert not any(parsed.is_odd.to_pylist())


@given(texts=st.lists(st.text(alphabet="0123456789+-.eEinfatyx_ ", max_size=8)))
@settings(max_examples=200, deadline=None)
def test_text_is_a_number_only_if_python_agrees(texts: list[str]) -> None:
    column = cells(texts)
    parsed = as_number(column)
    for text, value, is_odd in zip(
        column.to_pylist(), parsed.values.to_pylist(), parsed.is_odd.to_pylist(), strict=True
    ):
        assert (value is None) == (is_odd or text is None)
        if value is not None:
            assert value == float(text)


@pytest.mark.parametrize("text", ["1", "+1.", ".5", "-2e-3", "inf", "-Infinity", "1E400"])
def test_usual_spellings_are_numbers(text: str) -> None:
    assert as_number(pa.array([text])).values.to_pylist() == [float(text)]


@pytest.mark.parametrize("text", ["1,5", "0x10", "1_000", "12 kg", "--1", "e5", "."])
def test_other_spellings_are_odd(text: str) -> None:
    assert as_number(pa.array([text])).is_odd.to_pylist() == [True]


def test_typed_numbers_become_floats_without_nan() -> None:
    column = pa.array([1.5, float("nan"), None, math.inf])
    assert as_number(column).values.to_pylist() == [1.5, None, None, math.inf]
    assert as_number(pa.array([3, None], pa.int32())).values.to_pylist() == [3.0, None]


def test_labels_that_are_numbers_lose_an_empty_fraction() -> None:
    parsed = as_label(cells(["1.0", "1", "2.5", "", "inf", "two", "1e3"]), kind="number")
    assert parsed.values.to_pylist() == ["1", "1", "2.5", None, None, None, "1000"]
    assert parsed.is_odd.to_pylist() == [False, False, False, False, True, True, False]


def test_labels_that_are_text_stay_as_written() -> None:
    assert as_label(cells(["1.0", "cat", "NA"]), kind="category").values.to_pylist() == ["1.0", "cat", None]
    assert as_label(pa.array([1, None]), kind="category").values.to_pylist() == ["1", None]


def test_booleans_are_lower_case_words_in_either_format() -> None:
    assert as_kind(cells(["True", "FALSE", ""]), kind="boolean").values.to_pylist() == ["true", "false", None]
    assert as_text(pa.array([True, False, None])).to_pylist() == ["true", "false", None]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["2024-01-31T12:00:00", "2024-01-31 13:00+01:00", "1706702400", "1706702400.0"]),
        pa.array([datetime(2024, 1, 31, 12)] * 4),
        pa.array([datetime(2024, 1, 31, 12, tzinfo=UTC)] * 4),
        pa.array([1_706_702_400] * 4),
    ],
)
def test_times_are_read_in_every_form(column: pa.Array) -> None:
    assert as_time(column).values.to_pylist() == [datetime(2024, 1, 31, 12, tzinfo=UTC)] * 4


def test_dates_are_midnight_and_nonsense_is_odd() -> None:
    midnight = datetime(2024, 1, 31, tzinfo=UTC)
    assert as_time(pa.array([date(2024, 1, 31)])).values.to_pylist() == [midnight]
    parsed = as_time(cells(["20240131", "2024-01-31", "", "soon", "1706702400000"]))
    assert parsed.values.to_pylist() == [midnight, midnight, None, None, None]
    assert parsed.is_odd.to_pylist() == [False, False, False, True, True]  # milliseconds lie past the year 9999


def test_row_hashes_ignore_column_order_and_the_sign_of_zero() -> None:
    size, colour = pa.array([0.0, 1.0, None]), pa.array(["red", None, "null"])
    first = hash_rows({"size": size, "colour": colour})
    assert len(set(first)) == 3
    assert hash_rows({"colour": colour, "size": pa.array([-0.0, 1.0, None])}) == first


def test_row_hashes_tell_missing_from_zero_and_words_apart() -> None:
    assert len(set(hash_rows({"x": pa.array([0.0, None])}))) == 2
    assert len(set(hash_rows({"a": pa.array(["x", "xy"]), "b": pa.array(["yz", "z"])}))) == 2


def test_row_hashes_stay_as_they_are() -> None:
    columns = {
        "a": pa.array([1.5, None, -0.0]),
        "b": pa.array(['x"y', None, "ü\n\x7f"]),
        "c": pa.array(["p", "q q", "~[]"]),
    }
    assert hash_rows(columns).to_pylist() == [
        "d277825b3ec987a9cc6234341521db8e",
        "effba28caab59659aa0a62f3bcf88351",
        "9cab495f9c138ea6f54a07fadbfcf678",
    ]


@given(rows=st.lists(st.tuples(st.none() | st.text(max_size=3), st.none() | st.text('ab\\"\n ', max_size=3))))
@settings(max_examples=100, deadline=None)
def test_rows_of_text_become_the_json_of_their_lists(rows: list[tuple[str | None, str | None]]) -> None:
    columns = [pa.array([row[place] for row in rows], pa.string()) for place in (0, 1)]
    assert [json.loads(one) for one in as_json(columns).to_pylist()] == [list(row) for row in rows]
    assert as_json(columns).to_pylist() == [json.dumps(row).encode() for row in rows]
