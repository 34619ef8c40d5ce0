import json
import os
import time
from pathlib import Path

import pytest
import yaml

import flows.training
from datamill.errors import StageError
from datamill.retraining.requests import training
from flows.retraining import consider, resume
from tests.datamill.retraining.test_guards import retrain_params
from tests.verdicts import AT_RISK, CALM, HOUR, START


@pytest.fixture
def root(tmp_path):
    configure(tmp_path)
    return tmp_path


@pytest.fixture
def trainings(monkeypatch):
    """The workspaces that were trained, in place of the flow."""
    done = []

    def train(root):
        with training(Path(root)):
            done.append(root)

    monkeypatch.setattr(flows.training, "train_model", train)
    return done


def configure(root, **changes):
    values = retrain_params(**changes).model_dump(mode="json")
    (root / "watch.yaml").write_text(yaml.safe_dump({"retrain": values}))


def ended(root):
    content = json.loads((root / ".datamill/watch/retraining.json").read_text())
    return [(request["ended"], request["is_sent"]) for request in content["requests"]]


def see(root, seen=AT_RISK, *, hours=0.0, window=""):
    return consider(root, verdict=seen, num_new=100, now=START + hours * HOUR, window=window)


def test_without_a_server_the_flow_trains_itself_once(root, trainings):
    assert see(root).result == "trained"
    assert see(root, hours=1).result == "refused"
    assert trainings == [str(root)]
    assert ended(root) == [("finished", True)]


def test_a_calm_window_trains_nothing(root, trainings):
    assert see(root, CALM).result == "not needed"
    assert trainings == []


def test_a_training_that_fails_is_told_and_does_not_stop_the_watch(root, monkeypatch):
    def train(root):
        with training(Path(root)):
            raise StageError("validate: the gate is shut")

    monkeypatch.setattr(flows.training, "train_model", train)
    decision = see(root)
    assert (decision.result, decision.reasons) == ("failed", ("validate: the gate is shut",))
    assert ended(root) == [("failed", True)]
    assert see(root, hours=1).result == "refused"  # the cool-down holds for it as well


def test_new_data_is_included_before_the_training(root, trainings):
    configure(root, include={"watched": "incoming", "into": "images"})
    (root / "incoming/cat").mkdir(parents=True)
    (root / "incoming/cat/1.png").write_text("new")
    os.utime(root / "incoming/cat/1.png", (time.time() - 60,) * 2)
    assert see(root).result == "trained"
    assert (root / "images/cat/watched-1.png").read_text() == "new"


def test_a_request_that_could_not_be_told_is_kept_and_told_once_later(root, trainings):
    configure(root, include={"watched": "incoming", "into": "images"})
    decision = see(root)
    assert decision.result == "requested"
    assert "not told yet, tried again: retrain.include.watched is 'incoming'" in decision.reasons[-1]
    assert ended(root) == [("pending", False)]
    assert trainings == []
    (root / "incoming").mkdir()
    assert resume(root).result == "trained"
    assert resume(root) is None
    assert len(trainings) == 1


def test_a_training_that_did_not_even_begin_is_begun_the_next_time(root, trainings, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(flows.training, "train_model", lambda root: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            see(root, window="w0")
    assert ended(root) == [("pending", True)]
    see(root, CALM, hours=0.25, window="w1")
    assert trainings == [str(root)]
    assert ended(root) == [("finished", True)]


def test_a_server_that_does_not_answer_loses_no_request(root, trainings, monkeypatch):
    emitted = []
    monkeypatch.setattr("flows.events.has_server", lambda: True)

    def emit(name, **facts):
        emitted.append((name, facts["event_id"]))
        if len(emitted) == 1:
            raise ConnectionRefusedError("http://user:s3cr3t@127.0.0.1")

    monkeypatch.setattr("flows.events.emit", emit)
    decision = see(root)
    assert decision.reasons[-1] == "not told yet, tried again: ConnectionRefusedError"
    assert see(root, hours=0.5).result == "refused"  # and tells the first one meanwhile
    assert [name for name, _ in emitted] == ["datamill.retrain.requested"] * 2
    assert emitted[0] == emitted[1]
    assert ended(root) == [("pending", True)]
    assert trainings == []
