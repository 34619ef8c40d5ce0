"""Profiles the light properties of all samples: block by block, in constant memory, and exactly."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from datamill.hashes import word_hashes
from datamill.runs import SortedRuns
from datamill.validation.rules import CLASS_SIZE, LABEL

STRING = "string"
QUARTILES = (0.25, 0.75)


@dataclass(frozen=True)
class ColumnProfile:
    """What a column holds.

    Attributes:
        type: Its numbers' type, or ``string``.
        nulls: Missing values (count).
        distinct: Different values that are not missing (count).
        bounds: Smallest and largest finite number; ``None`` where there is none, and for strings.
        quartiles: Lower and upper quartile of the finite numbers; likewise.
        usual: Most frequent number, the smallest of several, and how often it occurs; likewise.
        has_infinite: Whether there are infinite numbers.
    """

    type: str
    nulls: int
    distinct: int
    bounds: tuple[Any, Any] | None = None
    quartiles: tuple[float, float] | None = None
    usual: tuple[Any, int] | None = None
    has_infinite: bool = False

    @property
    def is_number(self) -> bool:
        """Whether it holds numbers."""
        return self.type != STRING


@dataclass(frozen=True)
class Profile:
    """What the properties of all samples hold.

    Attributes:
        num_samples: Rows.
        columns: The properties by name.
        classes: Samples of each class by name, sorted.
    """

    num_samples: int
    columns: dict[str, ColumnProfile]
    classes: dict[str, int]

    def count(self, name: str) -> tuple[int, int]:
        """How many different values a column has, and how many values; also ``label`` and ``class_size``."""
        if name in (LABEL, CLASS_SIZE):
            different = self.classes if name == LABEL else set(self.classes.values())
            return len(different), self.num_samples
        return self.columns[name].distinct, self.num_samples - self.columns[name].nulls

    def as_json(self) -> dict[str, Any]:
        """Type, missing and distinct values and range of each column; and the class sizes."""
        columns = {}
        for name, column in self.columns.items():
            columns[name] = {"type": column.type, "nulls": column.nulls, "distinct": column.distinct}
            if column.bounds is not None:
                columns[name] |= {"min": column.bounds[0], "max": column.bounds[1]}
        return {"num_samples": self.num_samples, "columns": columns, "classes": self.classes}


def profile_of(frames: Iterable[pd.DataFrame], *, scratch: Path) -> Profile:
    """What the columns of the frames hold together; all numbers are exact, strings are told apart by a 64-bit hash.

    Args:
        frames: As ``iter_properties`` gives them; at least one, which may be empty.
        scratch: Where the values wait to be sorted; memory does not grow with the frames.
    """
    columns: dict[str, _Column] = {}
    labels: Counter[str] = Counter()
    for frame in frames:
        labels.update(Counter(frame[LABEL]))
        for place, (name, values) in enumerate(frame.drop(columns=LABEL).items()):
            if name not in columns:
                columns[str(name)] = _Column(scratch / f"column-{place}", values)
            columns[str(name)].add(values)
    return Profile(
        num_samples=labels.total(),
        columns={name: column.profile() for name, column in columns.items()},
        classes={str(name): int(labels[name]) for name in sorted(labels)},
    )


@final
class _Column:
    """Gathers what is to be known of a column."""

    def __init__(self, path: Path, values: "pd.Series[Any]") -> None:
        """Nothing yet of a column that holds what ``values`` holds."""
        is_number = pd.api.types.is_numeric_dtype(values)
        self._type = str(values.dtype) if is_number else STRING
        self._values = SortedRuns(path, values.to_numpy().dtype if is_number else np.uint64)
        self._nulls = self._num_low = self._num_high = 0

    def add(self, values: "pd.Series[Any]") -> None:
        """Take in some of its values."""
        known = values[values.notna()]
        self._nulls += len(values) - len(known)
        if self._type == STRING:
            self._values.add(np.unique(word_hashes(pa.array(known, pa.string()))))
        else:
            numbers = known.to_numpy() + 0  # without negative zeros
            self._values.add(numbers)
            self._num_low += int((numbers == -np.inf).sum())
            self._num_high += int((numbers == np.inf).sum())

    def profile(self) -> ColumnProfile:
        """What was gathered; the column is forgotten."""
        low, high = self._num_low, len(self._values) - self._num_high  # places of the finite numbers, in order
        wanted = _Places([low, high - 1, *(place for q in QUARTILES for place in _around(q, low=low, high=high))])
        counts = _Counts()
        for block in self._values.merged():
            wanted.pass_by(block)
            counts.pass_by(block)
        self._values.remove()
        facts: dict[str, Any] = {
            "type": self._type,
            "nulls": self._nulls,
            "distinct": counts.distinct,
            "has_infinite": self._num_low + self._num_high > 0,
        }
        if self._type == STRING or low >= high:
            return ColumnProfile(**facts)
        first, last, *around = wanted.found
        quartiles = [
            float(np.quantile(np.array(pair), _fraction(q, count=high - low)))
            for q, pair in zip(QUARTILES, (around[:2], around[2:]), strict=True)
        ]
        usual = (counts.usual.item(), counts.most)
        return ColumnProfile(
            **facts, bounds=(first.item(), last.item()), quartiles=(quartiles[0], quartiles[1]), usual=usual
        )


@final
class _Places:
    """The values at some places of a sorted stream."""

    def __init__(self, places: list[int]) -> None:
        self._places = places
        self._passed = 0
        self.found: list[Any] = [None] * len(places)

    def pass_by(self, block: NDArray[Any]) -> None:
        for number, place in enumerate(self._places):
            if 0 <= place - self._passed < len(block):
                self.found[number] = block[place - self._passed]
        self._passed += len(block)


@final
class _Counts:
    """How many different values a sorted stream has, and which is the most frequent."""

    def __init__(self) -> None:
        self.distinct = self.most = 0
        self.usual: Any = None
        self._last: Any = None
        self._last_count = 0

    def pass_by(self, block: NDArray[Any]) -> None:
        starts = np.flatnonzero(np.append(True, block[1:] != block[:-1]))
        values, counts = block[starts], np.diff(starts, append=len(block))
        is_same = self.distinct > 0 and bool(values[0] == self._last)
        counts[0] += self._last_count if is_same else 0
        self.distinct += len(values) - is_same
        best = int(counts.argmax())
        if counts[best] > self.most:
            self.usual, self.most = values[best], int(counts[best])
        self._last, self._last_count = values[-1], int(counts[-1])


def _around(q: float, *, low: int, high: int) -> tuple[int, int]:
    """Places between which a quantile lies."""
    place = low + int(q * (high - low - 1))
    return place, min(place + 1, high - 1)


def _fraction(q: float, *, count: int) -> float:
    """Where a quantile lies between its two places (0 to 1)."""
    place = q * (count - 1)
    return place - int(place)
