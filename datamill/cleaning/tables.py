"""Repairs a table's features in place of its samples: non-finite values, then outliers, then missing values.

Outliers come before missing values, so that they do not shift the values that stand in for missing ones.
"""

from typing import Literal, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.cleaning.missing import impute_category, impute_numbers
from datamill.cleaning.outliers import isolated_rows, usual_bounds
from datamill.cleaning.policies import MissingPolicy, OutlierPolicy, TablePolicies
from datamill.fates import Fates
from datamill.ledger import Fate
from datamill.samples import Dataset

NON_FINITE = "non_finite"
OUTLIER = "outlier"
CLIPPED = "clipped"
MISSING = "missing"
IMPUTED = "imputed"


def mend_table(table: pa.Table, *, dataset: Dataset, fates: Fates, policies: TablePolicies, seed: int) -> pa.Table:
    """Mend the features of surviving samples, and note every decision in ``fates``.

    Args:
        table: One row per sample, in the order of ``fates``.
        dataset: Names and kinds of the features.
        fates: Receives the decisions.
        policies: What becomes of which fault.
        seed: Seeds the isolation forest.

    Returns:
        The surviving samples whose features changed, in order, with their new features and all else as it was.
    """
    repair = _Repair(table, dataset=dataset, fates=fates)
    repair.mend_non_finite(policies.non_finite)
    if fates.surviving.any():
        repair.mend_outliers(policies.outliers, seed=seed)
    if fates.surviving.any():
        repair.mend_missing(policies.missing)
    return repair.changed()


@final
class _Repair:
    """The features of all samples, mended step by step; each step learns from the samples that survive at its start."""

    def __init__(self, table: pa.Table, *, dataset: Dataset, fates: Fates) -> None:
        """Take the features out of ``table``: one row per sample, in the order of ``fates``."""
        self._table = table
        self._fates = fates
        self._numbers = [feature for feature in dataset.features if feature.kind == "number"]
        self._categories = [feature for feature in dataset.features if feature.kind == "category"]
        columns = [table[one.column].to_numpy(zero_copy_only=False) for one in self._numbers]
        self._values = np.array(columns, np.float64).reshape(len(columns), table.num_rows).T.copy()
        self._words = {one.name: np.array(table[one.column].to_pylist(), object) for one in self._categories}
        self._changed = np.zeros(table.num_rows, bool)

    def mend_non_finite(self, policy: Literal["drop", "missing", "off"]) -> None:
        """Drop rows with an infinite number, or let the number count as missing."""
        if policy == "off":
            return
        infinite = np.isinf(self._values)
        if policy == "missing":
            self._values[infinite] = np.nan
        self._note(infinite, reason=NON_FINITE, drops=policy == "drop", repairs=policy == "missing")

    def mend_outliers(self, policy: OutlierPolicy, *, seed: int) -> None:
        """Drop, clip or flag unusual rows or values."""
        if policy.method == "off":
            return
        fit_on = self._fates.surviving
        drops = policy.action == "drop"
        if policy.method == "isolation_forest":
            rows = isolated_rows(self._values, contamination=policy.contamination, fit_on=fit_on, seed=seed)
            self._decide(rows, reason=OUTLIER, details=["isolated"] * int(rows.sum()), drops=drops, repairs=False)
            return
        low, high = usual_bounds(self._values, policy=policy, fit_on=fit_on)
        unusual = (self._values < low) | (self._values > high)
        if policy.action == "clip":
            self._values = np.clip(self._values, low, high)  # keeps NaN
        clips = policy.action == "clip"
        self._note(unusual, reason=CLIPPED if clips else OUTLIER, drops=drops, repairs=clips)

    def mend_missing(self, policy: MissingPolicy) -> None:
        """Drop rows with a missing value, or put an estimate in its place.

        A value stays missing where its column has none at all to learn from.
        """
        if policy.policy == "off":
            return
        before = self._missing()
        if policy.policy == "drop":
            self._note(before, reason=MISSING, drops=True, repairs=False)
            return
        fit_on = self._fates.surviving
        for name, words in self._words.items():
            self._words[name] = impute_category(words, fit_on=fit_on)
        self._values = impute_numbers(
            self._values, policy=policy.policy, fit_on=fit_on, order=self._order(), neighbors=policy.neighbors
        )
        self._note(before & ~self._missing(), reason=IMPUTED, drops=False, repairs=True)

    def changed(self) -> pa.Table:
        """Surviving samples with a changed feature."""
        table = self._table
        columns = {one.column: self._values[:, place] for place, one in enumerate(self._numbers)}
        columns |= {one.column: self._words[one.name] for one in self._categories}
        for column, values in columns.items():
            place = table.column_names.index(column)
            field = table.schema.field(column)
            table = table.set_column(place, field, pa.array(values, field.type, from_pandas=True))
        return table.filter(pa.array(self._changed & self._fates.surviving))

    def _missing(self) -> NDArray[np.bool_]:
        """Which values are missing, numbers before categories, shape ``(N, F)``."""
        words = [np.array([value is None for value in one], bool) for one in self._words.values()]
        return np.column_stack([np.isnan(self._values), *words])

    def _order(self) -> NDArray[np.int64]:
        """Rows by time where every sample has one, else as they come."""
        times = self._table["time"]
        if times.null_count:
            return np.arange(self._table.num_rows)
        return np.argsort(times.to_numpy(), kind="stable")

    def _note(self, cells: NDArray[np.bool_], *, reason: str, drops: bool, repairs: bool) -> None:
        """Decide about every row with a marked cell; the detail names its columns."""
        names = [one.name for one in (*self._numbers, *self._categories)]
        rows = cells.any(axis=1)
        details = [", ".join(names[place] for place in np.flatnonzero(cells[row])) for row in np.flatnonzero(rows)]
        self._decide(rows, reason=reason, details=details, drops=drops, repairs=repairs)

    def _decide(self, rows: NDArray[np.bool_], *, reason: str, details: list[str], drops: bool, repairs: bool) -> None:
        self._changed |= rows & repairs
        fate: Fate = "dropped" if drops else "repaired" if repairs else "kept"
        self._fates.decide(np.flatnonzero(rows).tolist(), fate=fate, reason=reason, details=details)
