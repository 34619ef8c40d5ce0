"""Checks rules with Great Expectations and says which rows break them."""

import difflib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

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
from great_expectations.validator.validation_statistics import calc_validation_statistics
from numpy.typing import NDArray

from datamill.errors import ParamsError
from datamill.validation.deriving import DISTINCT_SHARE, NUM_DISTINCT
from datamill.validation.merging import ROW_WISE, Merged
from datamill.validation.profiling import Profile
from datamill.validation.properties import BLOCK_ROWS
from datamill.validation.rules import Rule
from datamill.validation.sieving import holds_throughout, sieve

SUITE_NAME = "schema"
ASSET = "properties of the samples"
WHOLE_ROWS = ("unexpected_list", "unexpected_index_list", "unexpected_index_query")  # as long as the data

Read = Callable[[], Iterable[pd.DataFrame]]
"""Starts reading the properties of all samples, block by block."""


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


def check(read: Read, *, rules: Sequence[Rule], profile: Profile) -> Report:
    """Check every rule on every row.

    Rules about single rows are checked block by block, and only on rows of which neither the profile nor a glance
    (``sieving``) shows that they hold; those about the number of different values are checked on the profile. What else
    a user asks for sees the columns that it names as a whole, or all columns if it names none.

    Args:
        read: Starts reading the properties of all samples, block by block, with the number of each row as its index.
        rules: The rules; already accepted by ``check_rules``.
        profile: What the blocks hold together.

    Returns:
        One finding per rule, in order, and Great Expectations' own account in the same order.

    Raises:
        ParamsError: A rule does not fit the type of its column.
    """
    engine = _Engine()
    asked = [_Asked(rule, _expectation(rule, identity=f"rule-{place:04d}")) for place, rule in enumerate(rules)]
    by_row = [one for one in asked if one.rule.type in ROW_WISE and not one.rule.kwargs.get("row_condition")]
    merged = {one.expectation.id: Merged() for one in by_row}
    is_clear = [holds_throughout(one.rule, profile=profile) for one in by_row]
    clear, unclear = (list(itertools.compress(by_row, chosen)) for chosen in (is_clear, np.logical_not(is_clear)))
    first = [(next(iter(read()))[:1], clear, profile.num_samples - 1)] if clear else []
    for frame, some, num_others in itertools.chain(first, _doubtful(read(), unclear) if unclear else ()):
        for one, result in zip(some, engine.validate(frame, some), strict=True):
            merged[one.expectation.id].add(result, num_others=num_others)
    results, findings = [], []
    for one in asked:
        if one.expectation.id in merged:
            result = merged[one.expectation.id].result(mostly=one.rule.kwargs.get("mostly", 1.0))
        else:
            result = _counted(one, profile=profile) or engine.validate_whole(read, one)
        findings.append(_finding(result, rule=one.rule))
        result.result = {key: value for key, value in result.result.items() if key not in WHOLE_ROWS}
        results.append(result)
    suite = gx.ExpectationSuite(name=SUITE_NAME)
    suite.expectations = [one.expectation for one in asked]
    return Report(findings=findings, suite=suite, validated=_account(results))


class _Asked(NamedTuple):
    """A rule, and what it is to Great Expectations."""

    rule: Rule
    expectation: Expectation


def _doubtful(
    frames: Iterable[pd.DataFrame], asked: Sequence[_Asked]
) -> Iterator[tuple[pd.DataFrame, list[_Asked], int]]:
    """Rows that may break some of the rules, these rules, and how many rows they hold for besides; in order.

    Rules that cannot be told at a glance get all rows, block by block. The others get theirs together, the very first
    row among them, whether it is in doubt or not: Great Expectations has to have seen each rule once.
    """
    waiting: list[pd.DataFrame] = []
    told: list[_Asked] = []
    num_waiting = num_others = 0
    for number, frame in enumerate(frames):
        sieved = [(one, sieve(frame, rule=one.rule)) for one in asked]
        if untold := [one for one, holds in sieved if holds is None]:
            yield frame, untold, 0
        told = [one for one, holds in sieved if holds is not None]
        doubtful = ~np.all([np.ones(len(frame), bool), *(holds for _, holds in sieved if holds is not None)], axis=0)
        doubtful[:1] |= number == 0
        waiting.append(frame[doubtful])
        num_waiting, num_others = num_waiting + len(waiting[-1]), num_others + len(frame) - len(waiting[-1])
        if told and num_waiting >= BLOCK_ROWS:
            yield pd.concat(waiting), told, num_others
            waiting, num_waiting, num_others = [], 0, 0
    if told and waiting:
        yield pd.concat(waiting), told, num_others


@final
class _Engine:
    """Great Expectations on data frames."""

    def __init__(self) -> None:
        context = gx.get_context(mode="ephemeral", project_config=_quiet_config())
        source = context.data_sources.add_pandas("samples")
        self._batches = source.add_dataframe_asset(ASSET).add_batch_definition_whole_dataframe("all")

    def validate(self, frame: pd.DataFrame, asked: Sequence[_Asked]) -> list[ExpectationValidationResult]:
        """The result of each rule.

        Raises:
            ParamsError: A rule does not fit the type of its column.
        """
        suite = gx.ExpectationSuite(name=SUITE_NAME)
        suite.expectations = [one.expectation for one in asked]
        validated = self._batches.get_batch({"dataframe": frame}).validate(suite, result_format="COMPLETE")
        by_id = {one.expectation_config.id: one for one in validated.results if one.expectation_config}
        results = [by_id[one.expectation.id] for one in asked]
        for one, result in zip(asked, results, strict=True):
            if failure := _failure(result.exception_info or {}):
                raise ParamsError(
                    f"validate.expectations: {one.rule.type} cannot be checked with {one.rule.kwargs}: {failure}"
                )
        return results

    def validate_whole(self, read: Read, asked: _Asked) -> ExpectationValidationResult:
        """The result of a rule that has to see all rows at once."""
        names = list(dict.fromkeys(asked.rule.columns)) if not asked.rule.kwargs.get("row_condition") else []
        frame = pd.concat(one[names] if names else one for one in read())
        return self.validate(frame, [asked])[0]


def _counted(asked: _Asked, *, profile: Profile) -> ExpectationValidationResult | None:
    """The result of a rule about the number of different values, if it is one."""
    rule = asked.rule
    if rule.type not in (NUM_DISTINCT, DISTINCT_SHARE) or rule.kwargs.get("row_condition"):
        return None
    distinct, num_known = profile.count(rule.columns[0])
    share = distinct / num_known if num_known else 0
    metrics = {"column.distinct_values.count": distinct, "column.unique_proportion": share}
    answer = asked.expectation._validate(metrics)
    return ExpectationValidationResult(**answer, expectation_config=asked.expectation.configuration)


def _account(results: list[ExpectationValidationResult]) -> ExpectationSuiteValidationResult:
    """What Great Expectations says of a suite, without the time."""
    counts = calc_validation_statistics(results)
    return ExpectationSuiteValidationResult(
        success=counts.success,
        results=results,
        suite_name=SUITE_NAME,
        statistics={
            "evaluated_expectations": counts.evaluated_expectations,
            "successful_expectations": counts.successful_expectations,
            "unsuccessful_expectations": counts.unsuccessful_expectations,
            "success_percent": counts.success_percent,
        },
        meta={"batch_spec": {"data_asset_name": ASSET}},
    )


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
