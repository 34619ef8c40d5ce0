"""Values of a table's columns, made equal whichever format they came in."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamill.errors import DataError
from datamill.hashes import digits, hash_each

Kind = Literal["number", "boolean", "category"]

MISSING = pa.array(["", "na", "n/a", "nan", "null"])  # cells of a text file that mean "no value", in any case
PLAIN_PATTERN = r"^[ !#-\[\]-~]*$"  # text that JSON writes as it is
BOOLEAN = pa.array(["true", "false"])
NUMBER_PATTERN = r"^[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|(?i:inf|infinity))$"
TIME_TYPE = pa.timestamp("us", tz="UTC")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Parsed(NamedTuple):
    """Values, null where there is none, and which of the nulls hide a cell that could not be read."""

    values: pa.Array
    is_odd: pa.Array


def cells(texts: Sequence[str]) -> pa.Array:
    """Cells of a text file as strings: trimmed, null where they say that there is no value."""
    trimmed = pc.utf8_trim_whitespace(pa.array(texts, pa.string()))
    return pc.if_else(pc.is_in(pc.utf8_lower(trimmed), MISSING), pa.scalar(None, pa.string()), trimmed)


def as_number(column: pa.Array) -> Parsed:
    """The column as float64; infinity is a value, not-a-number is none."""
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        values = column.cast(pa.float64(), safe=False)
        return Parsed(pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values), _none_odd(column))
    texts = as_text(column)
    is_number = pc.match_substring_regex(texts, NUMBER_PATTERN)
    values = pc.if_else(is_number, texts, pa.scalar(None, pa.string())).cast(pa.float64())
    return Parsed(values, pc.fill_null(pc.invert(is_number), False))


def as_text(column: pa.Array) -> pa.Array:
    """The column as strings; the empty string is no value, booleans are ``true`` and ``false``.

    Raises:
        DataError: Its values are no text, nor can they be written as such.
    """
    if pa.types.is_floating(column.type):
        return pa.array(
            [None if value is None or value != value else repr(value) for value in column.to_pylist()], pa.string()
        )
    try:
        texts = column.cast(pa.string())
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"a column of {column.type} cannot be read as text: {reason}; convert it, or exclude it"
        ) from error
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def as_time(column: pa.Array) -> Parsed:
    """The column as points in time: dates and times, ISO 8601 text, or seconds since 1970; UTC if no zone is named."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        is_odd = _is_beyond_calendar(column)
        known = pc.if_else(is_odd, pa.scalar(None, column.type), column)
        naive = known.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False)
        return Parsed(naive.cast(TIME_TYPE), is_odd)
    texts = as_text(column)
    values = pa.array([None if text is None else _microseconds(text) for text in texts.to_pylist()], pa.int64())
    return Parsed(values.cast(TIME_TYPE), pc.and_(pc.is_null(values), pc.is_valid(texts)))


def as_label(column: pa.Array, *, kind: Literal["category", "number"]) -> Parsed:
    """Class names; whole numbers lose their fraction (``1.0`` is ``1``), numbers that are not finite are odd."""
    if kind == "category":
        return Parsed(as_text(column), _none_odd(column))
    values, is_odd = as_number(column)
    is_finite = pc.fill_null(pc.is_finite(values), True)
    names = [
        None if v is None or not np.isfinite(v) else str(int(v)) if v == int(v) else repr(v) for v in values.to_pylist()
    ]
    return Parsed(pa.array(names, pa.string()), pc.or_(is_odd, pc.invert(is_finite)))


def as_kind(column: pa.Array, *, kind: Kind) -> Parsed:
    """The column as a feature: float64 for numbers, else strings."""
    if kind == "number":
        return as_number(column)
    texts = as_text(column)
    return Parsed(pc.utf8_lower(texts) if kind == "boolean" else texts, _none_odd(column))


def as_json(columns: Sequence[pa.Array]) -> pa.Array:
    """Each row of columns of text as a JSON list, ``["red", null]``, as binary."""
    words = []
    for column in columns:
        encoded = column.dictionary_encode()
        distinct = encoded.dictionary
        if pc.all(pc.match_substring_regex(distinct, PLAIN_PATTERN)).as_py():
            quoted = pc.binary_join_element_wise('"', distinct, '"', "")
        else:
            quoted = pa.array([json.dumps(word) for word in distinct.to_pylist()], pa.string())
        words.append(pc.fill_null(quoted.take(encoded.indices), "null"))
    return pc.binary_join_element_wise("[", pc.binary_join_element_wise(*words, ", "), "]", "").cast(pa.binary())


def hash_rows(columns: Mapping[str, pa.Array]) -> pa.Array:
    """Content hash of each row of features (float64 or string), whatever the order of the columns and their format."""
    ordered = [columns[name] for name in sorted(columns)]
    numbers = [column for column in ordered if column.type == pa.float64()]
    texts = [column for column in ordered if column.type == pa.string()]
    num_rows = len(ordered[0])
    packed = np.empty((num_rows, len(numbers)), np.dtype([("is_valid", "?"), ("value", "<f8")]))
    for place, column in enumerate(numbers):
        packed["is_valid"][:, place] = pc.is_valid(column).to_numpy(zero_copy_only=False)
        # Adding zero turns -0.0 into 0.0: they are equal, so they must hash alike.
        packed["value"][:, place] = pc.fill_null(column, 0.0).to_numpy(zero_copy_only=False) + 0.0
    pieces = [as_json(texts) if texts else pa.repeat(pa.scalar(b"[]"), num_rows)]
    if numbers:
        kind = pa.binary(packed.dtype.itemsize * len(numbers))
        rows = pa.Array.from_buffers(kind, num_rows, [None, pa.py_buffer(packed.tobytes())])
        pieces.insert(0, rows.cast(pa.binary()))
    return digits(hash_each(pc.binary_join_element_wise(*pieces, b"")))


def _microseconds(text: str) -> int | None:
    """Microseconds since 1970; eight digits are a date (20240131), other plain numbers are seconds."""
    is_number = text.removeprefix("-").replace(".", "", 1).isdecimal() and len(text) != len("20240131")
    try:
        moment = EPOCH + timedelta(seconds=float(text)) if is_number else datetime.fromisoformat(text)
        return (moment.replace(tzinfo=moment.tzinfo or UTC) - EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None


def _is_beyond_calendar(column: pa.Array) -> pa.Array:
    """Whether dates and times are before the year 1 or after 9999; as microseconds many of these would be others."""
    if getattr(column.type, "unit", None) == "ns":  # which reaches from 1677 to 2262
        return _none_odd(column)
    first, last = (pa.scalar(end, column.type) for end in (datetime.min, datetime.max))
    return pc.fill_null(pc.or_(pc.less(column, first), pc.greater(column, last)), False)


def _none_odd(column: pa.Array) -> pa.Array:
    return pa.array(np.zeros(len(column), bool))
