import json
import shutil
import subprocess

import pytest
from typer.testing import CliRunner

from datamill.lineage import recording
from datamill.settings import Settings
from datamill.tracking import Session, Tracker
from flows import lineage
from flows.cli import app
from tests.datamill.lineage.test_runs import STATUSES, TEST_ROWS, record, run_again, store
from tests.lineages import write_workspace

SESSION = Session("bbbb-second", "train ws")


@pytest.fixture
def artifacts(monkeypatch):
    made = []
    monkeypatch.setattr(lineage, "create_markdown_artifact", lambda **content: made.append(content))
    return made


@pytest.fixture
def root(tmp_path):
    root = write_workspace(tmp_path / "ws")
    store(root)
    return root


def keep(root, session=SESSION, **wishes):
    tracker = Tracker(root, Settings(tracking="relay", **wishes), session, "flow", tuple(STATUSES))
    lineage.keep_record(root, session=session, statuses=STATUSES, tracker=tracker)


def test_a_flow_run_is_put_on_record_and_told_to_the_tracker_with_a_copy(root):
    keep(root)
    assert json.loads((root / recording.FOLDER / SESSION.key / "run.json").read_text())["key"] == SESSION.key
    (events,) = (root / ".datamill/spool").glob("*/events.jsonl")
    event = json.loads(events.read_text())
    assert event["kind"] == "record"
    assert (events.parent / event["path"] / "dvc.lock").is_file()


def test_old_runs_are_forgotten_when_a_run_ends(root, capsys):
    record(root, "aaaa-first", hour=9)
    keep(root, keep_runs=1)
    assert [folder.name for folder in (root / recording.FOLDER).iterdir()] == [SESSION.key]
    record(root, "cccc-third", hour=9)
    (root / recording.FOLDER / "cccc-third" / "run.json").write_text("{")
    keep(root, keep_runs=1)
    assert "warning: old runs stay on record" in capsys.readouterr().err


def test_the_run_tells_what_changed_since_the_one_before(root, artifacts):
    record(root, "aaaa-first", hour=9)
    run_again(root, wrong=TEST_ROWS[:6], params={"train": {"epochs": 3}})
    keep(root)
    lineage.tell_why(root, session=SESSION, statuses=STATUSES)
    (made,) = artifacts
    assert made["key"] == "datamill-why"
    assert made["description"] == "What changed since train ws of 2026-03-01 09:00 (aaaa-fir)"
    assert "# Why test accuracy went from 1.0000 to 0.7500" in made["markdown"]
    assert "train.epochs 30" in made["markdown"]


def test_a_run_that_changed_nothing_says_so_without_reading_anything(root, artifacts):
    record(root, "aaaa-first", hour=9)
    keep(root)
    shutil.rmtree(root / "data")
    lineage.tell_why(root, session=SESSION, statuses=STATUSES)
    (made,) = artifacts
    assert made["markdown"].startswith(
        "Nothing changed since train ws of 2026-03-01 09:00 (aaaa-fir): source, parameters"
    )


def test_the_first_run_and_a_run_without_a_number_tell_nothing(root, artifacts):
    keep(root)
    lineage.tell_why(root, session=SESSION, statuses=STATUSES)
    lineage.tell_why(root, session=SESSION, statuses={**STATUSES, "evaluate": "failed"})
    assert artifacts == []


def test_a_run_whose_predecessor_is_gone_says_so_and_goes_on(root, artifacts, capsys):
    folder = record(root, "aaaa-first", hour=9)
    run_again(root, wrong=TEST_ROWS[:6])
    keep(root)
    (folder / "dvc.lock").write_text("stages: {}")
    lineage.tell_why(root, session=SESSION, statuses=STATUSES)
    assert artifacts == []
    assert "why it changed is not told: train ws of 2026-03-01 09:00" in capsys.readouterr().err


def test_why_prints_the_page_and_writes_it_as_html(root, tmp_path):
    record(root, "aaaa-first", hour=9)
    run_again(root, wrong=TEST_ROWS[:6], params={"train": {"epochs": 3}})
    page = tmp_path / "why.html"
    done = CliRunner().invoke(app, ["why", "aaaa", "workspace", "--root", str(root), "--html", str(page)])
    assert done.exit_code == 0, done.stderr
    assert "Why test accuracy went from 1.0000 to 0.7500" in done.stdout
    assert "train.epochs 30 -&gt; 3" in page.read_text()


def test_why_says_what_was_searched(root):
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    done = CliRunner().invoke(app, ["why", "nope", "--root", str(root)])
    assert done.exit_code == 1
    assert "no run is called 'nope': searched runs on record (none)" in " ".join(done.stderr.split())
