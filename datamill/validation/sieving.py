"""Tells at a glance for which rows a rule holds, so that Great Expectations need only look at the others.

Only the plainest rules are told here, and only where nothing is missing: whatever may break one is left to Great
Expectations, whose word on it is the only one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datamill.validation.deriving import BETWEEN, IN_SET, NOT_NULL
from datamill.validation.profiling import Profile
from datamill.validation.rules import CLASS_SIZE, LABEL, Rule

Mask = NDArray[np.bool_]
Test = Callable[["pd.Series[Any]", dict[str, Any]], Mask]


def sieve(frame: pd.DataFrame, *, rule: Rule) -> Mask | None:
    """For which rows the rule certainly holds, shape ``(N,)``; ``None`` where that cannot be told."""
    return TESTS[rule.type](frame[rule.kwargs["column"]], rule.kwargs) if _is_plain(rule) else None


def holds_throughout(rule: Rule, *, profile: Profile) -> bool:
    """Whether the profile alone shows that the rule holds for every row."""
    if not _is_plain(rule):
        return False
    name = rule.kwargs["column"]
    if name in (LABEL, CLASS_SIZE):
        values = pd.Series(list(profile.classes if name == LABEL else profile.classes.values()))
        return bool(TESTS[rule.type](values, rule.kwargs).all())
    column = profile.columns[name]
    if column.nulls or rule.type == NOT_NULL:
        return not column.nulls
    if column.bounds is None or column.has_infinite or (rule.type == IN_SET and column.distinct > len(column.bounds)):
        return False
    return bool(TESTS[rule.type](pd.Series(column.bounds), rule.kwargs).all())


def _is_plain(rule: Rule) -> bool:
    """Whether the rule can be told at a glance."""
    arguments = ARGUMENTS.get(rule.type)
    if arguments is None or not set(rule.kwargs) <= {"column", "mostly", *arguments}:
        return False
    given = [rule.kwargs[name] for name in arguments if rule.kwargs.get(name) is not None]
    return all(isinstance(one, list) if rule.type == IN_SET else type(one) in (int, float) for one in given)


def _is_between(values: "pd.Series[Any]", arguments: dict[str, Any]) -> Mask:
    numbers, holds = values.to_numpy(), np.full(len(values), values.dtype.kind in "if")
    if not holds.all():
        return holds
    for name, compare in (("min_value", np.greater_equal), ("max_value", np.less_equal)):
        if arguments.get(name) is not None:
            holds &= compare(numbers, arguments[name])
    return np.asarray(holds & (numbers == numbers), bool)  # nothing equals NaN


def _is_in_set(values: "pd.Series[Any]", arguments: dict[str, Any]) -> Mask:
    return np.asarray(values.isin(arguments.get("value_set") or []) & values.notna(), bool)


def _is_known(values: "pd.Series[Any]", arguments: dict[str, Any]) -> Mask:
    return np.asarray(values.notna(), bool)


TESTS: dict[str, Test] = {BETWEEN: _is_between, IN_SET: _is_in_set, NOT_NULL: _is_known}
ARGUMENTS = {BETWEEN: ("min_value", "max_value"), IN_SET: ("value_set",), NOT_NULL: ()}
