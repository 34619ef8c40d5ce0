"""The monitoring flow, the command, and what MLflow and those who are alerted hear of a window."""

import io
import json
import os
import shutil
import subprocess
import sys

import mlflow
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from datamill import config
from datamill.alerts.store import Store
from datamill.drift import Estimate, Verdict
from datamill.monitoring.labelling import News
from datamill.monitoring.verdicts import Judged
from datamill.monitoring.watching import Pass, track, untold
from datamill.settings import STATE, Settings
from flows import monitoring
from flows.cli import app
from flows.monitoring import summarise
from flows.showing import show_pass
from tests.watched import NOON, change_watch, drop_images, look, make_workspace, sources_of

LOG = {"log": {"kind": "jsonl", "sends": "all", "digest": True, "path": ".datamill/watch/alerts.jsonl"}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return make_workspace(tmp_path_factory.mktemp("trained"), modality="image")


@pytest.fixture
def root(trained, tmp_path):
    root = shutil.copytree(trained, tmp_path / "flowers")
    change_watch(root, source__settle_s=0, alerts__channels=LOG, retrain__is_enabled=False)
    return root


@pytest.fixture
def tell(monkeypatch):
    """``_tell`` without Prefect: artifacts are collected, nothing is logged."""
    artifacts = []

    class Quiet:
        def info(self, *_):
            pass

    monkeypatch.setattr(monitoring, "create_markdown_artifact", lambda **told: artifacts.append(told))
    monkeypatch.setattr(monitoring, "get_run_logger", Quiet)
    monkeypatch.setenv("DATAMILL_TRACKING", "off")

    def act(root, judged):
        monitoring._tell(root, judged)
        return artifacts

    return act


def judged_at_risk(**changes):
    estimate = Estimate("accuracy", 0.94, 0.81, 0.78, 0.84, is_measured=False, is_at_risk=True)
    verdict = Verdict(num_samples=100, num_reference=500, outcomes=(), performance=estimate, notes=("a note",))
    given = {"window": "000003", "number": 3, "judged_at": NOON, "model": "m", "source": "incoming"}
    return Judged(**(given | changes), verdict=verdict)


def test_a_window_is_announced_once_even_if_it_is_told_twice(root, tell):
    (root / "incoming" / "a").mkdir()
    for number in range(6):
        (root / "incoming" / f"bad{number}.png").write_bytes(b"no image")
    look(root)
    look(root, minutes=1)
    (judged,) = untold(root)
    assert judged.verdict.is_drift
    tell(root, judged)
    assert untold(root) == []
    artifacts = tell(root, judged)  # as after a kill before it was marked
    assert len(Store(root).windows_since(None)) == 1
    lines = (root / ".datamill/watch/alerts.jsonl").read_text().splitlines()
    assert [json.loads(line)["topic"] for line in lines] == ["quality/reject_share"]
    assert artifacts[0]["key"] == "datamill-watch"
    assert "| quality |  | reject_share | share 1 |" in artifacts[0]["markdown"]


def test_the_artifact_tells_verdict_performance_and_report():
    text = summarise(judged_at_risk(), links={"report": "reports/windows/000003/report.html"})
    assert text.splitlines() == [
        "**Window 3: performance at risk** · 100 samples, 0 rejects",
        "",
        "accuracy estimated 0.810 (0.780 to 0.840); was 0.940",
        "",
        "- a note",
        "",
        "Report: `reports/windows/000003/report.html`",
    ]


def test_the_command_shows_what_was_judged_what_moved_and_where_the_report_is(root):
    keys = drop_images(root / "incoming", count=3)
    found = look(root)
    console = Console(width=100, file=io.StringIO())
    show_pass(found, root=root, console=console)
    show_pass(look(root, minutes=1), root=root, console=console)
    text = console.file.getvalue()
    assert text.startswith(f"window 1: no drift · {len(keys)} samples, 0 rejects, model ")
    assert f"report: {root.resolve()}/reports/windows/000001/report.html" in text.replace("\n", "")
    assert "nothing new" in text


def test_a_wrong_watch_yaml_stops_the_command_before_prefect_starts(root):
    sections = config.parse_yaml((root / "watch.yaml").read_text())
    sections["source"]["settle"] = sections["source"].pop("settle_s")
    (root / "watch.yaml").write_text(yaml.safe_dump(sections))
    done = CliRunner().invoke(app, ["watch", "--root", str(root)])
    assert done.exit_code == 1
    assert "source.settle is not a parameter; did you mean 'settle_s'?" in done.output
    done = CliRunner().invoke(app, ["watch", "--once", "--every", "5", "--root", str(root)])
    assert "--once and --every contradict each other" in done.output


def test_windows_are_a_time_series_on_one_run_of_the_model(root, monkeypatch):
    settings = Settings(tracking="on", device="cpu", experiment="watching")
    for seed in (1, 2):
        drop_images(root / "incoming", count=3 * seed, seed=seed)
        found = look(root, minutes=seed)
        path = track(root, found.judged, settings=settings)
    client = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("watching")
    (run,) = client.search_runs([experiment.experiment_id])
    assert path == f"{experiment.experiment_id}/runs/{run.info.run_id}"
    assert run.info.run_name == f"watch {found.judged.model}"
    history = client.get_metric_history(run.info.run_id, "samples")
    assert [(metric.step, metric.value) for metric in history] == [(1, 3.0), (2, 6.0)]
    pages = [item.path for item in client.list_artifacts(run.info.run_id, "windows/000002")]
    assert pages == ["windows/000002/report.html"]


def test_a_sick_mlflow_delays_no_verdict_and_loses_no_window(root, capsys):
    broken = Settings(tracking="on", device="cpu", tracking_uri="http://127.0.0.1:9", experiment="watching")
    drop_images(root / "incoming", count=3)
    assert track(root, look(root).judged, settings=broken) is None
    assert "its record waits in .datamill/spool" in capsys.readouterr().err
    healthy = Settings(tracking="on", device="cpu", experiment="watching")
    drop_images(root / "incoming", count=3, seed=2)
    track(root, look(root, minutes=1).judged, settings=healthy)
    assert not list((root / STATE / "spool").iterdir())
    client = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("watching").experiment_id])
    steps = sorted(metric.step for metric in client.get_metric_history(run.info.run_id, "samples"))
    assert steps == [1, 2]


def late(**changes):
    return judged_at_risk(about="labels", **changes)


def test_labels_are_told_under_a_name_of_their_own_and_alerts_page_once(root, tell):
    drop_images(root / "incoming", count=3)
    found = look(root)
    tell(root, found.judged)
    labels = late(window="000001", number=1, model=found.judged.model)
    tell(root, labels)
    artifacts = tell(root, labels)
    assert [one.window for one in Store(root).windows_since(None)] == ["000001", "000001 (labels)"]
    lines = (root / ".datamill/watch/alerts.jsonl").read_text().splitlines()
    assert [json.loads(line)["topic"] for line in lines] == ["performance-at-risk"]
    assert artifacts[-1]["markdown"].startswith("**Labels of window 1: performance at risk** · 100 labels")


def test_nobody_is_alerted_about_labels_of_a_model_that_was_replaced(root, tell):
    drop_images(root / "incoming", count=3)
    tell(root, look(root).judged)
    tell(root, late(window="000001", number=1, model="earlier"))
    assert [one.window for one in Store(root).windows_since(None)] == ["000001"]


def test_the_command_shows_what_came_of_labels(root):
    console = Console(width=100, file=io.StringIO())
    found = Pass(None, 0, labels=News(num_new=60, num_unknown=2, notes=("a note",)), labelled=(late(),))
    show_pass(found, root=root, console=console)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines[:5] == [
        "nothing new",
        "labels: 60 items got their label, 2 name no item that waits for a label",
        "  note: a note",
        "labels of window 3: performance at risk · 100 labels, model m",
        "accuracy estimated 0.810 (0.780 to 0.840); reference 0.940",
    ]


@pytest.mark.slow
def test_the_command_tells_what_an_earlier_pass_left_untold_and_then_judges(root, repository):
    first = drop_images(root / "incoming", count=3)
    look(root)
    second = drop_images(root / "incoming", count=2, seed=2)
    environment = os.environ | {"PYTHONPATH": str(repository), "PREFECT_HOME": str(root / "prefect")}
    command = [sys.executable, "-m", "flows.cli", "watch", "--root", str(root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "window 2: no drift · 2 samples, 0 rejects" in done.stdout
    assert untold(root) == []
    assert sources_of(root) == [*first, *second]
    assert [one.window for one in Store(root).windows_since(None)] == ["000001", "000002"]
