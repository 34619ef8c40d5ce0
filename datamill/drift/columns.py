"""Features as detectors take them: finite numbers, category codes, and rows of numbers."""

# Shapes: N samples, D numbers of a row.

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_EXPECTED = 1.0  # samples of a category in the smaller sample, below which it is counted with the other rare ones
MAX_CATEGORIES = 100
MAX_INDICATORS = 20  # columns that stand for one category column in rows of numbers
FARTHEST = 10.0  # standard deviations; keeps one wild value from hiding all others in a distance
OTHER = "(other)"


def kind_of(column: pa.ChunkedArray) -> Literal["number", "category"] | None:
    """What a column holds; ``None`` for neither."""
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return "number"
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return "category" if is_text or pa.types.is_dictionary(column.type) else None


def all_numbers(column: pa.ChunkedArray) -> Floats:
    """Values of a number column, NaN where one is missing, shape ``(N,)``."""
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)


def numbers(column: pa.ChunkedArray) -> Floats:
    """The finite values of a number column."""
    values = all_numbers(column)
    is_finite = np.isfinite(values)
    return values if is_finite.all() else values[is_finite]


@dataclass(frozen=True)
class Coded:
    """Two samples of a category column under one numbering.

    Attributes:
        reference: Codes of the reference's values, missing ones left out.
        window: Codes of the window's.
        names: Value of each code; the rare ones share the last, ``(other)``.
    """

    reference: Ints
    window: Ints
    names: tuple[str, ...]


def coded(reference: pa.ChunkedArray, window: pa.ChunkedArray) -> Coded:
    """Codes of two samples; values too rare for a test share one.

    Source: W. G. Cochran, "Some methods for strengthening the common chi-square tests", 1954 (expected counts).
    """
    left, right = (_text(column.drop_null()) for column in (reference, window))
    counts = _counts(pa.chunked_array([*left.chunks, *right.chunks], pa.string()))
    total = len(left) + len(right)
    smaller = min(len(left), len(right))
    common = [name for name, count in counts if count * smaller >= MIN_EXPECTED * total][:MAX_CATEGORIES]
    names = (*common, OTHER) if len(common) < len(counts) else tuple(common)
    return Coded(_codes(left, common), _codes(right, common), names)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())


def _counts(column: pa.ChunkedArray) -> list[tuple[str, int]]:
    """Values and how often they occur, the most frequent first, equal ones by name."""
    found = pc.value_counts(column)
    pairs = zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


def _codes(column: pa.ChunkedArray, names: list[str]) -> Ints:
    places = pc.fill_null(pc.index_in(column, value_set=pa.array(names, pa.string())), len(names))
    return np.asarray(places.to_numpy(), np.int64)


def drawn(num_rows: int, *, limit: int | None, seed: int, of: str) -> Ints:
    """Rows to look at, ascending: all of them, or ``limit`` drawn without replacement.

    Args:
        num_rows: Rows there are.
        limit: Most to draw; ``None`` for all.
        seed: Seeds the draw.
        of: What is drawn from; other things are drawn otherwise.
    """
    if limit is None or num_rows <= limit:
        return np.arange(num_rows)
    rng = np.random.default_rng([seed, zlib.crc32(of.encode())])
    return np.sort(rng.choice(num_rows, limit, replace=False))


def standardised(
    reference: pa.Table, window: pa.Table, *, reference_rows: Ints, window_rows: Ints
) -> tuple[Floats, Floats]:
    """Both tables as rows of numbers at the reference's mean 0 and deviation 1, shape ``(N, D)`` each.

    Only columns that both have and that vary in the reference are taken; a category becomes an indicator of each of its
    frequent values, what is missing or not finite becomes the reference's mean.
    """
    left: list[Floats] = [np.empty((len(reference_rows), 0))]
    right: list[Floats] = [np.empty((len(window_rows), 0))]
    for name in reference.column_names:
        if name not in window.column_names or kind_of(reference[name]) != kind_of(window[name]):
            continue
        pair = reference[name].take(pa.array(reference_rows)), window[name].take(pa.array(window_rows))
        before, after = _scaled(*pair) if kind_of(reference[name]) == "number" else _indicators(*pair)
        left.append(before)
        right.append(after)
    return np.concatenate(left, axis=1), np.concatenate(right, axis=1)


def _scaled(reference: pa.ChunkedArray, window: pa.ChunkedArray) -> tuple[Floats, Floats]:
    known = numbers(reference)
    if len(known) == 0 or known.std() == 0:
        return np.empty((len(reference), 0)), np.empty((len(window), 0))
    before, after = ((all_numbers(column) - known.mean()) / known.std() for column in (reference, window))
    return _tamed(before), _tamed(after)


def _tamed(values: Floats) -> Floats:
    return np.asarray(np.clip(np.nan_to_num(values, nan=0, posinf=0, neginf=0), -FARTHEST, FARTHEST)[:, None])


def _indicators(reference: pa.ChunkedArray, window: pa.ChunkedArray) -> tuple[Floats, Floats]:
    names = [name for name, _ in _counts(_text(reference.drop_null()))][:MAX_INDICATORS]
    places = np.arange(len(names))
    before, after = (_codes(_text(column), names)[:, None] == places for column in (reference, window))
    return before.astype(np.float64), after.astype(np.float64)
