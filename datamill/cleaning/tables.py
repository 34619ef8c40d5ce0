"""Repairs a table's features in place of its samples: non-finite values, then outliers, then missing values.

Outliers come before missing values, so that they do not shift the values that stand in for missing ones. The table is
read as a stream, several times: once for each kind of fault and for what is learnt about it, and at last to write what
changed. Bounds, means, medians, modes and neighbours in order are exact: they are learnt from whole columns, a few at
a time. An isolation forest, nearest rows and regressions are learnt from ``FIT_ROWS`` samples at most, chosen by a
hash of their ids, and applied to all.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, cast, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.cleaning.missing import Modelled, interpolate, most_frequent, statistic
from datamill.cleaning.outliers import Isolation, usual_bounds
from datamill.cleaning.policies import MissingPolicy, OutlierPolicy, TablePolicies
from datamill.columns import iter_columns
from datamill.fates import Fates
from datamill.ledger import Fate
from datamill.samples import Dataset
from datamill.sampling import BottomK

NON_FINITE = "non_finite"
OUTLIER = "outlier"
CLIPPED = "clipped"
MISSING = "missing"
IMPUTED = "imputed"
FIT_ROWS = 20_000

Read = Callable[[Sequence[str] | None], Iterable[pa.Table]]
"""Gives the samples in order, with some of their columns or all of them."""


def mend_table(read: Read, *, dataset: Dataset, fates: Fates, policies: TablePolicies, seed: int) -> Iterator[pa.Table]:
    """The surviving samples whose features changed, in order, with their new features and all else as it was.

    Every decision is noted in ``fates`` by the time the last of them was read.

    Args:
        read: Reads the samples, as many as ``fates`` has and in its order.
        dataset: Names and kinds of the features.
        fates: Receives the decisions.
        policies: What becomes of which fault.
        seed: Seeds the isolation forest.
    """
    repair = _Repair(read, dataset=dataset, fates=fates)
    repair.mend_non_finite(policies.non_finite)
    if fates.surviving.any():
        repair.mend_outliers(policies.outliers, seed=seed)
    if fates.surviving.any():
        repair.mend_missing(policies.missing)
    return repair.changed()


@final
class _Repair:
    """The features of all samples, mended step by step; each step learns from the samples that survive at its start."""

    def __init__(self, read: Read, *, dataset: Dataset, fates: Fates) -> None:
        """Nothing is mended yet."""
        self._read = read
        self._fates = fates
        self._numbers = [one.column for one in dataset.features if one.kind == "number"]
        self._categories = [one.column for one in dataset.features if one.kind == "category"]
        self._names = {one.column: one.name for one in dataset.features}
        self._changed = np.zeros(len(fates), bool)
        self._infinite_is_missing = False
        self._bounds: dict[str, tuple[float, float]] = {}
        self._fill: _Fill | None = None

    def mend_non_finite(self, policy: Literal["drop", "missing", "off"]) -> None:
        """Drop rows with an infinite number, or let the number count as missing."""
        if policy == "off":
            return
        cells = self._cells(self._numbers)
        for start, table in self._blocks(self._numbers):
            cells.add(start, np.isinf(self._values(table)))
        self._infinite_is_missing = policy == "missing"
        self._note(cells, reason=NON_FINITE, drops=policy == "drop", repairs=policy == "missing")

    def mend_outliers(self, policy: OutlierPolicy, *, seed: int) -> None:
        """Drop, clip or flag unusual rows or values."""
        if policy.method == "isolation_forest":
            self._mend_isolated(policy, seed=seed)
        elif policy.method != "off":
            self._mend_unusual(policy)

    def mend_missing(self, policy: MissingPolicy) -> None:
        """Drop rows with a missing value, or have an estimate put in its place where the samples are written.

        A value stays missing where its column has none at all to learn from.
        """
        if policy.policy == "drop":
            cells = self._cells([*self._numbers, *self._categories])
            for start, table in self._blocks([*self._numbers, *self._categories]):
                cells.add(start, self._missing(table))
            self._note(cells, reason=MISSING, drops=True, repairs=False)
        elif policy.policy != "off":
            self._fill = self._learnt_fill(policy)

    def changed(self) -> Iterator[pa.Table]:
        """Surviving samples with a changed feature."""
        if self._fill is None and not self._changed.any():
            return
        surviving = self._fates.surviving
        imputed = self._cells([*self._numbers, *self._categories])
        for start, table in self._blocks(None):
            place = slice(start, start + table.num_rows)
            mended = self._mended(table, start=start)
            if self._fill is not None:
                cells = self._missing(table) & ~self._missing(mended)
                imputed.add(start, cells)
                self._changed[place] |= cells.any(axis=1)
            rows = np.flatnonzero(self._changed[place] & surviving[place])
            if len(rows):
                yield mended.take(pa.array(rows))
        self._note(imputed, reason=IMPUTED, drops=False, repairs=True)

    def _mend_isolated(self, policy: OutlierPolicy, *, seed: int) -> None:
        fit_on = self._fates.surviving
        forest = Isolation(self._chosen(fit_on), contamination=policy.contamination, seed=seed)
        found = [np.empty(0, np.int64)]
        for start, table in self._blocks(self._numbers):
            rows = np.flatnonzero(fit_on[start : start + table.num_rows])
            found.append(start + rows[forest.is_unusual(self._values(table)[rows])])
        fate: Fate = "dropped" if policy.action == "drop" else "kept"
        self._fates.decide(np.concatenate(found), fate=fate, reason=OUTLIER, details="isolated")

    def _mend_unusual(self, policy: OutlierPolicy) -> None:
        fit_on = self._fates.surviving
        bounds = {name: usual_bounds(column[fit_on], policy=policy) for name, column in self._columns(self._numbers)}
        low, high = np.array([bounds[name] for name in self._numbers], np.float64).reshape(-1, 2).T
        cells = self._cells(self._numbers)
        for start, table in self._blocks(self._numbers):
            values = self._values(table)
            cells.add(start, (values < low) | (values > high))
        clips = policy.action == "clip"
        self._bounds = bounds if clips else {}
        self._note(cells, reason=CLIPPED if clips else OUTLIER, drops=policy.action == "drop", repairs=clips)

    def _learnt_fill(self, policy: MissingPolicy) -> "_Fill":
        fit_on = self._fates.surviving
        fill = _Fill(self._numbers)
        for name, hashes in self._columns(self._categories):
            words = (table[name].combine_chunks() for table in self._read([name]))
            fill.words[name] = most_frequent(hashes[fit_on], words)
        if policy.policy in ("knn", "regression"):
            fill.model = Modelled(self._chosen(fit_on), policy=policy.policy, neighbors=policy.neighbors)
            return fill
        order = self._order() if policy.policy == "interpolate" else None
        for name, column in self._columns(self._numbers):
            if order is None:
                fill.numbers[name] = statistic(column[fit_on], policy=cast(Any, policy.policy))
            else:
                rows = np.flatnonzero(np.isnan(column) & fit_on)
                fill.lines[name] = rows, interpolate(column, fit_on=fit_on, order=order)[rows]
        return fill

    def _blocks(self, names: Sequence[str] | None) -> Iterator[tuple[int, pa.Table]]:
        """The samples, each table with the row it starts at."""
        start = 0
        for table in self._read(names) if names is None or names else ():
            yield start, table
            start += table.num_rows

    def _columns(self, names: Sequence[str]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Whole columns as they were mended so far; categories as hashes."""
        for name, column in iter_columns(self._read, names=names, num_rows=len(self._fates)):
            yield name, self._as_mended(cast(Any, column), name=name) if name in self._numbers else column

    def _chosen(self, fit_on: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Numbers of the rows to learn from, at most ``FIT_ROWS``, shape ``(M, D)``."""
        choice = BottomK(FIT_ROWS, key="clean")
        for start, table in self._blocks(["sample_id", *self._numbers]):
            choice.add(table.filter(pa.array(fit_on[start : start + table.num_rows])))
        return self._values(choice.table())

    def _values(self, table: pa.Table) -> NDArray[np.float64]:
        """Numbers as they were mended so far, NaN where missing, shape ``(N, D)``."""
        columns = [self._as_mended(_floats(table[name]), name=name) for name in self._numbers]
        return np.stack(columns, axis=1) if columns else np.empty((table.num_rows, 0))

    def _as_mended(self, column: NDArray[np.float64], *, name: str) -> NDArray[np.float64]:
        if self._infinite_is_missing:
            column = np.where(np.isinf(column), np.nan, column)
        return np.clip(column, *self._bounds[name]) if name in self._bounds else column  # keeps NaN

    def _mended(self, table: pa.Table, *, start: int) -> pa.Table:
        """``table`` with its features as they are to be written."""
        values = self._values(table)
        if self._fill is not None:
            values = self._fill.fill(values, start=start)
        columns = {name: pa.array(values[:, place], from_pandas=True) for place, name in enumerate(self._numbers)}
        if self._fill is not None:
            columns |= {name: _filled(table[name], self._fill.words[name]) for name in self._categories}
        for name, column in columns.items():
            place = table.column_names.index(name)
            table = table.set_column(place, table.schema.field(name), column)
        return table

    def _missing(self, table: pa.Table) -> NDArray[np.bool_]:
        """Which features are missing, numbers before categories, shape ``(N, F)``."""
        words = [table[name].is_null().to_numpy() for name in self._categories]
        return np.column_stack([np.isnan(self._values(table)), *words])

    def _order(self) -> NDArray[np.int64]:
        """Rows by time where every sample has one, else as they come."""
        times, start = np.empty(len(self._fates), np.int64), 0
        for table in self._read(["time"]):
            if table["time"].null_count:
                return np.arange(len(self._fates))
            times[start : start + table.num_rows] = table["time"].cast(pa.int64()).to_numpy()
            start += table.num_rows
        return np.argsort(times, kind="stable")

    def _cells(self, columns: Sequence[str]) -> "_Cells":
        return _Cells([self._names[column] for column in columns])

    def _note(self, cells: "_Cells", *, reason: str, drops: bool, repairs: bool) -> None:
        """Decide about every row with a marked cell; the detail names its columns."""
        rows = cells.rows()
        self._changed[rows] |= repairs
        fate: Fate = "dropped" if drops else "repaired" if repairs else "kept"
        self._fates.decide(rows, fate=fate, reason=reason, details=cells.describe)


@final
class _Cells:
    """Marked cells of a table, as rows and the names of their columns; 12 bytes per row that has any."""

    def __init__(self, names: Sequence[str]) -> None:
        """Mark nothing yet in columns of these names."""
        self._names = names
        self._rows = [np.empty(0, np.int64)]
        self._codes = [np.empty(0, np.int32)]
        self._texts: dict[str, int] = {}

    def add(self, start: int, cells: NDArray[np.bool_]) -> None:
        """Mark cells of the rows from ``start``, shape ``(N, F)``."""
        rows = np.flatnonzero(cells.any(axis=1))
        if not len(rows):
            return
        patterns, codes = np.unique(cells[rows], axis=0, return_inverse=True)
        texts = [", ".join(self._names[place] for place in np.flatnonzero(pattern)) for pattern in patterns]
        numbers = np.array([self._texts.setdefault(text, len(self._texts)) for text in texts], np.int32)
        self._rows.append(start + rows)
        self._codes.append(numbers[codes.ravel()])

    def rows(self) -> NDArray[np.int64]:
        """Rows with a marked cell, ascending."""
        self._rows, self._codes = [np.concatenate(self._rows)], [np.concatenate(self._codes)]
        return self._rows[0]

    def describe(self, rows: NDArray[np.int64]) -> list[str]:
        """The columns of some of these rows."""
        texts = list(self._texts)
        return [texts[code] for code in self._codes[0][np.searchsorted(self.rows(), rows)].tolist()]


@final
class _Fill:
    """What stands in for missing values."""

    def __init__(self, names: Sequence[str]) -> None:
        """Nothing yet, for numbers of these columns."""
        self._names = names
        self.words: dict[str, str | None] = {}
        self.numbers: dict[str, float] = {}
        self.lines: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}  # rows, and a value for each
        self.model: Modelled | None = None

    def fill(self, values: NDArray[np.float64], *, start: int) -> NDArray[np.float64]:
        """``values`` of the rows from ``start`` with an estimate for each NaN, shape ``(N, D)``."""
        values, missing = values.copy(), np.isnan(values)
        if self.model is not None:
            rows = np.flatnonzero(missing.any(axis=1))
            values[rows] = np.where(missing[rows], self.model.estimate(values[rows]), values[rows])
        for place, name in enumerate(self._names):
            if name in self.numbers:
                values[missing[:, place], place] = self.numbers[name]
            if name in self.lines:
                rows, estimates = self.lines[name]
                low, high = np.searchsorted(rows, [start, start + len(values)])
                values[rows[low:high] - start, place] = estimates[low:high]
        return values


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(column.to_numpy(), np.float64)


def _filled(column: pa.ChunkedArray, word: str | None) -> pa.ChunkedArray:
    return column if word is None else column.fill_null(word)
