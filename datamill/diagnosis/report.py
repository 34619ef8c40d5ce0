"""A diagnosis as Markdown: the verdict first, then what to do, then everything that was looked at."""

from collections.abc import Mapping, Sequence

from datamill.diagnosis import SEVERITIES, Finding
from datamill.training.history import EpochResult, best_epoch

MARKS = {"critical": "✖ critical", "warning": "▲ warning", "note": "● note", "ok": "✔ ok"}


def render_report(
    findings: Sequence[Finding], *, history: Sequence[EpochResult], times: Mapping[str, float] | None
) -> str:
    """The whole report.

    Args:
        findings: Of every check, worst first.
        history: The epochs in order.
        times: Durations of the run; ``None`` when they were not kept.
    """
    sections = ["# Training diagnosis", verdict(findings), *_todo(findings), "## The run", _run(history, times=times)]
    sections += ["## Everything that was checked", _table(findings)]
    if times is None:
        sections.append("Durations were not kept with this run (they are not versioned), so loading was not checked.")
    return "\n\n".join(sections) + "\n"


def tell(findings: Sequence[Finding]) -> list[str]:
    """The report in a few lines of plain text: the verdict, then each finding with what to do."""
    listed = [f"{_title(one)}: {one.summary}. {one.action}" for one in findings if one.severity not in ("ok", "note")]
    return [verdict(findings).replace("**", ""), *listed]


def verdict(findings: Sequence[Finding]) -> str:
    """One sentence."""
    counts = {severity: sum(finding.severity == severity for finding in findings) for severity in SEVERITIES}
    if counts["critical"]:
        return "**The run is broken.** Its network should not be used."
    if counts["warning"]:
        names = ", ".join(_title(finding) for finding in findings if finding.severity == "warning")
        return f"**The run finished, with {_count(counts['warning'], 'warning')}:** {names}."
    if counts["note"]:
        return f"**The run is sound**, with {_count(counts['note'], 'remark')}."
    return "**The run is sound.** Nothing was found in any check."


def _todo(findings: Sequence[Finding]) -> list[str]:
    items = [
        f"- **{_title(finding)}** ({finding.severity}): {finding.summary}. {finding.action}"
        for finding in findings
        if finding.severity != "ok"
    ]
    return ["## What to do next", "\n".join(items)] if items else []


def _run(history: Sequence[EpochResult], *, times: Mapping[str, float] | None) -> str:
    best = history[best_epoch(history) - 1]
    rows = ["| epoch | train loss | validation loss | train accuracy | validation accuracy |", "|---|--:|--:|--:|--:|"]
    for name, result in (("first", history[0]), ("best", best), ("last", history[-1])):
        cells = (result.train_loss, result.validation_loss, result.train_accuracy, result.validation_accuracy)
        rows.append(f"| {name} ({result.epoch}) | {' | '.join(map(_number, cells))} |")
    lines = ["\n".join(rows)]
    if times is not None:
        lines.append(
            f"{times['epochs']:.0f} epochs in {times['seconds']:.1f} s, {times['samples_per_s']:.0f} samples/s; "
            f"a step took {times['step_ms_median']:.1f} ms (median), {times['loading_share']:.0%} of it loading."
        )
    return "\n\n".join(lines)


def _table(findings: Sequence[Finding]) -> str:
    rows = [f"| {MARKS[finding.severity]} | {_title(finding)} | {finding.summary} |" for finding in findings]
    return "\n".join(["| | check | seen |", "|---|---|---|", *rows])


def _title(finding: Finding) -> str:
    return finding.name.replace("_", " ")


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
