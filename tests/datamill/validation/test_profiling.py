import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from datamill.modalities import modality_of
from datamill.samples import Dataset, Feature
from datamill.validation.profiling import derive_rules, frame_of, profile
from datamill.validation.rules import Rule
from tests.builders import image_table, tabular_table
from tests.datamill.validation.limits import make_limits

IMAGES = Dataset(name="pictures", modality="image", classes=("0", "1"))
TABLE = Dataset(name="rows", modality="tabular", classes=("0", "1"))


def image_frame(**columns: list[float]) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    usual = {"height": 28, "width": 28, "channels": 1, "size_bytes": 300, "pixel_mean": 9.0, "pixel_std": 1.0}
    return pd.DataFrame({name: [value] * count for name, value in usual.items()} | columns | {"label": ["0"] * count})


def properties_of(table: pa.Table, *, dataset: Dataset) -> pd.DataFrame:
    """The properties of samples that are in memory."""
    return frame_of(modality_of(dataset).properties(table, dataset=dataset), labels=table["label"])


def names(rules: list[Rule], column: str) -> list[str]:
    return [rule.name for rule in rules if column in rule.columns]


def test_properties_carry_the_label_and_the_size_of_its_class() -> None:
    dataset, table = image_table(num_samples=7)
    frame = properties_of(table, dataset=dataset)
    assert frame["class_size"].tolist() == [3, 2, 2, 3, 2, 2, 3]
    assert frame["height"].tolist() == [8] * 7
    assert frame.index.tolist() == list(range(7))


def test_a_feature_named_like_a_column_of_ours_is_told_apart() -> None:
    dataset = Dataset(name="rows", modality="tabular", classes=("0",), features=(Feature(name="label", kind="number"),))
    table = pa.table({"feature:label": [1.5, 2.5], "label": ["0", "0"]})
    frame = properties_of(table, dataset=dataset)
    assert frame["feature:label"].tolist() == [1.5, 2.5]
    assert frame["label"].tolist() == ["0", "0"]


def test_the_profile_says_types_ranges_holes_and_classes() -> None:
    dataset, table = tabular_table(num_samples=10)
    found = profile(properties_of(table, dataset=dataset))
    assert found["num_samples"] == 10
    assert found["classes"] == {"0": 4, "1": 3, "2": 3}
    assert found["columns"]["colour"] == {"type": "string", "nulls": 0, "distinct": 3}
    assert found["columns"]["noise"]["nulls"] == 1
    assert found["columns"]["height"]["min"] < 1 < 7 < found["columns"]["height"]["max"]


def test_a_column_without_a_finite_value_has_no_range() -> None:
    found = profile(pd.DataFrame({"x": [np.inf, np.nan], "label": ["0", "1"], "class_size": [1, 1]}))
    assert found["columns"]["x"] == {"type": "float64", "nulls": 1, "distinct": 1}


def test_a_tables_rules_come_from_its_columns() -> None:
    dataset, table = tabular_table()
    rules = derive_rules(properties_of(table, dataset=dataset), dataset=dataset, limits=make_limits())
    assert names(rules, "height") == ["nulls", "constant", "non_finite", "range"]
    assert names(rules, "colour") == ["nulls", "constant", "identifier"]
    assert names(rules, "label") == ["single_class"]
    assert names(rules, "class_size") == ["small_class"]


def test_the_range_reaches_interquartile_ranges_beyond_the_quartiles() -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0, 5.0, np.inf], "label": ["0"] * 6, "class_size": [6] * 6})
    rules = derive_rules(frame, dataset=TABLE, limits=make_limits())
    (fence,) = [rule for rule in rules if rule.name == "range"]
    assert fence.kwargs == {"column": "x", "min_value": -18.0, "max_value": 24.0}


def test_a_column_whose_quartiles_agree_has_no_range() -> None:
    frame = pd.DataFrame({"x": [1.0] * 9 + [7.0], "label": ["0"] * 10, "class_size": [10] * 10})
    assert "range" not in names(derive_rules(frame, dataset=TABLE, limits=make_limits()), "x")


def test_images_must_be_as_most_are() -> None:
    frame = image_frame(height=[28, 28, 28, 30])
    rules = derive_rules(frame, dataset=IMAGES, limits=make_limits())
    (odd,) = [rule for rule in rules if rule.name == "odd_image" and rule.columns == ("height",)]
    assert odd.kwargs["value_set"] == [28]
    assert odd.claim == "28 as in most"


def test_images_of_many_sizes_have_no_usual_one() -> None:
    frame = image_frame(height=[20, 24, 28, 30])
    rules = derive_rules(frame, dataset=IMAGES, limits=make_limits())
    assert names(rules, "height") == ["small_image"]


@pytest.mark.parametrize("dataset", [IMAGES, TABLE])
def test_no_rule_is_left_when_all_are_off(dataset: Dataset) -> None:
    limits = make_limits(
        classes={"severity": "off", "allowed": ["0"]},
        class_size={"severity": "off", "min_samples": 10},
        nulls={"severity": "off", "max_share": 0.5},
        non_finite="off",
        constant="off",
        range={"severity": "off", "max_iqr": 10.0},
        identifier={"severity": "off", "max_unique_share": 0.9},
        image={"severity": "off", "min_height": 8, "min_width": 8, "odd_severity": "off", "usual_share": 0.5},
    )
    frame = image_frame(height=[28.0, 29.0]).assign(class_size=2)
    assert derive_rules(frame, dataset=dataset, limits=limits) == []
