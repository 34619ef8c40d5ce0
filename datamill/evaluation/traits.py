"""Cheap facts of the samples under test, for slicing and for showing them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill import parts, reading
from datamill.modalities import modality_of
from datamill.stage import Progress


def read_traits(
    samples: Path, *, repairs: Path, ids: Sequence[str], progress: Progress
) -> list[tuple[str, pa.ChunkedArray]]:
    """Group and cheap properties of some samples: name and column each, rows in the order of ``ids``.

    Args:
        samples: Parts folder of the source's samples.
        repairs: Parts folder of repaired ones.
        ids: Samples to describe; at least one.
        progress: Wraps the reading.
    """
    dataset = parts.read_manifest(samples).dataset
    modality = modality_of(dataset)
    tables = reading.iter_samples([samples], wanted=set(ids), repairs=repairs)
    pieces = []
    for table in progress(tables, total=None, label="describing test samples"):
        properties = modality.properties(table, dataset=dataset)
        arrays = [table["sample_id"], table["group"], *properties.columns]  # by position: a feature may be called group
        pieces.append(pa.Table.from_arrays(arrays, names=["sample_id", "group", *properties.column_names]))
    table = _in_order(pa.concat_tables(pieces), ids=ids)
    return list(zip(table.column_names, table.columns, strict=True))[1:]


def read_pictures(samples: Path, *, repairs: Path, ids: Sequence[str]) -> list[NDArray[np.uint8]]:
    """RGB pictures of some samples, in the order of ``ids``; memory grows with them, so ask for few."""
    if not ids:
        return []
    dataset = parts.read_manifest(samples).dataset
    table = reading.read_samples([samples], wanted=set(ids), repairs=repairs)
    assert table.column_names[0] == "sample_id"
    return modality_of(dataset).pictures(_in_order(table, ids=ids), dataset=dataset)


def _in_order(table: pa.Table, *, ids: Sequence[str]) -> pa.Table:
    row = {key: number for number, key in enumerate(table.column(0).to_pylist())}
    return table.take(pa.array([row[key] for key in ids], pa.int64()))
