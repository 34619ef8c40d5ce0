"""What touched samples have in common: the folder, class or group in which they are far too many for chance."""

# Shapes: N samples of the universe they were drawn from.

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

MAX_GROUPS = 6  # told apart; the others are one group together
MIN_ROWS = 5
MIN_LIFT = 3.0  # times the rate elsewhere
MIN_EVIDENCE = 20.0  # G statistic of the two-by-two table; chance exceeds it once in 100,000 tables
MAX_VALUES = 10_000  # a property with more values names samples, not groups
MAX_LEVELS = 4  # folders above a file that are looked at


@dataclass(frozen=True)
class Property:
    """Something samples can share.

    Attributes:
        name: What it is: ``folder``, ``class``, ...
        codes: Number of each sample's value in ``values``, -1 for none, shape ``(N,)``.
        values: The values.
    """

    name: str
    codes: NDArray[np.int64]
    values: Sequence[str]


@dataclass(frozen=True)
class Group:
    """Touched samples that belong together.

    Attributes:
        name: The property they share; empty for those that share none.
        value: Its value.
        rows: Their places in the universe, ascending.
        num_members: Samples of the universe with that value.
    """

    name: str
    value: str
    rows: NDArray[np.int64]
    num_members: int


def groups(is_touched: NDArray[np.bool_], properties: Sequence[Property]) -> list[Group]:
    """Touched samples taken apart: again and again the value in which they are most concentrated, then the rest.

    Args:
        is_touched: Which samples were touched, shape ``(N,)``.
        properties: What they may share; of equally telling ones the first.

    Returns:
        Groups, the most telling one first; together they hold every touched sample once.
    """
    left, universe = is_touched.copy(), np.ones(len(is_touched), bool)
    found: list[Group] = []
    while left.any() and len(found) < MAX_GROUPS:
        group = _most_telling(left, universe=universe, properties=properties)
        if group is None:
            break
        found.append(group)
        left[group.rows] = False
        member = next(one for one in properties if one.name == group.name)
        universe &= member.codes != member.values.index(group.value)
    if left.any():
        found.append(Group("", "", np.flatnonzero(left), int(universe.sum())))
    return found


def evidence(
    touched: NDArray[np.int64], members: NDArray[np.int64], *, num_touched: int, num_all: int
) -> NDArray[np.float64]:
    """How surprising it is that so many members were touched: G of the two-by-two table, 0 where they are too few.

    Args:
        touched: Touched samples of each value.
        members: Samples of each value.
        num_touched: Touched samples in all.
        num_all: Samples in all.

    Source: J. H. McDonald, "Handbook of Biological Statistics", 2014 (G-test of independence).
    """
    rest, outside = num_touched - touched, num_all - members
    cells = np.stack([touched, members - touched, rest, outside - rest]).astype(np.float64)
    rows, columns = (members, outside), (num_touched, num_all - num_touched)
    expected = np.stack([row * column / max(1, num_all) for row in rows for column in columns])
    with np.errstate(divide="ignore", invalid="ignore"):
        g = 2 * np.nansum(np.where(cells > 0, cells * np.log(cells / expected), 0.0), axis=0)
        lift = (touched / np.maximum(1, members)) / np.maximum(rest / np.maximum(1, outside), 1e-12)
    return np.where((touched >= MIN_ROWS) & (lift >= MIN_LIFT), g, 0.0)


def folders(sources: pa.Array) -> list[Property]:
    """The folders above each sample's file, level by level, and the file that a row of a table came from."""
    whole = pc.replace_substring(sources, "#", "/")
    split = pc.split_pattern(whole, "/")
    depths = pc.subtract(pc.list_value_length(split), 1).to_numpy()
    offsets, flat = split.offsets.to_numpy()[:-1], split.flatten()
    found = []
    for level in range(min(MAX_LEVELS, int(depths.max(initial=0)))):
        has_level = depths > level
        names = flat.take(pa.array(offsets[has_level] + level)).dictionary_encode()
        if 1 < len(names.dictionary) <= MAX_VALUES:
            codes = np.full(len(sources), -1, np.int64)
            codes[has_level] = names.indices.to_numpy()
            found.append(Property(f"folder{level}", codes, names.dictionary.to_pylist()))
    return found


def texts(name: str, column: pa.Array) -> list[Property]:
    """A column of names as a property; none where it has one value or too many."""
    encoded = column.dictionary_encode()
    if not 1 < len(encoded.dictionary) <= MAX_VALUES:
        return []
    codes = pc.fill_null(encoded.indices, -1).to_numpy().astype(np.int64)
    return [Property(name, codes, encoded.dictionary.to_pylist())]


def _most_telling(
    left: NDArray[np.bool_], *, universe: NDArray[np.bool_], properties: Sequence[Property]
) -> Group | None:
    best, chosen = MIN_EVIDENCE, None
    for one in properties:
        known = universe & (one.codes >= 0)
        members = np.bincount(one.codes[known], minlength=len(one.values))
        touched = np.bincount(one.codes[known & left], minlength=len(one.values))
        g = evidence(touched, members, num_touched=int(left.sum()), num_all=int(universe.sum()))
        value = int(g.argmax()) if len(g) else 0
        if len(g) and g[value] > best * (1 + 1e-9):
            rows = np.flatnonzero(left & (one.codes == value))
            best, chosen = float(g[value]), Group(one.name, one.values[value], rows, int(members[value]))
    return chosen
