"""Writes planned samples in the formats of other tools while they stream by."""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamill.preprocessing import Preprocessor
from datamill.samples import Dataset
from datamill.shards import exchange
from datamill.shards.exchange import Payload

DECIDED = ("sample_id", "split", "label")


class Wish(Protocol):
    """What is asked for: one format."""

    @property
    def format(self) -> str:
        """Its name."""

    @property
    def splits(self) -> Sequence[str]:
        """Splits to write."""

    @property
    def max_samples(self) -> int:
        """Samples per file at most (count)."""


def export(
    pairs: Iterable[tuple[pa.Table, pa.Table]],
    *,
    wishes: Sequence[Wish],
    folder: Path,
    dataset: Dataset,
    preprocessor: Preprocessor,
) -> int:
    """Write samples into one folder per format: images as the files they came as, tables as the rows training sees.

    Args:
        pairs: Samples with payload beside their decisions, the columns ``DECIDED``; not read without a wish.
        wishes: What to write.
        folder: Made here; holds a folder per format.
        dataset: What holds for every sample.
        preprocessor: Makes a table's rows.

    Returns:
        Number of files.
    """
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        writers = {
            (wish.format, split): stack.enter_context(
                exchange.writer(
                    wish.format, folder / wish.format, split=split, dataset=dataset, max_samples=wish.max_samples
                )
            )
            for wish in wishes
            for split in wish.splits
        }
        for table, decided in pairs if writers else ():
            payloads = _payloads(table, preprocessor=preprocessor)
            numbers = pc.index_in(decided["label"], value_set=pa.array(dataset.classes, pa.string())).to_pylist()
            splits = decided["split"].to_numpy()
            ids = decided["sample_id"].to_pylist()
            for (_, split), writer in writers.items():
                for row in np.flatnonzero(splits == split):
                    writer.write(ids[row], payloads[row], numbers[row])
    return sum(writer.num_files for writer in writers.values())


def _payloads(table: pa.Table, *, preprocessor: Preprocessor) -> Sequence[Payload]:
    if "image" in table.column_names:
        return [one["bytes"] for one in table["image"].to_pylist()]
    return list(preprocessor.arrays(table))
