"""The whole pipeline through DVC, Prefect and MLflow, as people run it."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import mlflow
import psutil
import pytest
import yaml

from datamill import config
from tasks import PIPELINE, STAGES
from tests.pipeline.conftest import make_workspace

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(900)]

BIN = Path(sys.executable).parent


def environment(**extra: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "DATAMILL_TRACKING"}
    return {**kept, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "DATAMILL_DEVICE": "cpu", **extra}


def call(*command: str, root: Path, check: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=root,
        env=environment(**extra),
        capture_output=True,
        text=True,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done


def locked(root: Path) -> dict:
    """Every hash in the lock file; the order of its entries is that in which stages happened to end."""
    return yaml.safe_load((root / "dvc.lock").read_text())["stages"]


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.3)


def commit(root: Path) -> None:
    for command in (["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "state"]):
        subprocess.run(["git", *command], cwd=root, check=True)


@pytest.fixture(scope="module")
def flowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace brought up to date by the flow."""
    folder = tmp_path_factory.mktemp("flow")
    root = make_workspace(folder / "project")
    call("datamill", "run", root=root, PREFECT_HOME=str(folder / "prefect"))
    return root


def test_dvc_repro_alone_gives_the_same_lock_file_as_the_flow(flowed, tmp_path):
    root = make_workspace(tmp_path / "project")
    call("dvc", "repro", root=root)
    assert locked(root) == locked(flowed)


def test_a_second_flow_run_finds_everything_cached(flowed):
    done = call("datamill", "run", root=flowed, PREFECT_HOME=str(flowed.parent / "prefect"))
    assert "0 of 15 stages ran, 15 were cached" in done.stdout


def test_mlflow_holds_one_parent_a_child_per_stage_the_model_and_the_data_set(flowed):
    client = mlflow.MlflowClient(f"sqlite:///{flowed / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(flowed.name)
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    parents = [run for run in runs if run.data.tags.get("datamill.role") == "parent"]
    first = min(parents, key=lambda run: run.info.start_time)
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == first.info.run_id]
    assert sorted(run.info.run_name for run in children) == sorted([*STAGES, "promote"])
    assert first.data.tags["stage.export"] == "executed"
    assert first.data.params["train.epochs"] == "2"
    assert first.data.metrics["evaluate.accuracy"] > 0.5
    assert first.inputs.dataset_inputs[0].dataset.digest.endswith(".dir")
    train = next(run for run in children if run.info.run_name == "train")
    assert len(client.get_metric_history(train.info.run_id, "validation_loss")) == 2
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert model.name == "model"


def test_dvc_shows_metrics_and_plots(flowed):
    assert "evaluate" in call("dvc", "metrics", "show", root=flowed).stdout
    call("dvc", "plots", "show", "--out", ".datamill/plots", root=flowed)
    assert (flowed / ".datamill/plots/index.html").stat().st_size > 1000


def test_outputs_pushed_to_the_local_remote_can_be_pulled_back(flowed, tmp_path):
    call("dvc", "push", root=flowed)
    commit(flowed)
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(flowed), str(clone)], check=True)
    call("dvc", "remote", "modify", "--local", "local", "url", str(flowed / ".datamill/remote"), root=clone)
    call("dvc", "pull", root=clone)
    assert (clone / "models/export/model.onnx").read_bytes() == (flowed / "models/export/model.onnx").read_bytes()


def test_an_experiment_changes_one_parameter(tmp_path):
    root = make_workspace(tmp_path / "project")
    call("dvc", "repro", "split", root=root)
    commit(root)
    call("dvc", "exp", "run", "-S", "train.epochs=3", root=root)
    assert "epochs: 3" in (root / "params.yaml").read_text()
    assert len((root / "reports/train/history.csv").read_text().splitlines()) == 4


def test_a_run_killed_half_way_is_finished_by_the_same_command(tmp_path, flowed):
    root = make_workspace(tmp_path / "project")
    process = subprocess.Popen(
        [BIN / "dvc", "repro"], cwd=root, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not (root / "reports/preprocess.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.send_signal(signal.SIGKILL)
    process.wait()
    call("dvc", "repro", root=root)
    assert locked(root) == locked(flowed)


def test_a_typo_in_params_stops_before_any_work(tmp_path):
    root = make_workspace(tmp_path / "project")
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("epochs:", "epoch:"))
    done = call("datamill", "run", root=root, check=False)
    assert done.returncode == 1
    assert "train.epoch is not a parameter; did you mean 'epochs'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (root / "data/ingest").exists()


def test_the_flow_runs_against_a_prefect_server(tmp_path):
    root = make_workspace(tmp_path / "project")
    home = str(tmp_path / "prefect")
    log = (tmp_path / "server.log").open("wb")
    command = [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", "4299"]
    server = subprocess.Popen(command, env=environment(PREFECT_HOME=home), stdout=log, stderr=log)
    try:
        url = "http://127.0.0.1:4299/api"
        wait_for(f"{url}/health")
        call("datamill", "run", "--target", "split", root=root, PREFECT_HOME=home, PREFECT_API_URL=url)
        listed = call("prefect", "flow-run", "ls", root=root, PREFECT_HOME=home, PREFECT_API_URL=url, COLUMNS="200")
        assert "train-model" in listed.stdout
        assert "COMPLETED" in listed.stdout.upper()
        artifact = call("prefect", "artifact", "ls", root=root, PREFECT_HOME=home, PREFECT_API_URL=url, COLUMNS="200")
        assert "datamill-run" in artifact.stdout
    finally:
        server.terminate()
        server.wait(timeout=30)
        log.close()


def test_ctrl_c_ends_everything_within_seconds_and_the_same_command_goes_on(tmp_path):
    root = make_workspace(tmp_path / "project")
    config.set_params(["train.epochs=200"], stages=PIPELINE, root=root)
    home = {"PREFECT_HOME": str(tmp_path / "prefect")}
    process = subprocess.Popen(
        [BIN / "datamill", "run"],
        cwd=root,
        env=environment(**home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 3 of 200" in line:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert "stopped; the same command goes on from here" in rest
    assert time.monotonic() - start < 20
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    again = call("datamill", "run", "--target", "train", root=root, **home)
    epochs = [line for line in again.stdout.splitlines() if " of 200: train loss" in line]
    assert len(epochs) == 200
    assert "1 of 12 stages ran, 11 were cached" in again.stdout


def test_a_tracking_server_killed_in_the_middle_costs_nothing_that_was_computed(tmp_path):
    root = make_workspace(tmp_path / "project", example="breast-cancer")
    config.set_params(["train.epochs=120"], stages=PIPELINE, root=root)
    uri = "http://127.0.0.1:5099"
    extra = {"MLFLOW_TRACKING_URI": uri, "PREFECT_HOME": str(tmp_path / "prefect")}

    def serve() -> subprocess.Popen[bytes]:
        store = f"sqlite:///{tmp_path / 'server.db'}"
        artifacts = ["--artifacts-destination", str(tmp_path / "artifacts")]
        command = [BIN / "mlflow", "server", "--backend-store-uri", store, *artifacts, "--port", "5099"]
        with (tmp_path / "server.log").open("ab") as log:
            server = subprocess.Popen(command, env=environment(), stdout=log, stderr=log, start_new_session=True)
        wait_for(f"{uri}/health")
        return server

    def kill(server: subprocess.Popen[bytes]) -> None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()

    server = serve()
    flow = subprocess.Popen(
        [BIN / "datamill", "run"],
        cwd=root,
        env=environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert flow.stdout is not None
    for line in flow.stdout:
        if "epoch 5 of 120" in line:
            break
    kill(server)
    _, errors = flow.communicate(timeout=300)
    assert flow.returncode == 0, errors
    assert "MLflow at http://127.0.0.1:5099 does not answer" in errors
    assert list((root / ".datamill/spool").iterdir())

    server = serve()
    try:
        call("datamill", "run", root=root, **extra)
        assert not list((root / ".datamill/spool").iterdir())
        client = mlflow.MlflowClient(uri)
        experiment = client.get_experiment_by_name(root.name)
        runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
        history = client.get_metric_history(runs["train"].info.run_id, "validation_loss")
        epochs = len((root / "reports/train/history.csv").read_text().splitlines()) - 1
        assert sorted(point.step for point in history) == list(range(1, epochs + 1))
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        assert "evaluate.json" in {file.path for file in client.list_artifacts(runs["evaluate"].info.run_id)}
    finally:
        kill(server)
