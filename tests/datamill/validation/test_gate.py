import numpy as np
import pytest
from numpy.typing import NDArray

from datamill.errors import StageError
from datamill.fates import Fates
from datamill.validation.checking import Finding
from datamill.validation.gate import check_gate, judge, require_samples, share_bad
from datamill.validation.rules import Rule

NUM_SAMPLES = 10


def sources_of(rows: NDArray[np.int64]) -> list[str]:
    return [f"cat/{row}.png" for row in rows]


def finding(rows: list[int], *, name: str = "small_image", severity: str = "critical", observed: str = "") -> Finding:
    rule = Rule(name, "expect_x", {"column": "height"}, severity, "at least 8 px")  # type: ignore[arg-type]
    return Finding(rule, False, np.array(rows, np.int64), ["4"] * len(rows), observed)


def stop(findings: list[Finding], *, rejects: list[tuple[str, str]] | None = None, accepted: float = 0.1) -> str:
    fates = judge(findings, num_samples=NUM_SAMPLES)
    with pytest.raises(StageError) as caught:
        check_gate(findings, fates=fates, sources=sources_of, rejects=rejects or [], max_bad_share=accepted)
    return str(caught.value)


def test_a_critical_failure_quarantines_a_warning_keeps_and_an_info_says_nothing() -> None:
    findings = [
        finding([3], name="hint", severity="info"),
        finding([1, 2], name="odd_image", severity="warning"),
        finding([0, 1]),
    ]
    fates = judge(findings, num_samples=4)
    columns = {name: column.to_pylist() for name, column in fates.columns(0, 4).items()}
    assert columns["fates"] == ["quarantined", "quarantined", "kept", "kept"]
    assert columns["reasons"] == ["small_image", "small_image", "odd_image", ""]
    assert columns["details"][0] == "height = 4, expected at least 8 px"


def test_the_message_names_rules_counts_and_at_most_five_sources() -> None:
    message = stop([finding([0, 1, 2, 3, 4, 5, 6])], rejects=[("cat/a.png", "truncated"), ("cat/b.png", "truncated")])
    assert "9 of 12 items are bad (75.00%), validate.max_bad_share accepts 10.00%" in message
    assert (
        "7 sample(s), rule small_image (height, expected at least 8 px): "
        "cat/0.png, cat/1.png, cat/2.png, cat/3.png, cat/4.png and 2 more" in message
    )
    assert "2 item(s) rejected by ingest, reason truncated: cat/a.png, cat/b.png" in message
    assert message.endswith("or validate.max_bad_share, in params.yaml.")


def test_a_failure_of_the_whole_data_set_stops_the_run_at_any_share() -> None:
    message = stop([finding([], name="single_class", observed="1")], accepted=1.0)
    assert "1 critical rule(s) about the whole data set failed" in message
    assert "rule single_class (height): expected at least 8 px, observed 1" in message


def test_the_gate_opens_at_exactly_the_accepted_share() -> None:
    findings = [finding([0]), finding(list(range(10)), severity="warning")]
    fates = judge(findings, num_samples=10)
    assert share_bad(fates, rejects=[]) == 0.1
    check_gate(findings, fates=fates, sources=sources_of, rejects=[], max_bad_share=0.1)


def test_a_warning_about_the_whole_data_set_does_not_stop_the_run() -> None:
    check_gate([finding([], severity="warning")], fates=Fates(10), sources=sources_of, rejects=[], max_bad_share=0.0)


def test_many_rules_are_cut_short() -> None:
    message = stop([finding([row % 10], name=f"rule{row}") for row in range(20)])
    assert "and 8 more rules" in message


def test_a_source_of_rejects_only_is_refused_with_their_reasons() -> None:
    with pytest.raises(StageError, match=r"no sample, and 1 items that were rejected\n  1 item.*empty: cat/a.png"):
        require_samples(0, rejects=[("cat/a.png", "empty")])
