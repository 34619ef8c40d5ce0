"""The stage that says what is wrong with a training run and what to do next."""

from pathlib import Path

from datamill import catalog
from datamill.diagnosis import Thresholds
from datamill.stage import Metrics, Params, Stage


class DiagnoseParams(Params):
    """How strict the checks are."""

    thresholds: Thresholds
    """From where on a number is a finding."""


def diagnose(*, history: Path, times: Path, report: Path, params: DiagnoseParams) -> Metrics:
    """Name what is wrong with the training run, with numbers and a next action.

    Durations are not versioned: where the file is missing, loading is not checked. They reach the report only, never
    the metrics.
    """
    import json

    from datamill.diagnosis import SEVERITIES, diagnose_run
    from datamill.diagnosis.report import render_report
    from datamill.training.history import read_history

    epochs = read_history(history)
    durations = json.loads(times.read_bytes()) if times.exists() else None
    findings = diagnose_run(epochs, times=durations, thresholds=params.thresholds)
    report.write_text(render_report(findings, history=epochs, times=durations), encoding="utf-8")

    lasting = [finding for finding in findings if not finding.is_timing]
    return {
        "findings": {name: sum(finding.severity == name for finding in lasting) for name in SEVERITIES},
        "evidence": {finding.name: finding.evidence for finding in lasting},
    }


STAGE = Stage(
    run=diagnose,
    params=DiagnoseParams,
    inputs={"history": catalog.TRAIN_HISTORY, "times": catalog.TRAIN_TIMES},
    outputs={"report": catalog.DIAGNOSE_REPORT},
)
