"""Whole columns of many samples, a few at a time: for numbers that take all of a column, such as quartiles."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.hashes import word_hashes

VALUES_AT_ONCE = 2**22  # 32 MiB of columns, or a single column if that is longer

Column = NDArray[np.float64] | NDArray[np.uint64]


def iter_columns(
    read: Callable[[Sequence[str]], Iterable[pa.Table]], *, names: Sequence[str], num_rows: int
) -> Iterator[tuple[str, Column]]:
    """Each column as one array, 8 bytes per sample.

    Args:
        read: Gives the samples in order, with the columns it is asked for: numbers or strings. It is called for a few
            columns at a time, as many as fit into ``VALUES_AT_ONCE``.
        names: The columns.
        num_rows: How many samples there are.

    Yields:
        Its name and its values, shape ``(num_rows,)``: float64 with NaN where a number is missing, or the
        ``word_hashes`` of strings.
    """
    at_once = max(1, VALUES_AT_ONCE // max(num_rows, 1))
    for first in range(0, len(names), at_once):
        group = list(names[first : first + at_once])
        columns: dict[str, Column] = {}
        start = 0
        for table in read(group):
            for name in group:
                values = _values(table[name].combine_chunks())
                columns.setdefault(name, cast(Column, np.empty(num_rows, values.dtype)))[
                    start : start + len(values)
                ] = values
            start += table.num_rows
        for name in group:
            yield name, columns.pop(name, np.empty(0, np.float64))


def _values(column: pa.Array) -> Column:
    if pa.types.is_string(column.type):
        return word_hashes(column)
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
