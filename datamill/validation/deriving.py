"""The rules that a profile and the limits in the parameters imply."""

from collections.abc import Mapping
from typing import Any

from datamill.samples import Dataset
from datamill.validation.profiling import ColumnProfile, Profile
from datamill.validation.properties import IMAGE_CONTENT, IMAGE_SHAPE
from datamill.validation.rules import CLASS_SIZE, LABEL, ImageLimits, Limits, Rule, Severity

LARGEST = 1e308  # numbers beyond it count as infinite; float64 ends at 1.8e308

BETWEEN = "expect_column_values_to_be_between"
IN_SET = "expect_column_values_to_be_in_set"
NOT_NULL = "expect_column_values_to_not_be_null"
NUM_DISTINCT = "expect_column_unique_value_count_to_be_between"
DISTINCT_SHARE = "expect_column_proportion_of_unique_values_to_be_between"


def derive_rules(profile: Profile, *, dataset: Dataset, limits: Limits) -> list[Rule]:
    """The rules that the limits and the profile imply; rules whose severity is ``off`` are left out."""
    rules = _class_rules(limits)
    if dataset.modality == "image":
        content = {name: profile.columns[name] for name in IMAGE_CONTENT}
        return rules + _image_rules(profile, limits=limits.image) + _range_rules(content, limits=limits)
    return rules + _table_rules(profile.columns, limits=limits) + _range_rules(profile.columns, limits=limits)


def _class_rules(limits: Limits) -> list[Rule]:
    rules = []
    if (severity := limits.classes.severity) != "off":
        rules.append(_rule("single_class", NUM_DISTINCT, LABEL, severity, "at least 2 classes", min_value=2))
        if (allowed := limits.classes.allowed) is not None:
            rules.append(
                _rule("unknown_class", IN_SET, LABEL, severity, f"one of {', '.join(allowed)}", value_set=allowed)
            )
    if (severity := limits.class_size.severity) != "off":
        least = limits.class_size.min_samples
        rules.append(_rule("small_class", BETWEEN, CLASS_SIZE, severity, f"at least {least}", min_value=least))
    return rules


def _image_rules(profile: Profile, *, limits: ImageLimits) -> list[Rule]:
    rules = []
    if limits.severity != "off":
        for column, least in (("height", limits.min_height), ("width", limits.min_width)):
            rules.append(
                _rule("small_image", BETWEEN, column, limits.severity, f"at least {least} px", min_value=least)
            )
    if limits.odd_severity != "off":
        for column in IMAGE_SHAPE:
            usual, count = profile.columns[column].usual or (0, 0)
            if count / profile.num_samples >= limits.usual_share:
                rules.append(
                    _rule("odd_image", IN_SET, column, limits.odd_severity, f"{usual} as in most", value_set=[usual])
                )
    return rules


def _table_rules(columns: Mapping[str, ColumnProfile], *, limits: Limits) -> list[Rule]:
    rules = []
    for column, facts in columns.items():
        if limits.nulls.severity != "off" and limits.nulls.max_share < 1:
            share = limits.nulls.max_share
            claim = f"at most {share:.4g} of the column missing"
            rules.append(_rule("nulls", NOT_NULL, column, limits.nulls.severity, claim, mostly=1 - share))
        if limits.constant != "off":
            rules.append(_rule("constant", NUM_DISTINCT, column, limits.constant, "at least 2 values", min_value=2))
        if facts.is_number and limits.non_finite != "off":
            bounds = {"min_value": -LARGEST, "max_value": LARGEST}
            rules.append(_rule("non_finite", BETWEEN, column, limits.non_finite, "a finite number", **bounds))
        if not facts.is_number and limits.identifier.severity != "off":
            most = limits.identifier.max_unique_share
            claim = f"at most {most:.4g} distinct values per value"
            rules.append(_rule("identifier", DISTINCT_SHARE, column, limits.identifier.severity, claim, max_value=most))
    return rules


def _range_rules(columns: Mapping[str, ColumnProfile], *, limits: Limits) -> list[Rule]:
    """Tukey's fences around every numeric column whose quartiles differ.

    Source: J. W. Tukey, "Exploratory Data Analysis", 1977.
    """
    if limits.range.severity == "off":
        return []
    rules = []
    for name, facts in columns.items():
        lower, upper = facts.quartiles or (0.0, 0.0)
        reach = limits.range.max_iqr * (upper - lower)
        if 0 < reach < LARGEST:
            low, high = lower - reach, upper + reach
            claim = f"{low:.6g} to {high:.6g}, {limits.range.max_iqr:g} interquartile ranges beyond the quartiles"
            rules.append(_rule("range", BETWEEN, name, limits.range.severity, claim, min_value=low, max_value=high))
    return rules


def _rule(name: str, kind: str, column: str, severity: Severity, claim: str, **kwargs: Any) -> Rule:
    return Rule(name=name, type=kind, kwargs={"column": column, **kwargs}, severity=severity, claim=claim)
