"""The stage that says what is wrong with a training run and what to do next."""

from pathlib import Path

from datamill import catalog
from datamill.diagnosis import Thresholds
from datamill.stage import Metrics, Params, Stage


class DiagnoseParams(Params):
    """How strict the checks are."""

    thresholds: Thresholds
    """From where on a number is a finding."""


def diagnose(*, history: Path, times: Path, findings: Path, report: Path, params: DiagnoseParams) -> Metrics:
    """Name what is wrong with the training run, with numbers and a next action.

    Durations are not versioned: where the file is missing, loading is not checked. They reach the report only, never
    findings or metrics.
    """
    import dataclasses
    import json

    from datamill import files
    from datamill.diagnosis import SEVERITIES, diagnose_run
    from datamill.diagnosis.report import render_report, tell
    from datamill.training.history import read_history

    epochs = read_history(history)
    durations = json.loads(times.read_bytes()) if times.exists() else None
    seen = diagnose_run(epochs, times=durations, thresholds=params.thresholds)
    lasting = [finding for finding in seen if not finding.is_timing]
    files.write_json(findings, [dataclasses.asdict(finding) for finding in lasting])
    print("\n".join(f"diagnose: {line}" for line in tell(seen)), flush=True)
    report.write_text(render_report(seen, history=epochs, times=durations), encoding="utf-8")
    return {
        "findings": {name: sum(finding.severity == name for finding in lasting) for name in SEVERITIES},
        "evidence": {finding.name: finding.evidence for finding in lasting},
    }


STAGE = Stage(
    run=diagnose,
    params=DiagnoseParams,
    inputs={"history": catalog.TRAIN_HISTORY, "times": catalog.TRAIN_TIMES},
    outputs={"findings": catalog.DIAGNOSE_FINDINGS, "report": catalog.DIAGNOSE_REPORT},
)
