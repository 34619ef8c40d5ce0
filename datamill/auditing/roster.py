"""The samples to judge, and what is observed of them: both read as streams; 8 bytes are held of each sample."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill import ledger, parts, reading, sampling
from datamill.modalities import modality_of
from datamill.samples import Dataset
from datamill.splitting import SPLITS

OBSERVED_ROWS = 1_024  # observed at a time: few enough for the processor's cache


@dataclass(frozen=True)
class Roster:
    """The samples to judge; one entry per sample, in sample order.

    Attributes:
        is_left: Which of all samples they are, shape ``(M,)``.
        labels: Number of the given class, int32, shape ``(N,)``.
        splits: Position in ``SPLITS``, int8, shape ``(N,)``.
        folds: Fold of a training sample, negative for held-out ones, int8, shape ``(N,)``.
        is_taught: Training samples that models are fitted on, shape ``(N,)``.
    """

    is_left: NDArray[np.bool_]
    labels: NDArray[np.int32]
    splits: NDArray[np.int8]
    folds: NDArray[np.int8]
    is_taught: NDArray[np.bool_]


def read_roster(samples: Path, *, assignments: Path, classes: Sequence[str], max_rows: int, key: str) -> Roster:
    """The survivors of the split, and which of them models are fitted on: at most ``max_rows``, chosen by ``key``."""
    known, positions = pa.array(classes, pa.string()), pa.array(SPLITS)
    placed = ledger.iter_tables(assignments, columns=["sample_id", "fate", "split", "fold"])
    cursor = reading.Cursor(placed, name=str(assignments))
    draw = sampling.BottomK(max_rows, key=key)
    draw.add(pa.table({"sample_id": pa.array([], pa.string()), "row": pa.array([], pa.int64())}))
    num_samples, num_left = parts.read_manifest(samples).num_rows, 0
    is_left = np.zeros(num_samples, bool)
    labels = np.empty(num_samples, np.int32)
    splits, folds = np.empty(num_samples, np.int8), np.empty(num_samples, np.int8)
    place = 0
    for table in parts.iter_tables(samples, columns=["sample_id", "label"], rows=ledger.FEW_ROWS):
        rows, verdicts = cursor.advance(table["sample_id"])
        is_surviving = ledger.is_surviving(verdicts)
        rows, verdicts = rows[is_surviving.to_numpy()], verdicts.filter(is_surviving)
        split = pc.index_in(verdicts["split"], value_set=positions).to_numpy().astype(np.int8)
        numbers = num_left + np.arange(len(rows))
        teaching = pa.array(np.flatnonzero(split == 0))
        draw.add(pa.table({"sample_id": verdicts["sample_id"].take(teaching), "row": numbers[split == 0]}))
        is_left[place + rows] = True
        labels[numbers] = pc.index_in(table["label"].take(pa.array(rows)), value_set=known).to_numpy()
        splits[numbers], folds[numbers] = split, verdicts["fold"].to_numpy()
        place, num_left = place + table.num_rows, num_left + len(rows)
    cursor.require_end()
    is_taught = np.zeros(num_left, bool)
    is_taught[draw.table()["row"].to_numpy()] = True
    return Roster(
        is_left=is_left,
        labels=labels[:num_left],
        splits=splits[:num_left],
        folds=folds[:num_left],
        is_taught=is_taught,
    )


def observe(
    tables: Iterable[pa.Table], *, roster: Roster, wanted: NDArray[np.bool_], dataset: Dataset
) -> Iterator[Any]:
    """What the vectorizer takes, block by block: arrays or data frames with one row per wanted sample, in order.

    Args:
        tables: All samples of the source: their thumbnails, or their features.
        roster: Which of them are left.
        wanted: Which of these are wanted, shape ``(N,)``.
        dataset: What the samples are.
    """
    place, stop = 0, 0
    for table in tables:
        left = np.flatnonzero(roster.is_left[place : place + table.num_rows])
        place += table.num_rows
        start, stop = stop, stop + len(left)
        rows = left[wanted[start:stop]]
        if len(rows):
            some = table if len(rows) == table.num_rows else table.take(pa.array(rows))
            yield _observations(some, dataset=dataset)


def join(blocks: Iterable[Any]) -> Any:
    """All observations as one array or data frame; there must be some."""
    pieces = list(blocks)
    return np.concatenate(pieces) if isinstance(pieces[0], np.ndarray) else pd.concat(pieces, ignore_index=True)


def _observations(table: pa.Table, *, dataset: Dataset) -> Any:
    """Observations of samples: of images from their thumbnails."""
    if "thumbnail" not in table.column_names:
        return modality_of(dataset).observations(table, dataset=dataset)
    column = table["thumbnail"].combine_chunks()
    pixels = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * column.type.byte_width :]
    values = pixels[: len(column) * column.type.byte_width].reshape(len(column), -1)
    return values / np.float32(255)
