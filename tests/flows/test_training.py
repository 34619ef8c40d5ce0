import pytest

from datamill.errors import ParamsError, StageError
from flows.dvc import Outcome
from flows.training import needed_by, summarise


def test_a_target_brings_its_ancestors_and_nothing_else():
    assert list(needed_by("split")) == ["ingest", "validate", "clean", "split"]
    assert len(needed_by(None)) == 14


def test_an_unknown_target_lists_the_stages():
    with pytest.raises(ParamsError, match="no stage is called 'splt'; there are ingest, validate"):
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
