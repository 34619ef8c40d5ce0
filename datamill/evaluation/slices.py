"""Accuracy on parts of the test split: an average hides whom a model fails."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

NUM_BUCKETS = 4  # quartiles
MAX_CATEGORIES = 20  # a text property with more values than this is not sliced by


@dataclass(frozen=True)
class Slice:
    """Samples that share a value.

    Attributes:
        property: What they share: ``class``, ``group``, or a property's name.
        value: The shared value or range.
        count: How many they are; at least 1.
        accuracy: Share that is right, in [0, 1].
        low: Lower end of the accuracy's Wilson interval.
        high: Upper end.
    """

    property: str
    value: str
    count: int
    accuracy: float
    low: float
    high: float


def measure(
    slicings: Iterable[tuple[str, Sequence[str | None]]], *, is_correct: NDArray[np.bool_], level: float
) -> list[Slice]:
    """Accuracy of every slice.

    Args:
        slicings: Name of a property and each sample's value of it; ``None`` puts a sample in no slice.
        is_correct: Whether each sample's prediction is right, shape ``(N,)``.
        level: Coverage of the intervals, in (0, 1).

    Returns:
        Slices in the order of the properties and, within one, by value.
    """
    slices = []
    for name, values in slicings:
        members = np.array(["" if value is None else value for value in values], dtype=object)
        has_value = np.array([value is not None for value in values], dtype=bool)
        for value in _in_order(value for value in values if value is not None):
            chosen = is_correct[has_value & (members == value)]
            low, high = wilson(int(chosen.sum()), total=len(chosen), level=level)
            slices.append(Slice(name, value, len(chosen), float(chosen.mean()), low, high))
    return slices


def worst(slices: Iterable[Slice], *, min_count: int) -> Slice | None:
    """The slice of lowest accuracy among those with enough samples, the larger one of equals; ``None`` without any."""
    return min((s for s in slices if s.count >= min_count), key=lambda s: (s.accuracy, -s.count), default=None)


def wilson(successes: int, *, total: int, level: float) -> tuple[float, float]:
    """Interval of a share; unlike the textbook one it stays in [0, 1] and is honest for few samples.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    margin = z / (1 + z * z / total) * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    return max(0.0, centre - margin), min(1.0, centre + margin)


def buckets(column: pa.ChunkedArray | pa.Array) -> list[str | None] | None:
    """A slice name for each sample by its value of one property, ``None`` for missing values.

    Numbers fall into quartiles, texts and small sets of numbers stand for themselves.

    Returns:
        Names, or ``None`` where slicing says nothing: one value only, or too many texts.
    """
    values = column.to_pylist()
    distinct = {value for value in values if value is not None and value == value}
    if len(distinct) < 2:
        return None
    if not all(isinstance(value, int | float) for value in distinct):
        return [_text(value) for value in values] if len(distinct) <= MAX_CATEGORIES else None
    if len(distinct) <= NUM_BUCKETS:
        return [None if value is None or value != value else f"{value:g}" for value in values]
    return _quartiles(np.array([np.nan if value is None else value for value in values], np.float64))


def slicings(
    traits: Iterable[tuple[str, pa.ChunkedArray]], *, labels: Sequence[str]
) -> Iterable[tuple[str, Sequence[str | None]]]:
    """The ways to slice: by class, then by every trait that says something.

    Args:
        traits: Name and column of each property; names may repeat.
        labels: Class name of each sample.
    """
    yield "class", labels
    for name, column in traits:
        values = buckets(column)
        if values is not None:
            yield name, values


def _quartiles(values: NDArray[np.float64]) -> list[str | None]:
    finite = values[np.isfinite(values)]
    edges = np.unique(np.quantile(finite, np.linspace(0, 1, NUM_BUCKETS + 1)))
    number = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, max(0, len(edges) - 2))
    names = [f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(edges)] or [f"{edges[0]:.4g}"]
    return [names[n] if np.isfinite(value) else None for n, value in zip(number, values, strict=True)]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _in_order(values: Iterable[str]) -> list[str]:
    """Distinct values: ranges and numbers by their first number, then words."""

    def key(value: str) -> tuple[bool, float, str]:
        try:
            return (False, float(value.split(" ")[0]), value)
        except ValueError:
            return (True, 0.0, value)

    return sorted(set(values), key=key)
