"""What MLflow's registry knows of champions, on a real SQLite database."""

import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import onnxruntime
import pytest

from datamill.promotion import champions, history
from datamill.settings import Settings
from datamill.tracking import Relay
from datamill.tracking.session import model_name
from tests.datamill.promotion.candidates import write_workspace
from tests.datamill.promotion.test_promoting import GOOD, WORSE, promote, rollback

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")  # mlflow's own hints

NOBODY = "http://someone:hunter2@127.0.0.1:9"  # an address where nothing listens


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """An empty database: MLflow takes seconds to make one."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def root(tmp_path, monkeypatch, database):
    monkeypatch.setenv("DATAMILL_TRACKING", "on")
    monkeypatch.setenv("DATAMILL_THREADS", "1")
    root = write_workspace(tmp_path / "flowers", bias=WORSE)
    shutil.copyfile(database, root / "mlflow.db")
    return root


def client(root):
    return mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


def versions(root):
    """Number in the registry by version of the model."""
    found = client(root).search_model_versions("name = 'flowers'")
    return {one.tags["datamill.version"]: one for one in found}


def aliases(root):
    """Version of the model by alias."""
    model = client(root).get_registered_model("flowers")
    number = {str(one.version): version for version, one in versions(root).items()}
    return {alias: number[str(version)] for alias, version in model.aliases.items()}


def test_the_registry_tells_the_story_of_promotion_refusal_and_rollback(root):
    first = promote(root).challenger
    assert aliases(root) == {"champion": first}
    second = promote(root, bias=GOOD).challenger
    assert aliases(root) == {"champion": second}
    third = promote(root, bias=WORSE + 1).challenger
    assert aliases(root) == {"champion": second, "challenger": third}
    rollback(root)
    assert aliases(root) == {"champion": first, "challenger": third}

    found = versions(root)
    assert set(found) == {first, second, third}
    tags = found[second].tags
    assert tags["metric.accuracy"] == "1"
    assert tags["samples"] == "120"
    assert len(tags["test_set"]) == 64
    assert json.loads(tags["slices"])[0]["property"] == "class"
    assert tags["datamill.action"] == "promoted"
    assert found[third].tags["datamill.action"] == "refused"
    entries = history.read(root)
    assert json.loads(found[third].tags["datamill.decision.000003"]) == entries[2]
    assert json.loads(found[first].tags["datamill.decision.000004"])["action"] == "rolled back"
    model = client(root).get_registered_model("flowers")
    assert model.tags["datamill.history"] == entries[-1]["seal"]
    assert model.tags["datamill.champion"] == first

    files = {file.path for file in client(root).list_artifacts(found[third].run_id)}
    assert {"evidence.json", "promotions"} <= files
    local = client(root).download_artifacts(found[third].run_id, "promotions/000003.json", str(root))
    assert json.loads(Path(local).read_text()) == entries[2]
    loaded = mlflow.artifacts.download_artifacts("models:/flowers@champion", tracking_uri=f"sqlite:///{root}/mlflow.db")
    example = np.load(root / "models/champion/example.npy")
    session = onnxruntime.InferenceSession(Path(loaded) / "model.onnx")
    champion = onnxruntime.InferenceSession(root / "models/champion/model.onnx")
    assert np.array_equal(*(one.run(["probabilities"], {"input": example})[0] for one in (session, champion)))


def test_without_mlflow_everything_happens_and_is_told_when_it_is_back(root, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    first = promote(root).challenger
    second = promote(root, bias=GOOD).challenger
    assert champions.current(root) == second
    assert rollback(root).challenger == first
    told = capsys.readouterr().err
    assert "MLflow at http://127.0.0.1:9 does not answer" in told
    kept = [path.read_bytes() for path in root.rglob("*") if path.is_file()]
    assert not any(b"hunter2" in content for content in [*kept, told.encode()])

    write_workspace(root, bias=WORSE + 2)  # what waits does not depend on what the workspace holds by then
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    Relay(root=root, settings=Settings(num_threads=1)).pump()
    assert aliases(root) == {"champion": first}
    assert set(versions(root)) == {first, second}
    assert list((root / ".datamill/spool").iterdir()) == []


def test_a_decision_that_a_kill_left_untold_is_told_with_the_next_one(root, monkeypatch):
    monkeypatch.setenv("DATAMILL_TRACKING", "off")  # as if the process had ended just before it told MLflow
    promote(root)
    monkeypatch.setenv("DATAMILL_TRACKING", "on")
    second = promote(root, bias=GOOD).challenger
    tags = client(root).get_registered_model("flowers").tags
    assert json.loads(tags["datamill.decision.000001"]) == history.read(root)[0]  # its model was never registered
    assert aliases(root) == {"champion": second}


def test_what_is_sent_twice_is_there_once(root):
    tracked = promote(root).challenger
    (root / ".datamill/promotion.told").unlink()
    promote(root)  # the same model again
    assert set(versions(root)) == {tracked}
    assert aliases(root) == {"champion": tracked}


def test_the_registered_model_is_named_after_the_experiment_without_what_mlflow_forbids(tmp_path):
    assert model_name(root=tmp_path / "flowers", settings=Settings()) == "flowers"
    assert model_name(root=tmp_path, settings=Settings(experiment="team/flowers: v2")) == "team-flowers- v2"
