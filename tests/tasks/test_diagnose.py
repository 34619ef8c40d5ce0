import json
from pathlib import Path

from datamill import files
from datamill.stage import Metrics
from datamill.training.history import write_history
from tasks.diagnose import STAGE, DiagnoseParams
from tests.datamill.test_diagnosis import THRESHOLDS, TIMES, sound


def run(folder: Path, *, times: dict[str, float] | None = None) -> Metrics:
    write_history(folder / "history.csv", sound())
    if times is not None:
        files.write_json(folder / "times.json", times)
    return STAGE.run(
        history=folder / "history.csv",
        times=folder / "times.json",
        findings=folder / "findings.json",
        report=folder / "diagnosis.md",
        params=DiagnoseParams(thresholds=THRESHOLDS),
    )


def test_findings_are_counted_and_carry_their_evidence(tmp_path: Path) -> None:
    metrics = run(tmp_path, times=TIMES)
    assert metrics["findings"] == {"critical": 0, "warning": 0, "note": 0, "ok": 8}
    assert metrics["evidence"]["underfitting"] == {"train_accuracy": 0.97, "limit": 0.9}
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_durations_reach_the_report_and_neither_findings_nor_metrics(tmp_path: Path) -> None:
    metrics = run(tmp_path, times=TIMES | {"loading_share": 0.9})
    assert metrics["findings"]["note"] == 0
    assert "slow_loading" not in metrics["evidence"]
    assert "slow_loading" not in [one["name"] for one in json.loads((tmp_path / "findings.json").read_text())]
    assert "90% of training time was spent waiting" in (tmp_path / "diagnosis.md").read_text(encoding="utf-8")


def test_missing_durations_change_no_metric(tmp_path: Path) -> None:
    without = run(tmp_path)
    assert "loading was not checked" in (tmp_path / "diagnosis.md").read_text(encoding="utf-8")
    assert run(tmp_path, times=TIMES) == without
