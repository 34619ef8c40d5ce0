"""The light properties of samples as data frames, block by block: what expectations are about."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from datamill import parts
from datamill.samples import FEATURE_PREFIX, Dataset
from datamill.validation.rules import CLASS_SIZE, LABEL

BLOCK_ROWS, BLOCK_VALUES = 65_536, 2**20  # of the samples looked at together; bound memory, not results
IMAGE_SHAPE = ("height", "width", "channels")
IMAGE_CONTENT = ("size_bytes", "pixel_mean", "pixel_std")


def names_of(dataset: Dataset) -> list[str]:
    """Names of the properties; a feature called ``label`` or ``class_size`` appears as ``feature:<its name>``."""
    if dataset.modality == "image":
        return [*IMAGE_SHAPE, *IMAGE_CONTENT]
    ours = {name: FEATURE_PREFIX + name for name in (LABEL, CLASS_SIZE)}
    return [ours.get(feature.name, feature.name) for feature in dataset.features]


def iter_properties(samples: Path, *, features: Path) -> Iterator[pd.DataFrame]:
    """The properties and the ``label`` of all samples, some at a time, with the number of each row as its index.

    Args:
        samples: The parts; a table's columns are its properties.
        features: What extract found; it holds the properties of images.
    """
    dataset = parts.read_manifest(samples).dataset
    is_image = dataset.modality == "image"
    names = names_of(dataset)
    columns = names if is_image else [feature.column for feature in dataset.features]
    rows = min(BLOCK_ROWS, max(parts.READ_ROWS, BLOCK_VALUES // len(names)))
    tables = parts.iter_blocks(features if is_image else samples, columns=columns, rows=rows)
    labels = parts.iter_blocks(samples, columns=["label"], rows=rows)
    start = 0
    for table, beside in zip(tables, labels, strict=True):
        yield frame_of(table.rename_columns(names), labels=beside["label"], start=start)
        start += table.num_rows


def frame_of(properties: pa.Table, *, labels: pa.ChunkedArray, start: int = 0) -> pd.DataFrame:
    """One row per sample, numbered from ``start``: its properties and its ``label``."""
    wide = pa.schema([(one.name, _wide(one.type)) for one in properties.schema])
    frame: pd.DataFrame = properties.cast(wide).to_pandas()
    frame[LABEL] = labels.to_pandas()
    frame.index = pd.RangeIndex(start, start + len(frame))
    return frame


def with_class_sizes(frames: Iterable[pd.DataFrame], *, classes: Mapping[str, int]) -> Iterator[pd.DataFrame]:
    """The frames with a column ``class_size``: how many samples share the sample's label, by ``classes``."""
    for frame in frames:
        frame[CLASS_SIZE] = frame[LABEL].map(dict(classes)).astype(np.int64)
        yield frame


def _wide(kind: pa.DataType) -> pa.DataType:
    """The type in which numbers of this type are told, whatever a part keeps them as."""
    return pa.int64() if pa.types.is_integer(kind) else pa.float64() if pa.types.is_floating(kind) else kind
