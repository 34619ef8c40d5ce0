import tempfile
from pathlib import Path
from typing import Any

import great_expectations as gx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from datamill.errors import ParamsError
from datamill.validation.checking import WHOLE_ROWS, Report, check_rules
from datamill.validation.checking import check as check_blocks
from datamill.validation.docs import write_docs
from datamill.validation.profiling import profile_of
from datamill.validation.rules import Rule, UserExpectation, user_rule

BETWEEN = "expect_column_values_to_be_between"
FRAME = pd.DataFrame({"x": [1.0, 9.0, np.nan, np.inf], "y": [0.0, 10.0, 0.0, 0.0], "label": ["a", "b", "<i>c", "a"]})


def check(frame: pd.DataFrame, *, rules: list[Rule], rows: int = 65_536) -> Report:
    """Check a frame in blocks of ``rows`` rows."""
    blocks = [frame[start : start + rows].copy() for start in range(0, len(frame), rows)]
    with tempfile.TemporaryDirectory() as folder:
        profile = profile_of(blocks, scratch=Path(folder))
    return check_blocks(lambda: blocks, rules=rules, profile=profile)


def asked(kind: str, *, severity: str = "critical", **kwargs: Any) -> Rule:
    return user_rule(UserExpectation.model_validate({"type": kind, "kwargs": kwargs, "severity": severity}))


def test_great_expectations_names_the_rows_that_fail() -> None:
    rules = [
        asked(BETWEEN, column="x", max_value=5.0),
        asked("expect_column_values_to_not_be_null", column="x"),
        asked("expect_column_values_to_be_in_set", column="label", value_set=["a", "b"]),
        asked("expect_column_pair_values_a_to_be_greater_than_b", column_A="x", column_B="y"),
        asked("expect_compound_columns_to_be_unique", column_list=["y", "label"]),
    ]
    findings = check(FRAME, rules=rules).findings
    assert [finding.rows.tolist() for finding in findings] == [[1, 3], [2], [2], [1, 2], [0, 3]]
    assert findings[0].values == ["9", "inf"]
    assert [finding.rule for finding in findings] == rules


def test_a_rule_that_mostly_holds_blames_no_row() -> None:
    (finding,) = check(FRAME, rules=[asked(BETWEEN, column="y", max_value=5.0, mostly=0.7)]).findings
    assert finding.success
    assert len(finding.rows) == 0


def test_a_rule_about_the_whole_data_set_reports_what_was_observed() -> None:
    rule = asked("expect_column_unique_value_count_to_be_between", column="label", min_value=5)
    (finding,) = check(FRAME, rules=[rule]).findings
    assert (finding.success, finding.rows.tolist(), finding.observed) == (False, [], "3")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (asked("expect_column_value_to_be_betwen", column="x"), f"no expectation .* did you mean {BETWEEN}"),
        (
            asked(BETWEEN, column="z", min_value=0),
            "names column 'z', which does not exist; the columns are x, y, label",
        ),
        (asked(BETWEEN, column="lable", min_value=0), "names column 'lable', .* did you mean label?"),
        (asked(BETWEEN, column="x", min_val=0), "has no argument 'min_val'; did you mean min_value"),
        (asked(BETWEEN, column="x"), "min_value and max_value cannot both be None"),
        (asked(BETWEEN, column="x", min_value=float("inf")), "cannot take .*inf"),
    ],
)
def test_a_rule_that_cannot_be_checked_is_refused_before_any_work(rule: Rule, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        check_rules([rule], columns=list(FRAME.columns))


def test_a_rule_that_does_not_fit_the_columns_type_is_refused() -> None:
    with pytest.raises(ParamsError, match=f"{BETWEEN} cannot be checked with .*'label'.*must either be None or of the"):
        check(FRAME, rules=[asked(BETWEEN, column="label", min_value=1)])


RULES = [
    asked(BETWEEN, column="x", max_value=5.0, min_value=-1.0),
    asked(BETWEEN, column="x", max_value=5.0, mostly=0.3),
    asked("expect_column_values_to_not_be_null", column="x", mostly=0.9),
    asked("expect_column_values_to_be_null", column="x"),
    asked("expect_column_values_to_be_in_set", column="label", value_set=["a"]),
    asked("expect_column_value_lengths_to_equal", column="label", value=1),
    asked("expect_column_pair_values_a_to_be_greater_than_b", column_A="x", column_B="y"),
    asked("expect_select_column_values_to_be_unique_within_record", column_list=["x", "y"]),
    asked("expect_compound_columns_to_be_unique", column_list=["y", "label"]),
    asked("expect_column_values_to_be_unique", column="y"),
    asked("expect_column_unique_value_count_to_be_between", column="x", max_value=2),
    asked("expect_column_proportion_of_unique_values_to_be_between", column="y", min_value=0.9),
    asked("expect_column_mean_to_be_between", column="y", max_value=1.0),
    asked("expect_table_row_count_to_equal", value=3),
]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0, 9.0, np.nan, np.inf, -np.inf]),
            st.sampled_from([0.0, 1.0, 5.0]),
            st.sampled_from(["a", "b", "<i>"]),
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 5),
)
@settings(max_examples=10, deadline=None)
def test_blocks_give_what_one_look_at_all_rows_gives(cells: list[Any], rows: int) -> None:
    frame = pd.DataFrame(cells, columns=["x", "y", "label"])
    told = []
    for at_once in (len(frame), rows):
        report = check(frame, rules=RULES, rows=at_once)
        found = [(one.success, one.rows.tolist(), one.values, one.observed) for one in report.findings]
        told.append((found, [one.to_json_dict() for one in report.validated.results], report.validated.statistics))
    assert repr(told[0]) == repr(told[1])


def test_one_block_gives_what_great_expectations_says_itself() -> None:
    source = gx.get_context(mode="ephemeral").data_sources.add_pandas("samples")
    batch = source.add_dataframe_asset("frame").add_batch_definition_whole_dataframe("all")
    suite = gx.ExpectationSuite(name="schema")
    suite.expectations = check(FRAME, rules=RULES, rows=1).suite.expectations
    own = batch.get_batch({"dataframe": FRAME}).validate(suite, result_format="COMPLETE")
    by_id = {one.expectation_config.id: one for one in own.results}
    for result in check(FRAME, rules=RULES, rows=1).validated.results:
        expected = by_id[result.expectation_config.id]
        shown = {key: one for key, one in expected.result.items() if key not in WHOLE_ROWS}
        assert (result.success, repr(result.result)) == (expected.success, repr(shown))


def test_an_unknown_severity_is_refused() -> None:
    with pytest.raises(ValidationError, match="critical"):
        asked(BETWEEN, severity="fatal", column="x", min_value=0)


def test_checking_prints_nothing_and_leaves_no_file_behind(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    check(FRAME, rules=[asked(BETWEEN, column="x", max_value=5.0)])
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_data_docs_need_no_network_no_script_and_escape_what_the_data_says(tmp_path: Path) -> None:
    frame = FRAME.assign(label=["<script>alert(1)</script>", "b", "c", "d"])
    rules = [
        asked("expect_column_values_to_be_in_set", column="label", value_set=["b"]),
        asked("expect_column_distinct_values_to_be_in_set", column="label", value_set=["b"], severity="info"),
        asked(BETWEEN, column="x", max_value=5.0, severity="warning"),
    ]
    write_docs(tmp_path, report=check(frame, rules=rules))
    results, suite = (tmp_path / name for name in ("index.html", "expectations.html"))
    assert sorted(tmp_path.iterdir()) == [suite, results]
    for page in (results.read_text(), suite.read_text()):
        assert "<script" not in page
        assert "http://" not in page
        assert "https://" not in page
        assert "../" not in page
    assert "&lt;script&gt;alert(1)" in results.read_text()
    assert "3 unexpected values found" in results.read_text()
    assert "Rule values_to_be_between, warning" in suite.read_text()
