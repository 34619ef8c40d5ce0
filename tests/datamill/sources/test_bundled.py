"""Data sets that come with scikit-learn."""

import numpy as np
import pytest

from datamill.modalities import image
from tests.datamill.sources.drain import drain


def test_digits_are_grey_images_scaled_to_eight_bits() -> None:
    dataset, table, rejects = drain({"kind": "bundled", "name": "digits"})
    assert (table.num_rows, dataset.classes, rejects) == (1797, tuple("0123456789"), [])
    assert table["source"][12].as_py() == "digits#12"
    pixels = image.decode(table["image"][0].as_py()["bytes"])
    assert pixels.shape == (8, 8, 1)
    assert np.array_equal(pixels[0, :, 0], [0, 0, 80, 207, 143, 16, 0, 0])  # 0 0 5 13 9 1 0 0 of 16


@pytest.mark.parametrize(
    ("name", "num_rows", "num_features", "classes"),
    [
        ("breast_cancer", 569, 30, ("benign", "malignant")),
        ("wine", 178, 13, ("class_0", "class_1", "class_2")),
        ("iris", 150, 4, ("setosa", "versicolor", "virginica")),
    ],
)
def test_bundled_tables_have_named_numeric_features(
    name: str, num_rows: int, num_features: int, classes: tuple[str, ...]
) -> None:
    dataset, table, _ = drain({"kind": "bundled", "name": name})
    assert (table.num_rows, len(dataset.features), dataset.classes) == (num_rows, num_features, classes)
    assert {feature.kind for feature in dataset.features} == {"number"}
    assert len(set(table["sample_id"].to_pylist())) == num_rows
