"""Where a reading goes: samples into parts, rejects into a ledger, and what the last ingest made copied over.

Runs of samples that are whole parts of the last ingest are linked and not even opened; others are copied.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datamill import files, ledger, parts
from datamill.samples import Dataset
from datamill.sources.batches import BATCH_BYTES, BATCH_ROWS, Batch, Known
from datamill.sources.journal import Journal


class Intake:
    """Writes batches; leaving the block without an error finishes both outputs."""

    def __init__(self, *, samples: Path, rejects: Path, dataset: Dataset, journal: Journal) -> None:
        """Start two empty outputs.

        Args:
            samples: Parts folder to write.
            rejects: Ledger of rejects to write.
            dataset: What holds for every sample.
            journal: Names the outputs of the last ingest, of which rows may come again.
        """
        self._samples = _Samples(samples, dataset=dataset, previous=journal.samples)
        self._rejects = parts.RowGroups(rejects)
        self._old_rejects = _Rows(journal.rejects) if journal.rejects is not None else None
        self._stack = ExitStack()

    def add(self, batch: Batch | Known) -> None:
        """Append items."""
        if isinstance(batch, Known):
            self._samples.reuse(batch.samples)
            if batch.rejects:
                assert self._old_rejects is not None
                for table in self._old_rejects.slices(batch.rejects):
                    self._rejects.write(table)
        else:
            self._samples.write(batch.table)
            if batch.rejects:
                self._rejects.write(ledger.reject_table(batch.rejects))

    def __enter__(self) -> Self:
        """Start writing."""
        self._stack.enter_context(self._rejects)
        self._stack.enter_context(self._samples)
        self._rejects.write(ledger.reject_table([]))
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Finish both, unless an error is on its way."""
        self._stack.__exit__(error, value, tb)


class _Samples(parts.PartsWriter):
    """A writer that can also take rows of the previous folder."""

    def __init__(self, folder: Path, *, dataset: Dataset, previous: Path | None) -> None:
        super().__init__(folder, dataset=dataset, previous=previous)
        self._old = parts.read_manifest(previous).parts if previous is not None else ()
        self._ends = np.cumsum([part.num_rows for part in self._old], dtype=np.int64)
        self._run = range(0)  # rows of the previous folder that come next
        self._waiting: list[pa.Table] = []  # written together: a call for every few rows would cost more than they do
        self._waiting_rows = self._waiting_bytes = 0
        self._open: tuple[str, _Rows] | None = None

    def write(self, table: pa.Table) -> None:
        self._settle()
        self._collect(table)

    def reuse(self, rows: range) -> None:
        """Append rows of the previous folder."""
        if not rows:
            return
        if self._run and self._run.stop == rows.start:
            self._run = range(self._run.start, rows.stop)
        else:
            self._settle()
            self._run = rows

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        if error is None:
            self._settle(is_end=True)
            self._write_waiting()
        super().__exit__(error, value, tb)

    def _settle(self, *, is_end: bool = False) -> None:
        """Append the run: parts that lie in it are linked, provided that they would come out the same here."""
        rows, self._run = self._run, range(0)
        while rows:
            number = int(np.searchsorted(self._ends, rows.start, side="right"))
            part, end = self._old[number], int(self._ends[number])
            piece, rows = range(rows.start, min(rows.stop, end)), range(end, rows.stop)
            # The last part ends because the samples do, not by the rule that cuts parts.
            is_cut = number < len(self._old) - 1 or is_end
            if len(piece) == part.num_rows and is_cut and self._is_between_parts():
                self._link(part)
            else:
                self._copy(part, range(piece.start - end + part.num_rows, piece.stop - end + part.num_rows))

    def _is_between_parts(self) -> bool:
        self._write_waiting()
        return self._part is None

    def _link(self, part: parts.Part) -> None:
        assert self._previous is not None
        target = self._folder / part.name
        if not target.exists():
            files.link_or_copy(self._previous / part.name, target)
        self._parts.append(part)

    def _copy(self, part: parts.Part, rows: range) -> None:
        assert self._previous is not None
        if self._open is None or self._open[0] != part.name:
            self._open = part.name, _Rows(self._previous / part.name)
        for table in self._open[1].slices(rows):
            self._collect(table)

    def _collect(self, table: pa.Table) -> None:
        self._waiting.append(parts.conform(table, schema=self._schema))
        self._waiting_rows += table.num_rows
        self._waiting_bytes += table.nbytes
        if self._waiting_rows >= BATCH_ROWS or self._waiting_bytes >= BATCH_BYTES:
            self._write_waiting()

    def _write_waiting(self) -> None:
        if self._waiting:
            super().write(pa.concat_tables(self._waiting))
            self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0


class _Rows:
    """Rows of one Parquet file by their places, with one row group in memory: quick when they are read in order."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path)
        sizes = [self._file.metadata.row_group(number).num_rows for number in range(self._file.num_row_groups)]
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self._number, self._group = -1, pa.table({})

    def slices(self, rows: range) -> Iterator[pa.Table]:
        """These rows, as tables that hold no memory but their own."""
        while rows:
            number = int(np.searchsorted(self._ends, rows.start, side="right"))
            if number != self._number:
                self._number, self._group = number, self._file.read_row_group(number)
            end = int(self._ends[number])
            start, stop = (place - end + self._group.num_rows for place in (rows.start, min(rows.stop, end)))
            is_whole = stop - start == self._group.num_rows
            yield self._group if is_whole else self._group.take(np.arange(start, stop))
            rows = range(end, rows.stop)
