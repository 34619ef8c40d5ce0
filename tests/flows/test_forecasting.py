import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from datamill import config, durations
from datamill.errors import StageError
from datamill.settings import STATE
from flows import forecasting
from flows.forecasting import Forecast, forecast
from flows.graph import needed_by
from flows.workspace import CHECKOUT
from tasks import PIPELINE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace whose last run was with the parameters it has."""
    shutil.copy(CHECKOUT / "params.yaml", tmp_path)
    params = config.load_params(PIPELINE, root=tmp_path)
    stages = {name: {"params": {"params.yaml": {name: one.model_dump(mode="json")}}} for name, one in params.items()}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}))
    return tmp_path


def told(root: Path, monkeypatch: pytest.MonkeyPatch, status: dict[str, Any]) -> dict[str, Forecast]:
    monkeypatch.setattr(forecasting, "_status", lambda root: status)
    return {one.stage: one for one in forecast(needed_by("shard"), root=root)}


def test_nothing_changed_is_up_to_date(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {one.verdict for one in told(root, monkeypatch, {}).values()} == {"up to date"}


def test_a_changed_parameter_is_named_with_both_values(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = config.load_params(PIPELINE, root=root)["split"].folds  # type: ignore[attr-defined]
    config.set_params(["split.folds=9"], stages=PIPELINE, root=root)
    stages = told(root, monkeypatch, {"split": [{"changed deps": {"params.yaml": {"split": "modified"}}}]})
    assert stages["split"].verdict == "runs"
    assert stages["split"].reasons == (f"parameters folds {before} -> 9",)
    assert stages["clean"].verdict == "up to date"
    assert stages["audit"].reasons == ("if split gives something else",)
    assert stages["shard"].verdict == "may run"


def test_code_inputs_sources_and_outputs_are_told_apart(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {
        "ingest": [{"changed deps": {"raw/images": "modified", "datamill/ledger.py": "modified"}}],
        "clean": [
            {"changed deps": {"data/ingest/samples": "deleted"}},
            {"changed outs": {"data/clean/repairs": "deleted"}},
        ],
    }
    stages = told(root, monkeypatch, changes)
    assert stages["ingest"].reasons == ("code changed: datamill/ledger.py", "source raw/images changed")
    assert stages["clean"].reasons == (
        "outputs data/clean/repairs are missing here",
        "inputs data/ingest/samples are missing here",
    )


def test_a_stage_that_never_ran_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "dvc.lock").unlink()
    assert told(root, monkeypatch, {})["ingest"].reasons == ("never ran here",)


def test_seconds_go_by_the_slowest_run_for_other_code_and_the_latest_for_other_data(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / STATE).mkdir()
    for seconds in (100.0, 4.0):
        for stage in ("clean", "split"):
            durations.note(stage, seconds=seconds, state=root / STATE)
    changes = {
        "clean": [{"changed deps": {"datamill/ledger.py": "modified"}}],
        "split": [{"changed deps": {"data/clean/ledger.parquet": "modified"}}],
    }
    stages = told(root, monkeypatch, changes)
    assert (stages["clean"].seconds, stages["split"].seconds) == (100.0, 4.0)
    assert stages["audit"].seconds is None


def test_a_damaged_note_of_durations_is_no_note(root: Path) -> None:
    durations.note("clean", seconds=3.0, state=root / STATE)
    (root / STATE / durations.FOLDER / "clean.json").write_text("{")
    assert durations.recall("clean", state=root / STATE) is None


def test_a_stage_is_settled_when_neither_it_nor_one_before_it_has_changed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"split": [{"changed deps": {"params.yaml": {"split": "modified"}}}]}
    monkeypatch.setattr(forecasting, "_status", lambda root: changes)
    assert forecasting.settled(needed_by("audit"), root=root) == {"ingest", "extract", "validate", "clean"}


def test_nothing_is_settled_while_dvc_cannot_tell(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(root: Path) -> dict[str, Any]:
        raise StageError("`dvc status` failed: Unable to acquire lock")

    monkeypatch.setattr(forecasting, "_status", locked)
    assert forecasting.settled(needed_by("audit"), root=root) == set()


def test_ingest_tells_how_many_files_of_the_source_changed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/1", "a/2", "b/1"):
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "images" / name).write_bytes(b"not even an image")
    source = {"kind": "image_folder", "path": "images", "group_from": "none"}
    config.set_params([f"ingest.source={json.dumps(source)}"], stages=PIPELINE, root=root)
    stages = told(root, monkeypatch, {"ingest": [{"changed deps": {"images": "modified"}}]})
    assert stages["ingest"].extent == "3 new of 3 files"
    assert stages["extract"].extent == "all samples"
