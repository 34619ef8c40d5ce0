import json
from types import SimpleNamespace

import pytest
from prefect.states import Failed

from datamill.errors import ParamsError, StageError
from flows import training
from flows.dvc import LockedError, Outcome
from flows.training import is_lock_error, needed_by, run_stage, summarise


def test_a_target_brings_its_ancestors_and_nothing_else():
    assert list(needed_by("split")) == ["ingest", "extract", "validate", "clean", "split"]
    assert len(needed_by(None)) == 15


def test_an_unknown_target_lists_the_stages():
    with pytest.raises(ParamsError, match="no stage is called 'splt'; there are ingest, extract, validate"):
        needed_by("splt")


def test_the_summary_names_every_stage_its_end_and_the_mlflow_run(tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/ingest.json").write_text('{"num_items": 10}')
    outcomes = {"ingest": Outcome("ingest", "executed", 1.25), "validate": StageError("gate"), "clean": None}
    text = summarise(outcomes, root=tmp_path, run_path="1/runs/abc")
    assert "| ingest | executed | 1.2 | num_items 10 |" in text
    assert "| validate | failed |" in text
    assert "| clean | not reached |" in text
    assert "http://127.0.0.1:5000/#/experiments/1/runs/abc" in text


@pytest.mark.parametrize(("error", "is_retried"), [(LockedError("held"), True), (StageError("gate"), False)])
def test_only_a_held_lock_is_tried_again(error, is_retried):
    assert is_lock_error(None, None, Failed(data=error)) is is_retried


def test_retries_wait_longer_each_time_and_with_jitter():
    assert run_stage.retries == 5
    assert run_stage.retry_delay_seconds == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert run_stage.retry_jitter_factor == 0.5


def test_a_source_that_cannot_be_reached_stops_the_flow_with_its_own_words(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").write_text("stages: {observe: {cmd: python -m tasks observe}}\n")
    failed = SimpleNamespace(wait=lambda: None, state=Failed(data=StageError("the store is away")))
    submitted = []
    submit = lambda **options: submitted.append(options["name"]) or failed  # noqa: E731
    monkeypatch.setattr(training, "run_stage", SimpleNamespace(submit=submit))
    with pytest.raises(StageError, match="the store is away"):
        training._submit(needed_by(None), root=str(tmp_path), session="s=s")
    assert submitted == ["observe"]


def test_the_result_stands_before_the_stages(tmp_path):
    (tmp_path / "reports").mkdir()
    assert training.result(tmp_path) == []
    measured = {
        "accuracy": 0.99,
        "samples": 1269,
        "interval": {"accuracy": {"low": 0.98, "high": 1.0}},
        "baseline": {"accuracy": 0.95},
    }
    (tmp_path / "reports/evaluate.json").write_text(json.dumps(measured))
    told = "**accuracy 0.9900** (0.9800 to 1.0000) on 1,269 test samples; logistic regression 0.9500"
    assert summarise({}, root=tmp_path, run_path=None).splitlines()[:2] == [told, ""]


def test_stages_are_told_by_how_they_ended():
    statuses = {"ingest": "cached", "train": "executed", "clean": "cached"}
    assert training._ends(statuses) == ["- cached: ingest, clean", "- executed: train"]
