"""Reads the light properties of all samples, and derives from them the schema and the rules it implies."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from datamill import parts
from datamill.samples import FEATURE_PREFIX, Dataset
from datamill.validation.rules import CLASS_SIZE, LABEL, ImageLimits, Limits, Rule, Severity

LARGEST = 1e308  # numbers beyond it count as infinite; float64 ends at 1.8e308
IMAGE_SHAPE = ("height", "width", "channels")
IMAGE_CONTENT = ("size_bytes", "pixel_mean", "pixel_std")

BETWEEN = "expect_column_values_to_be_between"
IN_SET = "expect_column_values_to_be_in_set"
NOT_NULL = "expect_column_values_to_not_be_null"
NUM_DISTINCT = "expect_column_unique_value_count_to_be_between"
DISTINCT_SHARE = "expect_column_proportion_of_unique_values_to_be_between"


def read_properties(samples: Path, *, features: Path) -> pd.DataFrame:
    """The properties of all samples, as ``frame_of`` arranges them.

    Args:
        samples: The parts; a table's columns are its properties.
        features: What extract found; it holds the properties of images.
    """
    dataset = parts.read_manifest(samples).dataset
    labels = parts.read_table(samples, columns=["label"])["label"]
    if dataset.modality == "image":
        names = [*IMAGE_SHAPE, *IMAGE_CONTENT]
        table = pa.concat_tables(parts.iter_tables(features, columns=names))
        wide = pa.schema(
            [(name, pa.int64() if pa.types.is_integer(table[name].type) else pa.float64()) for name in names]
        )
        return frame_of(table.cast(wide), labels=labels)
    columns = [feature.column for feature in dataset.features]
    table = parts.read_table(samples, columns=columns)
    return frame_of(table.rename_columns([feature.name for feature in dataset.features]), labels=labels)


def frame_of(properties: pa.Table, *, labels: pa.ChunkedArray) -> pd.DataFrame:
    """One row per sample: its properties, ``label``, and ``class_size`` (samples with that label).

    A feature that is itself called ``label`` or ``class_size`` appears as ``feature:label`` or ``feature:class_size``.
    """
    ours = {name: FEATURE_PREFIX + name for name in (LABEL, CLASS_SIZE)}
    frame: pd.DataFrame = properties.rename_columns(
        [ours.get(name, name) for name in properties.column_names]
    ).to_pandas(split_blocks=True, self_destruct=True)
    encoded = labels.dictionary_encode().combine_chunks()
    codes = encoded.indices.to_numpy()
    frame[LABEL] = np.asarray(encoded.dictionary.to_pylist(), object)[codes]  # one text per class, not per sample
    frame[CLASS_SIZE] = np.bincount(codes)[codes]
    return frame


def profile(frame: pd.DataFrame) -> dict[str, Any]:
    """What the columns hold: type, missing and distinct values, range of the finite numbers; and the class sizes."""
    columns = {}
    for name, values in frame.drop(columns=[LABEL, CLASS_SIZE]).items():
        is_number = pd.api.types.is_numeric_dtype(values)
        facts: dict[str, Any] = {
            "type": str(values.dtype) if is_number else "string",
            "nulls": int(values.isna().sum()),
            "distinct": int(values.nunique()),
        }
        if is_number and len(finite := values[np.isfinite(values)]):
            facts |= {"min": finite.min().item(), "max": finite.max().item()}
        columns[str(name)] = facts
    sizes = frame[LABEL].value_counts().sort_index()
    return {"num_samples": len(frame), "columns": columns, "classes": {str(k): int(n) for k, n in sizes.items()}}


def derive_rules(frame: pd.DataFrame, *, dataset: Dataset, limits: Limits) -> list[Rule]:
    """The rules that the limits and the profile imply; rules whose severity is ``off`` are left out."""
    rules = _class_rules(limits)
    if dataset.modality == "image":
        return rules + _image_rules(frame, limits=limits.image) + _range_rules(frame[[*IMAGE_CONTENT]], limits=limits)
    features = frame.drop(columns=[LABEL, CLASS_SIZE])
    return rules + _table_rules(features, limits=limits) + _range_rules(features, limits=limits)


def _class_rules(limits: Limits) -> list[Rule]:
    rules = []
    if (severity := limits.classes.severity) != "off":
        rules.append(_rule("single_class", NUM_DISTINCT, LABEL, severity, "at least 2 classes", min_value=2))
        if (allowed := limits.classes.allowed) is not None:
            rules.append(_rule("unknown_class", IN_SET, LABEL, severity, f"one of {allowed}", value_set=allowed))
    if (severity := limits.class_size.severity) != "off":
        least = limits.class_size.min_samples
        rules.append(_rule("small_class", BETWEEN, CLASS_SIZE, severity, f"at least {least}", min_value=least))
    return rules


def _image_rules(frame: pd.DataFrame, *, limits: ImageLimits) -> list[Rule]:
    rules = []
    if limits.severity != "off":
        for column, least in (("height", limits.min_height), ("width", limits.min_width)):
            rules.append(
                _rule("small_image", BETWEEN, column, limits.severity, f"at least {least} px", min_value=least)
            )
    if limits.odd_severity != "off":
        for column in IMAGE_SHAPE:
            counts = frame[column].value_counts().sort_index()
            usual, share = int(counts.index.to_numpy()[counts.argmax()]), counts.max() / len(frame)
            if share >= limits.usual_share:
                rules.append(
                    _rule("odd_image", IN_SET, column, limits.odd_severity, f"{usual} as in most", value_set=[usual])
                )
    return rules


def _table_rules(features: pd.DataFrame, *, limits: Limits) -> list[Rule]:
    rules = []
    for name, values in features.items():
        column, is_number = str(name), pd.api.types.is_numeric_dtype(values)
        if limits.nulls.severity != "off" and limits.nulls.max_share < 1:
            share = limits.nulls.max_share
            claim = f"at most {share:.4g} of the column missing"
            rules.append(_rule("nulls", NOT_NULL, column, limits.nulls.severity, claim, mostly=1 - share))
        if limits.constant != "off":
            rules.append(_rule("constant", NUM_DISTINCT, column, limits.constant, "at least 2 values", min_value=2))
        if is_number and limits.non_finite != "off":
            bounds = {"min_value": -LARGEST, "max_value": LARGEST}
            rules.append(_rule("non_finite", BETWEEN, column, limits.non_finite, "a finite number", **bounds))
        if not is_number and limits.identifier.severity != "off":
            most = limits.identifier.max_unique_share
            claim = f"at most {most:.4g} distinct values per value"
            rules.append(_rule("identifier", DISTINCT_SHARE, column, limits.identifier.severity, claim, max_value=most))
    return rules


def _range_rules(frame: pd.DataFrame, *, limits: Limits) -> list[Rule]:
    """Tukey's fences around every numeric column whose quartiles differ.

    Source: J. W. Tukey, "Exploratory Data Analysis", 1977.
    """
    if limits.range.severity == "off":
        return []
    rules = []
    for name, values in frame.select_dtypes("number").items():
        finite = values[np.isfinite(values)]
        lower, upper = np.quantile(finite, [0.25, 0.75]) if len(finite) else (0.0, 0.0)
        reach = limits.range.max_iqr * (upper - lower)
        if 0 < reach < LARGEST:
            low, high = float(lower - reach), float(upper + reach)
            claim = f"{low:.6g} to {high:.6g}, {limits.range.max_iqr:g} interquartile ranges beyond the quartiles"
            rules.append(
                _rule("range", BETWEEN, str(name), limits.range.severity, claim, min_value=low, max_value=high)
            )
    return rules


def _rule(name: str, kind: str, column: str, severity: Severity, claim: str, **kwargs: Any) -> Rule:
    return Rule(name=name, type=kind, kwargs={"column": column, **kwargs}, severity=severity, claim=claim)
