"""What the model saw of the samples of a window, in files of a unit each, so that memory does not hold it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, final

import pyarrow as pa

from datamill.drift.observations import Observations
from datamill.monitoring.observing import Observed, WatchedModel, as_labels, as_targets, as_times, lists, matrix
from datamill.monitoring.reference import Reference
from datamill.samples import FEATURE_PREFIX

EMBEDDING, PROBABILITY, PREDICTION = "embedding", "probability", "prediction"
ROW_COLUMNS = ("sample_id", "source", "label", "time", "content_hash")


@final
class Segment:
    """Rows of one unit in a file of their own, made when the first come."""

    def __init__(self, path: Path) -> None:
        """Write to ``path``."""
        self._path = path
        self._sink: Any = None
        self._writer: Any = None

    def write(self, samples: pa.Table, observed: Observed) -> None:
        """Append samples as the model met them."""
        table = _row_table(samples, observed)
        if self._writer is None:
            self._sink = pa.OSFile(str(self._path), "wb")
            self._writer = pa.ipc.new_file(self._sink, table.schema)
        self._writer.write_table(table)

    def __enter__(self) -> Self:
        """Start writing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
            self._sink.close()


def read_segments(paths: Sequence[Path], *, reference: Reference) -> pa.Table:
    """The rows of segments, in memory only as far as they are looked at."""
    mapped = (pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in paths)
    return pa.concat_tables([_empty(reference), *mapped])


def as_observations(table: pa.Table, *, model: WatchedModel) -> Observations:
    """Rows of segments as drift is judged on."""
    names = [name for name in table.column_names if name.startswith(FEATURE_PREFIX)]
    shared = Observations(
        sample_ids=tuple(table["sample_id"].to_pylist()),
        features=table.select(names).rename_columns([name.removeprefix(FEATURE_PREFIX) for name in names]),
        embeddings=matrix(table[EMBEDDING]),
        times=as_times(table["time"]),
    )
    if model.reference.is_regression:
        return replace(shared, predictions=table[PREDICTION].to_numpy(), targets=as_targets(table["label"]))
    classes = model.dataset.classes
    labels = as_labels(table["label"], classes=classes)
    return replace(shared, classes=classes, probabilities=matrix(table[PROBABILITY]), labels=labels)


def _row_table(samples: pa.Table, observed: Observed) -> pa.Table:
    columns = {name: samples[name] for name in ROW_COLUMNS}
    columns |= {FEATURE_PREFIX + name: column for name, column in _columns(observed.features)}
    columns[EMBEDDING] = lists(observed.embeddings)
    if observed.predictions is None:
        columns[PROBABILITY] = lists(observed.probabilities)
    else:
        columns[PREDICTION] = pa.array(observed.predictions)
    return pa.table(columns)


def _empty(reference: Reference) -> pa.Table:
    """No row, with the columns that rows would have."""
    traits = {FEATURE_PREFIX + name: column for name, column in _columns(reference.features.slice(0, 0))}
    types = {EMBEDDING: pa.list_(pa.float32(), reference.embeddings.shape[1])}
    if reference.is_regression:
        types[PREDICTION] = pa.float64()
    else:
        types[PROBABILITY] = pa.list_(pa.float32(), reference.probabilities.shape[1])
    return pa.table(
        {
            **{name: pa.array([], pa.string()) for name in ("sample_id", "source", "label")},
            "time": pa.array([], pa.timestamp("us", tz="UTC")),
            "content_hash": pa.array([], pa.string()),
            **traits,
            **{name: pa.array([], kind) for name, kind in types.items()},
        }
    )


def _columns(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    return zip(table.column_names, table.columns, strict=True)
