"""Results of expectations about single rows, merged from blocks into what one look at all rows would have given."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

Result = Any  # Great Expectations' own; ``checking`` is the module that knows it
SHOWN = 20  # unexpected values that Great Expectations lists
ROW_WISE = frozenset(
    f"expect_{name}"
    for name in (
        "column_values_to_be_between",
        "column_values_to_be_in_set",
        "column_values_to_not_be_in_set",
        "column_values_to_be_null",
        "column_values_to_not_be_null",
        "column_value_lengths_to_be_between",
        "column_value_lengths_to_equal",
        "column_values_to_match_regex",
        "column_values_to_match_regex_list",
        "column_values_to_not_match_regex",
        "column_values_to_not_match_regex_list",
        "column_pair_values_a_to_be_greater_than_b",
        "column_pair_values_to_be_equal",
        "column_pair_values_to_be_in_set",
        "multicolumn_sum_to_equal",
        "multicolumn_values_to_be_equal",
        "select_column_values_to_be_unique_within_record",
    )
)
"""Expectations that judge each row by itself."""


@final
class Merged:
    """The result of one expectation about single rows; memory grows with the rows that break it."""

    def __init__(self) -> None:
        """Nothing was checked yet."""
        self._first: Result | None = None
        self._num_rows = self._num_missing = self._num_unexpected = 0
        self._rows: list[NDArray[np.int64]] = []
        self._values: list[Any] = []

    def add(self, result: Result, *, num_others: int = 0) -> None:
        """Take in the result for the next rows, which are numbered by their place among all.

        Args:
            result: What Great Expectations says of these rows.
            num_others: Rows between or after them for which the expectation is known to hold (count).
        """
        found = result.result
        self._first = self._first or result
        self._num_rows += found["element_count"] + num_others
        self._num_missing += found.get("missing_count", 0)
        self._num_unexpected += found["unexpected_count"]
        self._rows.append(np.asarray(found.get("unexpected_index_list") or [], np.int64))
        self._values += found.get("unexpected_list") or []

    def result(self, *, mostly: float) -> Result:
        """What one look at all rows would have given; something must have been taken in.

        Args:
            mostly: Share of the rows that must hold (0 to 1).
        """
        assert self._first is not None
        has_missing = "missing_count" in self._first.result
        num_known = self._num_rows - self._num_missing
        rate = (num_known - self._num_unexpected) / num_known if num_known else 1.0
        self._first.success = rate >= mostly
        self._first.result = self._numbers(num_known, has_missing=has_missing)
        return self._first

    def _numbers(self, num_known: int, *, has_missing: bool) -> dict[str, Any]:
        """Counts and shares in the order and under the names that Great Expectations gives them."""
        of_known = _percent(self._num_unexpected, num_known)
        of_all = _percent(self._num_unexpected, self._num_rows)
        rows = np.concatenate(self._rows).tolist()
        missing = {
            "missing_count": self._num_missing,
            "missing_percent": _percent(self._num_missing, self._num_rows),
            "unexpected_percent_total": of_all,
            "unexpected_percent_nonmissing": of_known,
        }
        return {
            "element_count": self._num_rows,
            "unexpected_count": self._num_unexpected,
            "unexpected_percent": of_known if has_missing else of_all,
            "partial_unexpected_list": self._values[:SHOWN],
            **(missing if has_missing else {}),
            "partial_unexpected_counts": _most_common(self._values),
            "partial_unexpected_index_list": rows[:SHOWN],
            "unexpected_list": self._values,
            "unexpected_index_list": rows,
        }


def _most_common(values: Sequence[Any]) -> list[dict[str, Any]]:
    """The most frequent values and their counts, as Great Expectations tells them."""
    try:
        counts = Counter(tuple(value.values()) if isinstance(value, dict) else value for value in values)
        ranked = sorted(counts.most_common(SHOWN), key=lambda pair: (-pair[1], pair[0]))
        return [{"value": value, "count": count} for value, count in ranked]
    except TypeError:
        return [{"error": "partial_exception_counts requires a hashable type"}]


def _percent(count: int, total: int) -> float | None:
    return count / total * 100 if total else None
