"""Every source sample of a run with what was decided about it, in light columns; payloads are not read.

Memory grows with the number of samples by less than a kilobyte each; ledgers are joined as streams.
"""

# Shapes: N source samples of one run.

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datamill import catalog, ledger, parts, reading
from datamill.lineage.runs import Run
from datamill.samples import Dataset
from datamill.stage import Stage

SPLITS = ("train", "validation", "test")
NOWHERE = -1  # of a sample that is in no shard, or a stage that never saw it
COMPARED = ("fate", "reason", "split", "fold", "label", "weight", "draw")  # columns of a ledger that are decisions
SEPARATOR = "\x1f"  # of the columns of one decision


class Codebook:
    """Numbers for decisions, shared by the runs that are compared."""

    def __init__(self) -> None:
        """Empty."""
        self.decisions: list[dict[str, str]] = []
        self._number: dict[tuple[str, ...], int] = {}

    def encode(self, table: pa.Table) -> NDArray[np.int32]:
        """The number of each row's decision, equal for equal ones, shape ``(rows,)``."""
        columns = [pc.fill_null(table[name].cast(pa.string()), "") for name in table.column_names]
        joined = pc.binary_join_element_wise(*columns, SEPARATOR).combine_chunks().dictionary_encode()
        numbers = [self._enter(table.column_names, text.split(SEPARATOR)) for text in joined.dictionary.to_pylist()]
        return np.asarray(np.array(numbers, np.int32)[joined.indices.to_numpy()])

    def _enter(self, names: Sequence[str], values: Sequence[str]) -> int:
        number = self._number.setdefault((*names, *values), len(self.decisions))
        if number == len(self.decisions):
            self.decisions.append(dict(zip(names, values, strict=True)))
        return number


@dataclass(frozen=True)
class Roster:
    """What is known of the source samples of one run; every array has N rows, in sample order.

    Attributes:
        dataset: What holds for all of them.
        ids: Sample ids.
        sources: Source keys.
        contents: Hashes of the payloads.
        labels: Class names as the source gave them.
        groups: Groups, null where there are none.
        splits: Where each ended: number in ``SPLITS``, or ``NOWHERE`` if it is in no shard.
        decisions: By stage, the number of its decision in the shared codebook, or ``NOWHERE``.
        known: What each decision's number stands for, by column; the shared codebook's.
        num_generated: Rows in the shards that are no source samples.
        rejects: Reason by source key of what could not become a sample.
    """

    dataset: Dataset
    ids: pa.Array
    sources: pa.Array
    contents: pa.Array
    labels: pa.Array
    groups: pa.Array
    splits: NDArray[np.int8]
    decisions: Mapping[str, NDArray[np.int32]]
    known: Sequence[Mapping[str, str]] = ()
    num_generated: int = 0
    rejects: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of samples, N."""
        return len(self.ids)

    def is_in(self, split: str) -> NDArray[np.bool_]:
        """Which samples are in a split of the shards, shape ``(N,)``."""
        return np.asarray(self.splits == SPLITS.index(split))


def read_roster(run: Run, *, stages: Sequence[Stage], book: Codebook) -> Roster:
    """The source samples of a run with every stage's decision.

    Args:
        run: Whose samples.
        stages: All stages; those that answer for samples have a ledger.
        book: Numbers for decisions; grows.

    Raises:
        DataError: An artifact is not on this machine.
    """
    folder = run.open(catalog.INGEST_SAMPLES.path)
    light = parts.read_table(folder, columns=["sample_id", "source", "content_hash", "label", "group"]).combine_chunks()
    ids = _flat(light["sample_id"])
    decisions: dict[str, NDArray[np.int32]] = {}
    for name, path in ledgers(stages).items():
        if run.has(path):
            decisions[name] = _decisions(run.open(path), ids=ids, book=book)
    splits, num_rows = _splits(run.open(catalog.SHARD_LEDGER.path), ids=ids)
    rejects = ledger.read(run.open(catalog.INGEST_REJECTS.path), columns=["source", "reason"])
    return Roster(
        dataset=parts.read_manifest(folder).dataset,
        ids=ids,
        sources=_flat(light["source"]),
        contents=_flat(light["content_hash"]),
        labels=_flat(light["label"]),
        groups=_flat(light["group"]),
        splits=splits,
        decisions=decisions,
        known=book.decisions,
        num_generated=num_rows - int((splits != NOWHERE).sum()),
        rejects=dict(zip(rejects["source"].to_pylist(), rejects["reason"].to_pylist(), strict=True)),
    )


def ledgers(stages: Sequence[Stage]) -> dict[str, str]:
    """Path of each stage's ledger over source samples, in the order of the stages."""
    return {
        stage.name: stage.outputs[stage.account.ledger].path
        for stage in stages
        if stage.account is not None and stage.account.population
    }


def _decisions(path: Path, *, ids: pa.Array, book: Codebook) -> NDArray[np.int32]:
    codes = np.full(len(ids), NOWHERE, np.int32)
    shown = [name for name in COMPARED if name in pq.read_schema(path).names]
    for rows, table in _beside(path, ids=ids, columns=shown):
        codes[rows] = book.encode(table.select(shown))
    return codes


def _splits(path: Path, *, ids: pa.Array) -> tuple[NDArray[np.int8], int]:
    """Split of each source sample that is in a shard, and the number of rows in all shards."""
    splits = np.full(len(ids), NOWHERE, np.int8)
    for rows, table in _beside(path, ids=ids, columns=["fate", "split"]):
        number = pc.fill_null(pc.index_in(table["split"], pa.array(SPLITS)), NOWHERE).to_numpy()
        splits[rows] = np.where(ledger.is_surviving(table).to_numpy(), number, NOWHERE)
    counts = ledger.count(path)
    return splits, counts["kept"] + counts["repaired"]


def _beside(path: Path, *, ids: pa.Array, columns: Sequence[str]) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
    """Rows of a ledger that are about source samples, each batch with their places among ``ids``."""
    cursor = reading.Cursor(ledger.iter_tables(path, columns=["sample_id", *columns]), name=str(path))
    for start in range(0, len(ids), ledger.READ_ROWS):
        rows, table = cursor.advance(pa.chunked_array([ids.slice(start, ledger.READ_ROWS)]))
        if len(rows):
            yield start + rows, table


def _flat(column: pa.ChunkedArray) -> pa.Array:
    flat = column.combine_chunks()
    return flat if isinstance(flat, pa.Array) else pa.concat_arrays(flat.chunks or [pa.array([], column.type)])
