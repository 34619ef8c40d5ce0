"""Samples as they are now: the source's rows with repairs put in place and dropped rows left out."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from datamill import parts


def iter_samples(
    folders: Sequence[Path],
    *,
    wanted: Collection[str],
    repairs: Path | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[pa.Table]:
    """The wanted samples of several parts folders, in order, each as its last repair left it.

    Args:
        folders: Parts folders, read one after the other.
        wanted: Ids to yield; a set or a dict, for speed.
        repairs: Parts folder whose rows replace the rows of the same id.
        columns: Columns to yield; must include ``sample_id``. All by default.

    Yields:
        Non-empty tables of at most ``parts.READ_ROWS`` rows.
    """
    repaired = parts.read_table(repairs, columns=columns) if repairs is not None else None
    row_of = {} if repaired is None else {key: row for row, key in enumerate(repaired["sample_id"].to_pylist())}
    for folder in folders:
        for table in parts.iter_tables(folder, columns=columns):
            ids = table["sample_id"].to_pylist()
            table = table.filter(pa.array([key in wanted for key in ids]))
            if table.num_rows:
                yield table if repaired is None else _replace(table, repaired=repaired, row_of=row_of)


def read_samples(
    folders: Sequence[Path],
    *,
    wanted: Collection[str],
    repairs: Path | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """``iter_samples`` as one table: for light columns and small data."""
    schema = parts.read_manifest(folders[0]).dataset.arrow_schema()
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    return pa.concat_tables(
        [schema.empty_table(), *iter_samples(folders, wanted=wanted, repairs=repairs, columns=columns)]
    )


def read_in_order(folders: Sequence[Path], *, wanted: Sequence[str], repairs: Path) -> pa.Table:
    """These samples with payload, in the order of ``wanted``: for a picture's worth of them."""
    table = read_samples(folders, wanted=set(wanted), repairs=repairs)
    row_of = {key: row for row, key in enumerate(table["sample_id"].to_pylist())}
    return table.take(pa.array([row_of[key] for key in wanted], pa.int64()))


def _replace(table: pa.Table, *, repaired: pa.Table, row_of: dict[str, int]) -> pa.Table:
    ids = table["sample_id"].to_pylist()
    replacements = [row_of.get(key, -1) for key in ids]
    if max(replacements) < 0:
        return table
    both = pa.concat_tables([table, repaired.select(table.column_names)])
    rows = [row if new < 0 else table.num_rows + new for row, new in enumerate(replacements)]
    return both.take(pa.array(np.asarray(rows)))
