"""Checks rules with Great Expectations and says which rows break them."""

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import great_expectations as gx
import numpy as np
import pandas as pd
from great_expectations.core.expectation_validation_result import (
    ExpectationSuiteValidationResult,
    ExpectationValidationResult,
)
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.exceptions.exceptions import ExpectationNotFoundError
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.expectations.registry import (
    get_expectation_impl,
    list_registered_expectation_implementations,
)
from numpy.typing import NDArray

from datamill.errors import ParamsError
from datamill.validation.rules import Rule

SUITE_NAME = "schema"
ASSET = "properties of the samples"
WHOLE_ROWS = ("unexpected_list", "unexpected_index_list", "unexpected_index_query")  # as long as the data


@dataclass(frozen=True)
class Finding:
    """What became of one rule.

    Attributes:
        rule: The rule.
        success: Whether it holds.
        rows: Rows that break it, ascending; empty where it holds or is about the data set as a whole.
        values: What each of these rows holds, as short text.
        observed: What was observed, where the rule is about the data set as a whole.
    """

    rule: Rule
    success: bool
    rows: NDArray[np.int64]
    values: list[str]
    observed: str


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        findings: One per rule, in order.
        suite: The rules in Great Expectations' form.
        validated: Its own result, without anything that depends on the clock or grows with the number of rows.
    """

    findings: list[Finding]
    suite: gx.ExpectationSuite
    validated: ExpectationSuiteValidationResult


def check_rules(rules: Iterable[Rule], *, columns: Sequence[str]) -> None:
    """Refuse rules that cannot be checked, before any data is read.

    Raises:
        ParamsError: An expectation, an argument or a column does not exist; the message lists near names.
    """
    for rule in rules:
        for column in rule.columns:
            if column not in columns:
                raise ParamsError(
                    f"validate.expectations: {rule.type} names column {column!r}, which does not exist"
                    f"{_near(column, columns)}; the columns are {', '.join(columns)}"
                )
        _expectation(rule, identity="")


def check(frame: pd.DataFrame, *, rules: Sequence[Rule]) -> Report:
    """Check every rule on every row.

    Args:
        frame: One row per sample, with a range index.
        rules: The rules; already accepted by ``check_rules``.

    Returns:
        One finding per rule, in order, and Great Expectations' own account in the same order.

    Raises:
        ParamsError: A rule does not fit the type of its column.
    """
    context = gx.get_context(mode="ephemeral", project_config=_quiet_config())
    source = context.data_sources.add_pandas("samples")
    definition = source.add_dataframe_asset(ASSET).add_batch_definition_whole_dataframe("all")
    suite = gx.ExpectationSuite(name=SUITE_NAME)
    suite.expectations = [_expectation(rule, identity=f"rule-{place:04d}") for place, rule in enumerate(rules)]
    validated = definition.get_batch({"dataframe": frame}).validate(suite, result_format="COMPLETE")
    by_id = {result.expectation_config.id: result for result in validated.results if result.expectation_config}
    results = [by_id[f"rule-{place:04d}"] for place in range(len(rules))]
    findings = [_finding(result, rule=rule) for result, rule in zip(results, rules, strict=True)]
    for result in results:
        result.result = {key: value for key, value in result.result.items() if key not in WHOLE_ROWS}
    validated.results = results
    validated.meta = {"batch_spec": {"data_asset_name": ASSET}}
    return Report(findings=findings, suite=suite, validated=validated)


def _quiet_config() -> DataContextConfig:
    return DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )


def _expectation(rule: Rule, *, identity: str) -> Expectation:
    try:
        kind = get_expectation_impl(rule.type)
    except ExpectationNotFoundError as error:
        known = list_registered_expectation_implementations()
        raise ParamsError(
            f"validate.expectations: there is no expectation {rule.type!r}{_near(rule.type, known)}"
        ) from error
    unknown = [name for name in rule.kwargs if name not in kind.__fields__]
    if unknown:
        near = _near(unknown[0], list(kind.__fields__))
        raise ParamsError(f"validate.expectations: {rule.type} has no argument {unknown[0]!r}{near}")
    try:
        json.dumps(rule.kwargs, allow_nan=False)
        notes = [f"Rule {rule.name}, {rule.severity}"]
        return kind(**rule.kwargs, severity=FailureSeverity(rule.severity), id=identity or None, notes=notes)
    except (ValueError, TypeError) as error:
        raise ParamsError(f"validate.expectations: {rule.type} cannot take {rule.kwargs}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    listed = error.errors() if hasattr(error, "errors") else []
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in listed) or str(error)


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _finding(result: ExpectationValidationResult, *, rule: Rule) -> Finding:
    if failure := _failure(result.exception_info or {}):
        raise ParamsError(f"validate.expectations: {rule.type} cannot be checked with {rule.kwargs}: {failure}")
    rows = [] if result.success else result.result.get("unexpected_index_list") or []
    values = [] if result.success else result.result.get("unexpected_list") or []
    order = np.argsort(np.asarray(rows, np.int64), kind="stable")
    return Finding(
        rule=rule,
        success=bool(result.success),
        rows=np.asarray(rows, np.int64)[order],
        values=[_text(values[place]) for place in order] if len(values) == len(rows) else [""] * len(rows),
        observed=_text(result.result.get("observed_value", "")),
    )


def _failure(info: dict[str, Any]) -> str:
    """First message among what an expectation raised; it nests one record per metric where a metric raised."""
    records = [info] if "raised_exception" in info else [one for one in info.values() if isinstance(one, dict)]
    return next((str(one["exception_message"]) for one in records if one.get("raised_exception")), "")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = repr(value) if isinstance(value, str) and value else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
