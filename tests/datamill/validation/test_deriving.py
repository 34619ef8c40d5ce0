from typing import Any

import pytest

from datamill.samples import Dataset
from datamill.validation.deriving import derive_rules
from datamill.validation.profiling import ColumnProfile, Profile
from datamill.validation.rules import Rule
from tests.datamill.validation.limits import make_limits

IMAGES = Dataset(name="pictures", modality="image", classes=("0", "1"))
TABLE = Dataset(name="rows", modality="tabular", classes=("0", "1"))


def number(**facts: Any) -> ColumnProfile:
    usual = {"nulls": 0, "distinct": 5, "bounds": (1.0, 9.0), "quartiles": (2.0, 4.0), "usual": (2.0, 3)}
    return ColumnProfile(type="float64", **(usual | facts))


def table_profile(**columns: ColumnProfile) -> Profile:
    return Profile(num_samples=10, columns=columns, classes={"0": 5, "1": 5})


def image_profile(**usual: tuple[int, int]) -> Profile:
    columns = {name: number(usual=(28, 4)) for name in ("height", "width", "channels")}
    columns |= {name: number() for name in ("size_bytes", "pixel_mean", "pixel_std")}
    columns |= {name: number(usual=value) for name, value in usual.items()}
    return Profile(num_samples=4, columns=columns, classes={"0": 2, "1": 2})


def names(rules: list[Rule], column: str) -> list[str]:
    return [rule.name for rule in rules if column in rule.columns]


def test_a_tables_rules_come_from_its_columns() -> None:
    colour = ColumnProfile(type="string", nulls=0, distinct=3)
    rules = derive_rules(table_profile(height=number(), colour=colour), dataset=TABLE, limits=make_limits())
    assert names(rules, "height") == ["nulls", "constant", "non_finite", "range"]
    assert names(rules, "colour") == ["nulls", "constant", "identifier"]
    assert names(rules, "label") == ["single_class"]
    assert names(rules, "class_size") == ["small_class"]


def test_the_range_reaches_interquartile_ranges_beyond_the_quartiles() -> None:
    rules = derive_rules(table_profile(x=number(quartiles=(2.0, 4.0))), dataset=TABLE, limits=make_limits())
    (fence,) = [rule for rule in rules if rule.name == "range"]
    assert fence.kwargs == {"column": "x", "min_value": -18.0, "max_value": 24.0}


@pytest.mark.parametrize("quartiles", [(1.0, 1.0), None])
def test_a_column_whose_quartiles_agree_or_are_unknown_has_no_range(quartiles: Any) -> None:
    rules = derive_rules(table_profile(x=number(quartiles=quartiles)), dataset=TABLE, limits=make_limits())
    assert "range" not in names(rules, "x")


def test_images_must_be_as_most_are() -> None:
    rules = derive_rules(image_profile(height=(28, 3)), dataset=IMAGES, limits=make_limits())
    (odd,) = [rule for rule in rules if rule.name == "odd_image" and rule.columns == ("height",)]
    assert odd.kwargs["value_set"] == [28]
    assert odd.claim == "28 as in most"


def test_images_of_many_sizes_have_no_usual_one() -> None:
    rules = derive_rules(image_profile(height=(20, 1)), dataset=IMAGES, limits=make_limits())
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
    assert derive_rules(image_profile(), dataset=dataset, limits=limits) == []
