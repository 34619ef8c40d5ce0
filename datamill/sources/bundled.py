"""Small real data sets that come with scikit-learn."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from sklearn import datasets
from sklearn.utils import Bunch

from datamill import samples
from datamill.hashes import digits, hash_each
from datamill.modalities import image
from datamill.samples import Dataset, Feature
from datamill.sources.batches import Batch, Reading, sample_table
from datamill.sources.columns import hash_rows
from datamill.sources.params import BundledSource

DIGITS_MAX = 16  # brightest value of scikit-learn's digits


def read(source: BundledSource) -> Reading:
    """The bundled data set; a sample's source key is the set's name and the row, ``digits#12``."""
    bunch = getattr(datasets, f"load_{source.name}")()
    labels = [str(bunch.target_names[number]) for number in bunch.target]
    is_image = source.name == "digits"
    dataset = Dataset(
        name=source.name,
        modality="image" if is_image else "tabular",
        classes=samples.sort_classes(labels),
        features=() if is_image else tuple(Feature(name=str(name), kind="number") for name in bunch.feature_names),
    )
    payload, contents = _images(bunch) if is_image else _rows(bunch, dataset=dataset)
    table = sample_table(
        dataset=dataset,
        sources=[f"{source.name}#{row}" for row in range(len(labels))],
        contents=contents,
        labels=labels,
        payload=payload,
    )
    return Reading(dataset=dataset, num_items=len(bunch.target), batches=_once(table))


def _images(bunch: Bunch) -> tuple[dict[str, pa.Array], pa.Array]:
    pixels = np.rint(bunch.images * (255 / DIGITS_MAX)).astype(np.uint8)
    column = image.payload(list(pixels[..., None]))
    return {"image": column}, digits(hash_each(column.field("bytes")))


def _rows(bunch: Bunch, *, dataset: Dataset) -> tuple[dict[str, pa.Array], pa.Array]:
    columns = {
        feature.column: pa.array(bunch.data[:, number], pa.float64()) for number, feature in enumerate(dataset.features)
    }
    return columns, hash_rows(columns)


def _once(table: pa.Table) -> Iterator[Batch]:
    yield Batch(table)
