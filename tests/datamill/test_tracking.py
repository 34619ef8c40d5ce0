import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest

from datamill.execute import execute
from datamill.settings import Settings
from datamill.tracking import Relay, Session, Tracker, current_session, redact, server
from tests import toys

STAGES = tuple(stage.name for stage in toys.PIPELINE)


@pytest.fixture
def root(tmp_path):
    toys.write_params(tmp_path)
    return tmp_path


def settings(root, **options):
    return Settings(num_threads=1, num_workers=1, session="one=first run", **options)


def client(root):
    return mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


def runs(root):
    found = client(root).search_runs([client(root).get_experiment_by_name(root.name).experiment_id])
    return {run.info.run_name: run for run in found}


@pytest.fixture
def dead_server():
    """An address at which something takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_each_stage_is_a_child_of_one_parent_with_params_metrics_and_files(root):
    for stage in toys.PIPELINE:
        execute(stage, root=root, pipeline=toys.PIPELINE, settings=settings(root))
    found = runs(root)
    assert set(found) == {"first run", "make", "choose", "total"}
    parent, child = found["first run"], found["choose"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params == {"lose": "0", "fail": "false"}
    assert child.data.metrics["in"] == 10
    assert child.data.metrics["curve"] == 1
    assert parent.data.params["make.num_rows"] == "10"
    assert parent.data.metrics["total.left"] == 5
    assert parent.info.status == "FINISHED"
    assert {file.path for file in client(root).list_artifacts(child.info.run_id)} == {"choose.json"}
    assert child.inputs.dataset_inputs[0].dataset.name == "clusters"


def test_a_stage_that_did_not_run_shows_as_cached_and_after_a_failure_as_not_reached(root):
    execute(toys.PIPELINE[0], root=root, pipeline=toys.PIPELINE, settings=settings(root))
    assert runs(root)["first run"].data.tags["stage.total"] == "cached"
    toys.write_params(root, fail=True)
    with pytest.raises(Exception, match="No space left"):
        execute(toys.PIPELINE[1], root=root, pipeline=toys.PIPELINE, settings=settings(root))
    parent = runs(root)["first run"]
    tags = {name: parent.data.tags[f"stage.{name}"] for name in STAGES}
    assert tags == {"make": "executed", "choose": "failed", "total": "not reached"}
    assert parent.info.status == "FAILED"


def test_a_closed_session_carries_the_metrics_of_cached_stages(root):
    tracker = Tracker(root, settings(root), Session("one", "first run"), "flow", STAGES)
    path = tracker.close_session(statuses={"make": "cached"}, summary={"make.num_rows": 10.0}, note="- make: cached")
    parent = runs(root)["first run"]
    assert path is not None
    assert path.endswith(parent.info.run_id)
    assert parent.data.metrics == {"make.num_rows": 10.0}


@pytest.mark.parametrize("uri", ["closed", "silent"])
def test_a_dead_server_costs_under_five_seconds_and_nothing_is_lost(root, dead_server, uri, capsys, monkeypatch):
    address = dead_server if uri == "silent" else "http://someone:secret@127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    start = time.monotonic()
    execute(toys.PIPELINE[0], root=root, pipeline=toys.PIPELINE, settings=settings(root, tracking_uri=address))
    assert time.monotonic() - start < 5
    warning = capsys.readouterr().err
    assert "does not answer" in warning
    assert "secret" not in warning
    (spool,) = (root / ".datamill/spool").iterdir()
    kinds = [json.loads(line)["kind"] for line in (spool / "events.jsonl").read_text().splitlines()]
    assert kinds == ["start", "metrics", "artifact", "finish"]
    assert "secret" not in "".join(path.read_text() for path in spool.glob("*.json*"))

    (root / "reports/make.json").write_text("{}")  # the next run replaces the file; the spool kept its own copy
    assert Relay(root=root, settings=settings(root)).pump() == 4
    run = runs(root)["make"]
    assert run.data.metrics["num_rows"] == 10
    local = client(root).download_artifacts(run.info.run_id, "make.json", str(root))
    assert json.loads(Path(local).read_text()) == {"num_rows": 10, "kind": "toy"}
    assert list((root / ".datamill/spool").iterdir()) == []


def test_two_stages_at_once_share_one_parent_in_a_new_database(root):
    def track(name):
        tracker = Tracker(root, settings(root), Session("one", "first run"), name, STAGES)
        tracker.start(params={"a": 1})
        tracker.finish(status="executed")

    threads = [threading.Thread(target=track, args=(name,)) for name in STAGES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs(root)) == 4
    assert not (root / ".datamill/spool").exists()


def test_a_session_comes_from_the_environment_or_stands_alone():
    assert current_session(Settings(session="k=n")) == Session("k", "n")
    assert current_session(Settings()).name in {"single stage", "dvc repro"}


def test_passwords_are_cut_from_addresses():
    assert redact("http://user:secret@host:1/x and s3://a:b@c") == "http://host:1/x and s3://c"
    assert redact("http://user:sec@ret@host/x") == "http://host/x"
    assert redact("http://host/x, mail to a@b") == "http://host/x, mail to a@b"


def test_tracking_can_be_switched_off(root):
    execute(toys.PIPELINE[0], root=root, pipeline=toys.PIPELINE, settings=Settings(tracking="off", num_threads=1))
    assert not (root / "mlflow.db").exists()
    assert (root / "data/make/rows").is_dir()


def test_a_relayed_stage_loads_no_mlflow_and_is_sent_while_it_runs(root):
    relay = Relay(root=root, settings=settings(root))
    tracker = Tracker(root, settings(root, tracking="relay"), Session("one", "first run"), "make", STAGES)
    tracker.start(params={"num_rows": 10})
    tracker.log_metrics({"loss": 2.0}, step=1)
    assert relay.pump() == 2
    tracker.log_metrics({"loss": 1.0}, step=2)
    tracker.finish(status="executed")
    assert relay.pump() == 2
    assert relay.pump() == 0
    run = runs(root)["make"]
    assert [point.value for point in client(root).get_metric_history(run.info.run_id, "loss")] == [2.0, 1.0]
    assert list((root / ".datamill/spool").iterdir()) == []


def test_a_relay_that_was_killed_is_continued_without_sending_twice(root):
    tracker = Tracker(root, settings(root, tracking="relay"), Session("one", "first run"), "make", STAGES)
    tracker.start(params={})
    assert Relay(root=root, settings=settings(root)).pump() == 1
    tracker.finish(status="executed")
    assert Relay(root=root, settings=settings(root)).pump() == 1
    assert set(runs(root)) == {"first run", "make"}


def test_of_two_flows_in_a_workspace_one_sends_at_a_time(root, monkeypatch):
    Tracker(root, settings(root, tracking="relay"), Session("one", "first run"), "make", STAGES).start(params={})
    seen, at_work = [], []

    def send(relay, folder):
        at_work.append(relay)
        time.sleep(0.05)
        seen.append(len(at_work))
        at_work.pop()
        return 1

    monkeypatch.setattr(Relay, "_send", send)
    pumps = [threading.Thread(target=Relay(root=root, settings=settings(root)).pump) for _ in range(4)]
    for pump in pumps:
        pump.start()
    for pump in pumps:
        pump.join()
    assert seen == [1, 1, 1, 1]


def test_a_run_whose_process_is_gone_is_shown_as_killed(root):
    tracker = Tracker(root, settings(root, tracking="relay"), Session("one", "first run"), "make", STAGES)
    tracker.start(params={})
    (header,) = (root / ".datamill/spool").glob("*/run.json")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    header.write_text(json.dumps(json.loads(header.read_text()) | {"pid": dead.pid}))
    Relay(root=root, settings=settings(root)).pump()
    assert runs(root)["make"].info.status == "KILLED"


def test_a_start_whose_answer_was_lost_makes_no_second_run(root, monkeypatch):
    create = mlflow.MlflowClient.create_run
    lost = []

    def lose_first_answer(self, *arguments, **options):
        run = create(self, *arguments, **options)
        if options["run_name"] == "make" and not lost:
            lost.append(run.info.run_id)
            raise TimeoutError("no answer within 3 s")
        return run

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", lose_first_answer)
    execute(toys.PIPELINE[0], root=root, pipeline=toys.PIPELINE, settings=settings(root))
    assert Relay(root=root, settings=settings(root)).pump() == 4
    found = client(root).search_runs([client(root).get_experiment_by_name(root.name).experiment_id])
    assert [run.info.run_id for run in found if run.info.run_name == "make"] == lost
    assert {run.info.status for run in found} == {"FINISHED"}


def write_identity(folder):
    import onnx
    from onnx import helper

    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", ends[:1], ends[1:])
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])
    onnx.save(model, folder / "model.onnx")
    np.save(folder / "example.npy", np.ones((1, 2), np.float32))
    return folder / "model.onnx", folder / "example.npy"


def test_a_model_cut_off_on_its_way_is_sent_again_and_one_that_arrived_is_not(root):
    model, example = write_identity(root)
    tracker = Tracker(root, settings(root), Session("one", "first run"), "make", STAGES)
    tracker.start(params={})
    run = runs(root)["make"]
    experiment = run.info.experiment_id
    cut_off = client(root).create_logged_model(experiment, name="model", source_run_id=run.info.run_id)
    tracker.log_model(model, example=example)
    (arrived,) = client(root).search_logged_models([experiment])
    assert arrived.model_id != cut_off.model_id
    tracker.log_model(model, example=example)
    assert [one.model_id for one in client(root).search_logged_models([experiment])] == [arrived.model_id]


def test_a_file_gets_the_time_that_passing_it_on_takes_and_nothing_else_does(root, monkeypatch):
    seen = {}

    def note(name):
        def noted(self, *_, **__):
            seen[name] = os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]

        return noted

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", note("file"))
    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", note("numbers"))
    tracker = Tracker(root, settings(root), Session("one", "first run"), "make", STAGES)
    tracker.start(params={})
    tracker.log_artifact(root / "params.yaml")
    tracker.log_metrics({"loss": 1.0})
    assert seen == {"file": "120", "numbers": "3"}


AS_MLFLOW_IS_IMPORTED = """
import os, sys
class Look:
    def find_spec(self, name, path=None, target=None):
        if name == "mlflow":
            print(os.environ.get("MLFLOW_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Look())
import datamill.tracking.{module}
assert "mlflow" in sys.modules
"""


@pytest.mark.parametrize("module", ["server", "registry"])
@pytest.mark.parametrize(("given", "found"), [({}, "true"), ({"MLFLOW_DISABLE_TELEMETRY": "yes"}, "yes")])
def test_telemetry_is_off_before_mlflow_is_loaded_unless_somebody_has_said_otherwise(module, given, found):
    quiet = {key: value for key, value in os.environ.items() if key != "MLFLOW_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", AS_MLFLOW_IS_IMPORTED.format(module=module)]
    done = subprocess.run(command, env=quiet | given, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, [found]), done.stderr


def test_a_session_in_mlflow_that_names_another_folder_is_not_fetched(root):
    execute(toys.PIPELINE[0], root=root, pipeline=toys.PIPELINE, settings=settings(root))
    run = runs(root)["make"]
    for key in ("..", "../../elsewhere", "/etc"):
        client(root).set_tag(run.info.run_id, "datamill.session", key)
        assert server.fetch_record(run.info.run_id, root=root, settings=settings(root)) is None
