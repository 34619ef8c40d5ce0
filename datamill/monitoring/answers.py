"""What a model answered to the items of judged windows, kept until their labels have come.

As long as labels may come, ``answers.parquet`` lies in a window's folder: ``content_hash`` and ``probabilities``, or
the ``prediction`` of a regression, of its samples in the order of ``observations.parquet``. A label that comes is
written into the column ``label`` there, once, whole or not at all; the one that came first holds.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datamill import files, parts
from datamill.drift.observations import Observations
from datamill.monitoring.observing import as_labels, as_targets, as_times, lists, matrix
from datamill.monitoring.reference import IDENTITY, UNKNOWN_LABEL, Reference, read_reference
from datamill.monitoring.verdicts import OBSERVATIONS, SAMPLE

ANSWERS = "answers.parquet"
BY_NAME, BY_CONTENT = ("source", "sample_id"), ("content_hash",)  # columns by which a label names its item
LABELS = pa.schema([pa.field("key", pa.string()), pa.field("label", pa.string())])


class Filled(NamedTuple):
    """What labels did to a window that has their items.

    Attributes:
        num_labels: Samples whose label is known now.
        num_new: Those that got it just now.
        num_contradicting: Samples that have another label already.
        is_found: Which of the labels name a sample of the window, shape ``(L,)``.
    """

    num_labels: int
    num_new: int
    num_contradicting: int
    is_found: NDArray[np.bool_]


def write_answers(folder: Path, *, contents: pa.ChunkedArray, seen: Observations) -> None:
    """Keep the answers of a window, row by row."""
    columns = {"content_hash": contents}
    if seen.predictions is not None:
        columns["prediction"] = pa.array(seen.predictions)
    if seen.probabilities is not None:
        columns["probabilities"] = lists(seen.probabilities)
    parts.write_parquet(pa.table(columns), folder / ANSWERS)


def forget_answers(folder: Path) -> None:
    """Wait no longer for labels of a window."""
    files.remove(folder / ANSWERS)


def fill(folder: Path, *, labels: pa.Table, by: Sequence[str]) -> Filled | None:
    """Write labels into a window's observations; those it has already are left as they are.

    Args:
        folder: The window's.
        labels: ``key`` and ``label``, each key once.
        by: Columns that a key may be a value of: ``BY_NAME``, or ``BY_CONTENT``, which several items may share.

    Returns:
        ``None`` where the window has none of the items.
    """
    keys = read_rows(folder, columns=by)
    place = pc.index_in(keys[by[0]], value_set=labels["key"])
    for name in by[1:]:
        place = pc.coalesce(place, pc.index_in(keys[name], value_set=labels["key"]))
    if place.null_count == len(place):
        return None
    table = pq.read_table(folder / OBSERVATIONS)
    before, told = table["label"], labels["label"].combine_chunks().take(place.combine_chunks())
    is_bare = pc.equal(before, "")
    is_new = pc.and_(is_bare, pc.is_valid(told))
    is_other = pc.fill_null(pc.and_(pc.invert(is_bare), pc.not_equal(before, told)), False)
    num_new = _count(is_new)
    if num_new:
        column = table.column_names.index("label")
        filled = table.set_column(column, table.schema.field("label"), pc.if_else(is_new, told, before))
        parts.write_parquet(filled, folder / OBSERVATIONS)
    is_found = np.zeros(labels.num_rows, bool)
    is_found[np.asarray(pc.drop_null(place).to_numpy(), np.int64)] = True
    return Filled(len(table) - _count(is_bare) + num_new, num_new, _count(is_other), is_found)


def read_rows(folder: Path, *, columns: Sequence[str]) -> pa.Table:
    """Columns of a window's observations and answers, row by row; a file of which none is asked for is not opened."""
    found: dict[str, pa.ChunkedArray] = {}
    for path, names in (
        (OBSERVATIONS, [name for name in columns if name not in BY_CONTENT]),
        (ANSWERS, [name for name in columns if name in BY_CONTENT]),
    ):
        if names:
            table = pq.read_table(folder / path, columns=names)
            found |= {name: table[name] for name in names}
    return pa.table(found)


def read_labelled(folder: Path, *, classes: tuple[str, ...]) -> Observations:
    """The samples of a window whose label is known, with the model's answers and without features.

    Args:
        folder: The window's.
        classes: The model's; what comes of them where it answers with a number is not looked at.
    """
    table = pq.read_table(folder / OBSERVATIONS, columns=["sample_id", "label", "time"])
    answers = pq.read_table(folder / ANSWERS).drop_columns(["content_hash"])
    (name,) = answers.column_names
    table = table.append_column(name, answers[name])
    table = table.filter(pc.not_equal(table["label"], ""))
    shared = Observations(
        sample_ids=tuple(table["sample_id"].to_pylist()), features=pa.table({}), times=as_times(table["time"])
    )
    if name == "prediction":
        return replace(shared, predictions=table[name].to_numpy(), targets=as_targets(table["label"]))
    return replace(
        shared,
        classes=classes,
        probabilities=matrix(table[name]),
        labels=as_labels(table["label"], classes=classes),
    )


def read_sample(folder: Path) -> Reference:
    """The kept samples of a window, with the classes that have come since as labels.

    Raises:
        DataError: They are damaged.
    """
    sample = read_reference(folder / SAMPLE)
    before = sample.rows["label"].to_numpy()
    if sample.is_regression or not (folder / OBSERVATIONS).exists() or (before != UNKNOWN_LABEL).all():
        return sample
    observations = pq.read_table(folder / OBSERVATIONS, columns=["sample_id", "label"])
    place = pc.index_in(sample.rows["sample_id"], value_set=observations["sample_id"])
    names = pc.fill_null(observations["label"].combine_chunks().take(place.combine_chunks()), "")
    since = as_labels(pa.chunked_array([names]), classes=sample.description.dataset.classes)
    labels = pa.array(np.where(before == UNKNOWN_LABEL, since, before))
    column = sample.rows.column_names.index("label")
    return replace(sample, rows=sample.rows.set_column(column, IDENTITY.field("label"), labels))


def _count(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(mask).as_py() or 0)
