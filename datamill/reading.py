"""Samples as they are now: the source's rows with repairs put in place and dropped rows left out.

Parts, repairs and ledgers all keep the order of the samples, so they are joined as streams: memory holds a few
thousand rows, however many there are.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill import ledger, parts
from datamill.errors import StageError


def iter_samples(
    folders: Sequence[Path],
    *,
    wanted: Collection[str] | None = None,
    repairs: Path | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[pa.Table]:
    """The samples of several parts folders, in order, each as its last repair left it.

    Args:
        folders: Parts folders, read one after the other.
        wanted: Ids to yield: a few of them, as a set or a dict; ``None`` for all.
        repairs: Parts folder whose rows replace the rows of the same id.
        columns: Columns to yield; must include ``sample_id``. All by default.

    Yields:
        Non-empty tables of at most ``parts.READ_ROWS`` rows.
    """
    tables: Iterator[pa.Table] = (table for folder in folders for table in parts.iter_tables(folder, columns=columns))
    if repairs is not None and parts.read_manifest(repairs).num_rows:
        tables = _repaired(tables, repairs=repairs, columns=columns)
    few = None if wanted is None else pa.array(list(wanted), pa.string())
    for table in tables:
        if few is not None:
            table = table.filter(pc.is_in(table["sample_id"], few))
        if table.num_rows:
            yield table


def iter_decided(
    folders: Sequence[Path],
    *,
    decisions: Path,
    repairs: Path | None = None,
    columns: Sequence[str] | None = None,
    decided: Sequence[str] = ("sample_id",),
    where: Callable[[pa.Table], pa.Array | pa.ChunkedArray] = ledger.is_surviving,
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Samples beside what a ledger decided about them.

    Args:
        folders: Parts folders, read one after the other; together they hold every sample of the ledger, in its order.
        decisions: The ledger.
        repairs: Parts folder whose rows replace the rows of the same id.
        columns: Columns of the samples; all by default.
        decided: Columns of the ledger.
        where: Which rows of the ledger are wanted, told from ``decided`` and ``fate``; the surviving ones by default.

    Yields:
        Samples and decisions, non-empty tables of equal length, row by row about the same sample.

    Raises:
        StageError: The ledger names a sample that no folder holds, or has another order.
    """
    needed = list(dict.fromkeys(["sample_id", *decided, "fate"]))
    shown = None if columns is None else list(dict.fromkeys(["sample_id", *columns]))
    samples = iter_samples(folders, repairs=repairs, columns=shown)
    verdict_tables = ledger.iter_tables(decisions, columns=needed, rows=ledger.FEW_ROWS)
    for table, verdicts in join_in_order(samples, verdict_tables, name=str(decisions)):
        mask = where(verdicts)
        table, verdicts = ledger.chosen(table, mask), ledger.chosen(verdicts, mask)
        if table.num_rows:
            verdicts = ledger.as_text(verdicts.select(list(decided)))
            yield table if columns is None else table.select(list(columns)), verdicts


def in_split(split: str) -> Callable[[pa.Table], pa.ChunkedArray]:
    """A condition for ``iter_decided``: surviving samples of this split."""
    return lambda table: pc.and_(ledger.is_surviving(table), pc.equal(table["split"], split))


def join_in_order(
    tables: Iterable[pa.Table], others: Iterator[pa.Table], *, name: str
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Rows of two streams with the same ``sample_id``, when the second holds some samples of the first in its order.

    Raises:
        StageError: The second stream, called ``name``, holds a sample that the first does not, or has another order.
    """
    cursor = Cursor(others, name=name)
    for table in tables:
        rows, matching = cursor.advance(table["sample_id"])
        if len(rows):
            yield table if len(rows) == table.num_rows else table.take(pa.array(rows)), matching
    cursor.require_end()


class Cursor:
    """A place in a stream of rows that follows another stream, of which it holds some samples in the same order."""

    def __init__(self, tables: Iterator[pa.Table], *, name: str) -> None:
        """Stand at the beginning of ``tables``, the first of which may be empty; ``name`` says where they are from."""
        self._tables = tables
        self._name = name
        self._waiting: pa.Table | None = None

    def advance(self, sample_ids: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.Table]:
        """Places in ``sample_ids`` of the samples that come next in the stream, ascending, and their rows of it."""
        waiting = self._fill(len(sample_ids))
        if waiting["sample_id"].equals(sample_ids):  # the rule; thirty times as fast as to look each of them up
            assert self._waiting is not None
            self._waiting = self._waiting.slice(len(sample_ids))
            return np.arange(len(sample_ids)), waiting
        places = pc.index_in(waiting["sample_id"], value_set=sample_ids.combine_chunks())
        rows = pc.fill_null(places, -1).to_numpy()
        strangers = np.flatnonzero(rows < 0)
        count = int(strangers[0]) if strangers.size else len(rows)
        if (np.diff(rows[:count]) <= 0).any():
            raise StageError(f"{self._name} does not keep the order of the samples; run the stage that writes it again")
        assert self._waiting is not None
        self._waiting = self._waiting.slice(count)
        return rows[:count].astype(np.int64), waiting.slice(0, count)

    def require_end(self) -> None:
        """Refuse a stream that still has rows: they are no samples of the other one, or not in its order."""
        left = self._fill(1)
        if left.num_rows:
            raise StageError(
                f"{self._name} names sample {left['sample_id'][0].as_py()}, which is not among the samples, or not "
                f"in their order; run the stage that writes it again"
            )

    def _fill(self, count: int) -> pa.Table:
        """The next ``count`` rows, or all that are left."""
        pieces = [self._waiting] if self._waiting is not None else []
        num_rows = sum(piece.num_rows for piece in pieces)
        while (not pieces or num_rows < count) and (more := next(self._tables, None)) is not None:
            pieces.append(more)
            num_rows += more.num_rows
        assert pieces, f"{self._name} gave not even an empty table"
        self._waiting = pa.concat_tables(pieces)
        return self._waiting.slice(0, count)


def read_samples(
    folders: Sequence[Path],
    *,
    wanted: Collection[str] | None = None,
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


def _repaired(tables: Iterable[pa.Table], *, repairs: Path, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    """``tables`` with the rows that ``repairs``, some of their samples in the same order, has in another version."""
    cursor = Cursor(parts.iter_tables(repairs, columns=columns), name=str(repairs))
    for table in tables:
        rows, repaired = cursor.advance(table["sample_id"])
        if len(rows):
            source = np.arange(table.num_rows)
            source[rows] = table.num_rows + np.arange(len(rows))
            table = pa.concat_tables([table, repaired.select(table.column_names)]).take(pa.array(source))
        yield table
