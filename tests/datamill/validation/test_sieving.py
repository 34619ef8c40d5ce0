import tempfile
from pathlib import Path
from typing import Any

import great_expectations as gx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.validation import checking
from datamill.validation.checking import WHOLE_ROWS, Report, check
from datamill.validation.profiling import profile_of
from datamill.validation.rules import Rule
from datamill.validation.sieving import holds_throughout, sieve

BETWEEN = "expect_column_values_to_be_between"
IN_SET = "expect_column_values_to_be_in_set"
NOT_NULL = "expect_column_values_to_not_be_null"


def rule(kind: str, **kwargs: Any) -> Rule:
    return Rule(name="rule", type=kind, kwargs=kwargs, severity="warning", claim="")


def frame_of(**columns: list[Any]) -> pd.DataFrame:
    return pd.DataFrame(columns | {"label": ["a"] * len(next(iter(columns.values())))})


def checked(frame: pd.DataFrame, *, rules: list[Rule], rows: int) -> Report:
    """What comes of rules on a frame in blocks of ``rows`` rows."""
    blocks = [frame[start : start + rows].copy() for start in range(0, len(frame), rows)]
    with tempfile.TemporaryDirectory() as folder:
        profile = profile_of(blocks, scratch=Path(folder))
    return check(lambda: blocks, rules=rules, profile=profile)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (rule(BETWEEN, column="x", min_value=1.0), [False, True, True, False]),
        (rule(BETWEEN, column="x", max_value=5, mostly=0.5), [True, True, False, False]),
        (rule(BETWEEN, column="x", min_value=-1e308, max_value=1e308), [True, True, False, False]),
        (rule(IN_SET, column="x", value_set=[2.0, 0]), [True, True, False, False]),
        (rule(NOT_NULL, column="x"), [True, True, True, False]),
        (rule(BETWEEN, column="word", min_value=1), [False, False, False, False]),
        (rule(IN_SET, column="word", value_set=["b", "c"]), [False, True, True, False]),
    ],
)
def test_what_holds_at_a_glance(one: Rule, expected: list[bool]) -> None:
    frame = frame_of(x=[0.0, 2.0, np.inf, np.nan], word=["a", "b", "c", None])
    holds = sieve(frame, rule=one)
    assert holds is not None
    assert holds.tolist() == expected


@pytest.mark.parametrize(
    "one",
    [
        rule(BETWEEN, column="x", min_value=1.0, strict_min=True),
        rule(BETWEEN, column="x", min_value="a"),
        rule(IN_SET, column="x", value_set=[1], row_condition="x > 1"),
        rule("expect_column_values_to_be_null", column="x"),
    ],
)
def test_other_rules_are_left_to_great_expectations(one: Rule) -> None:
    assert sieve(frame_of(x=[1.0]), rule=one) is None


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (rule(BETWEEN, column="x", min_value=1.0, max_value=3.0), True),
        (rule(BETWEEN, column="x", max_value=2.0), False),
        (rule(BETWEEN, column="endless", min_value=0), False),
        (rule(BETWEEN, column="holes", min_value=0), False),
        (rule(NOT_NULL, column="holes"), False),
        (rule(NOT_NULL, column="endless"), True),
        (rule(IN_SET, column="x", value_set=[1.0, 3.0]), False),  # and what is between, nobody knows
        (rule(IN_SET, column="same", value_set=[4.0]), True),
        (rule(IN_SET, column="label", value_set=["a"]), True),
        (rule(BETWEEN, column="class_size", min_value=4), False),
    ],
)
def test_what_a_profile_shows(one: Rule, expected: bool, tmp_path: Path) -> None:
    frame = frame_of(x=[1.0, 2.0, 3.0], endless=[1.0, np.inf, 2.0], holes=[1.0, np.nan, 2.0], same=[4.0, 4.0, 4.0])
    assert holds_throughout(one, profile=profile_of([frame], scratch=tmp_path)) is expected


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 1.0, 2.0, np.nan, np.inf]), st.sampled_from([1, 2, 3]), st.sampled_from("abc")),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 3),
    st.integers(1, 5),
)
@settings(max_examples=15, deadline=None)
def test_rules_come_out_as_great_expectations_alone_has_it(cells: list[Any], bound: int, rows: int) -> None:
    frame = pd.DataFrame(cells, columns=["x", "n", "label"])
    rules = [
        rule(BETWEEN, column="x", min_value=float(bound), max_value=1e308),
        rule(BETWEEN, column="n", max_value=bound),
        rule(IN_SET, column="n", value_set=[bound, 2]),
        rule(IN_SET, column="label", value_set=["a", "b"]),
        rule(NOT_NULL, column="x", mostly=0.5),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checking, "BLOCK_ROWS", 3)
        report = checked(frame, rules=rules, rows=rows)
    source = gx.get_context(mode="ephemeral").data_sources.add_pandas("samples")
    batch = source.add_dataframe_asset("frame").add_batch_definition_whole_dataframe("all")
    own = batch.get_batch({"dataframe": frame}).validate(report.suite, result_format="COMPLETE")
    by_id = {one.expectation_config.id: one for one in own.results}
    for result, finding in zip(report.validated.results, report.findings, strict=True):
        expected = by_id[result.expectation_config.id]
        shown = {key: one for key, one in expected.result.items() if key not in WHOLE_ROWS}
        assert (result.success, repr(result.result)) == (expected.success, repr(shown))
        if not finding.success:
            assert finding.rows.tolist() == sorted(expected.result["unexpected_index_list"])


def test_great_expectations_sees_one_row_of_what_holds_throughout(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        checking._Engine,
        "validate",
        lambda self, frame, asked, own=checking._Engine.validate: seen.append(len(frame)) or own(self, frame, asked),
    )
    report = checked(frame_of(x=[float(row) for row in range(50)]), rules=[rule(NOT_NULL, column="x")], rows=10)
    assert seen == [1]
    assert report.validated.results[0].result["element_count"] == 50
