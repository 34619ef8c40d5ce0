"""The light features of samples that drift is judged on and people can read."""

import pyarrow as pa

from datamill.modalities import modality_of
from datamill.samples import Dataset

IMAGE_TRAITS = {  # what drift calls an image's properties
    "height": "height",
    "width": "width",
    "channels": "channels",
    "pixel_mean": "brightness",
    "pixel_std": "contrast",
}


def read_traits(table: pa.Table, *, dataset: Dataset) -> pa.Table:
    """Light features of samples, one row each: a table's own columns, or properties of images as numbers.

    Args:
        table: Samples with their payload.
        dataset: Their data set.

    Returns:
        Columns of type ``float64`` (numbers) or ``string`` (categories); null where a value is missing.
    """
    properties = modality_of(dataset).properties(table, dataset=dataset)
    if dataset.modality != "image":
        return properties
    named = {trait: properties[name].cast(pa.float64()) for name, trait in IMAGE_TRAITS.items()}
    return pa.table(named)
