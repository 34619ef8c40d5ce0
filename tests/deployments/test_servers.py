"""The deployments on real servers: a run goes through all of them, survives their deaths, gives no password away."""

import importlib.util
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import pytest

from datamill import config
from tasks import PIPELINE
from tests.deployments.services import BUCKET, ROOT, Services
from tests.pipeline.conftest import make_workspace

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(1800), pytest.mark.xdist_group("servers")]

README = ROOT / "deployments/README.md"
RUN_TIMEOUT_S = 900.0


def wait_until(claim: Callable[[], bool], *, told: Callable[[], str]) -> None:
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while not claim():
        assert time.monotonic() < deadline, told()
        time.sleep(1)


def ended(services: Services) -> dict[str, dict]:
    """Every flow run that is over, by its id."""
    final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    return {run["id"]: run for run in services.flow_runs() if run["state_type"] in final}


def next_run(services: Services, *, besides: dict[str, dict]) -> dict:
    """The flow run that ends next; whatever ended it is told by the worker's log."""
    wait_until(lambda: len(ended(services)) > len(besides), told=lambda: services.log("worker")[-4000:])
    (key,) = ended(services).keys() - besides.keys()
    run = ended(services)[key]
    assert run["state_type"] == "COMPLETED", services.log("worker")[-6000:]
    return run


@pytest.fixture(scope="module")
def workspace(served: Services) -> Path:
    return make_workspace(served.folder / "project", example="breast-cancer")


@pytest.fixture(scope="module")
def deployed(served: Services, workspace: Path) -> Iterator[Services]:
    """The training deployment as deployments/README.md says, and a worker."""
    (block,) = re.findall(r"```sh\n([^`]*prefect work-pool create.*?)```", README.read_text(), flags=re.DOTALL)
    if not importlib.util.find_spec("flows.monitoring"):
        block = block.replace("--all", "--name train")
    served.shell(block.replace(":4200", f":{served.ports['prefect']}"), PREFECT_PASSWORD=served.passwords["prefect"])
    start_worker(served, workspace)
    return served


def start_worker(served: Services, workspace: Path) -> None:
    """A worker with the password in MLflow's address, which every error of MLflow repeats."""
    address = served.mlflow_url.replace("://", f"://admin:{served.passwords['mlflow']}@")
    served.start_worker(workspace=workspace, MLFLOW_TRACKING_URI=address)


@pytest.fixture
def client(served: Services, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    for name, value in served.client_environment.items():
        monkeypatch.setenv(name, value)
    return mlflow.MlflowClient(served.mlflow_url)


def runs_of(client: mlflow.MlflowClient) -> list:
    experiment = client.get_experiment_by_name("project")
    return list(client.search_runs([experiment.experiment_id], max_results=500))


def assert_no_password(services: Services, client: mlflow.MlflowClient) -> None:
    """Neither in a file of a server, a worker or the workspace, nor in what Prefect, MLflow and S3 hold."""
    held: dict[str, bytes] = {
        str(path): path.read_bytes() for path in services.folder.rglob("*") if path.is_file() and not path.is_symlink()
    }
    for kind in ("logs", "flow_runs", "task_runs", "artifacts", "deployments"):
        held[f"Prefect's {kind}"] = repr(services.ask_prefect(f"/{kind}/filter")).encode()
    for run in runs_of(client):
        held[f"MLflow's {run.info.run_name}"] = repr(run.to_dictionary()).encode()
    s3 = services.s3()
    for stored in s3.list_objects_v2(Bucket=BUCKET)["Contents"]:
        held[f"S3's {stored['Key']}"] = s3.get_object(Bucket=BUCKET, Key=stored["Key"])["Body"].read()
    assert len(held) > 100
    for place, content in held.items():
        for name, password in services.passwords.items():
            assert password.encode() not in content, f"the password of {name} is in {place}"


def test_deploying_again_adds_no_schedule_and_no_trigger(deployed):
    def known() -> tuple[list[str], list[str]]:
        (deployment,) = deployed.ask_prefect("/deployments/filter", deployments={"name": {"any_": ["train"]}})
        schedules = [one["schedule"]["cron"] for one in deployment["schedules"]]
        return schedules, sorted(one["name"] for one in deployed.ask_prefect("/automations/filter"))

    expected = (["0 2 * * *"], ["mark dead runs as crashed", "retrain on request"])
    assert known() == expected
    prefect_file = ["--prefect-file", "deployments/prefect.yaml"]
    deployed.call("prefect", "--no-prompt", "deploy", "--name", "train", *prefect_file)
    assert known() == expected


def test_a_scheduled_run_goes_through_every_server_and_gives_no_password_away(deployed, client, workspace):
    start = datetime.now(UTC) + timedelta(seconds=60)
    rule = f"DTSTART:{start:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=DAILY;COUNT=1"
    deployed.call("prefect", "deployment", "schedule", "create", "train-model/train", "--rrule", rule)
    run = next_run(deployed, besides={})
    assert run["auto_scheduled"] is True
    assert run["work_queue_name"] == "gpu"
    found = runs_of(client)
    assert {one.info.run_name for one in found} == {stage.name for stage in PIPELINE} | {"train project", "promote"}
    assert {one.info.status for one in found} == {"FINISHED"}
    (model,) = client.search_logged_models([found[0].info.experiment_id])
    keys = [stored["Key"] for stored in deployed.s3().list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert any(key.endswith(f"{model.model_id}/artifacts/model.onnx") for key in keys)
    assert any(key.endswith("cards/model_card.html") for key in keys)
    (artifact,) = deployed.ask_prefect("/artifacts/filter")
    assert f"[MLflow run]({deployed.mlflow_url}/#/experiments/" in artifact["data"]
    assert not list((workspace / ".datamill/spool").iterdir())
    assert_no_password(deployed, client)


def test_a_server_takes_the_job_template_for_kubernetes(served):
    template = str(ROOT / "deployments/kubernetes/base-job-template.json")
    served.call("prefect", "work-pool", "create", "cluster", "--type", "kubernetes", "--base-job-template", template)
    pools = {pool["name"]: pool for pool in served.ask_prefect("/work_pools/filter")}
    assert pools["cluster"]["base_job_template"]["variables"]["properties"]["gpus"]["default"] == 0


def test_a_request_to_retrain_starts_the_training_deployment(deployed):
    before = ended(deployed)
    resource = ["--resource-id", "datamill.workspace.project"]
    deployed.call("prefect", "event", "emit", "datamill.retrain.requested", *resource)
    run = next_run(deployed, besides=before)
    assert run["auto_scheduled"] is False
    assert run["created_by"]["type"] == "AUTOMATION"


@pytest.mark.parametrize(("victims", "epochs"), [(("mlflow",), 40), (("prefect",), 41), (("postgres",), 42)])
def test_a_server_killed_during_a_run_costs_nothing(deployed, client, workspace, victims, epochs):
    config.set_params([f"train.epochs={epochs}", "train.patience=null"], stages=PIPELINE, root=workspace)
    before = ended(deployed)
    deployed.call("prefect", "deployment", "run", "train-model/train")
    sign = f"epoch 3 of {epochs}"
    wait_until(lambda: sign in deployed.log("worker"), told=lambda: deployed.log("worker")[-4000:])
    for name in victims:
        deployed.kill(name)
    time.sleep(5)
    for name in victims:
        deployed.start(name)
    next_run(deployed, besides=before)
    training = max(
        (one for one in runs_of(client) if one.info.run_name == "train"), key=lambda one: one.info.start_time
    )
    history = client.get_metric_history(training.info.run_id, "validation_loss")
    assert sorted(point.step for point in history) == list(range(1, epochs + 1))
    assert {one.info.status for one in runs_of(client)} == {"FINISHED"}
    assert not list((workspace / ".datamill/spool").iterdir())
    assert_no_password(deployed, client)


def test_a_machine_that_dies_during_a_run_is_followed_by_a_run_that_goes_on(deployed, client, workspace):
    config.set_params(["train.epochs=43", "train.patience=null"], stages=PIPELINE, root=workspace)
    deployed.call("prefect", "deployment", "run", "train-model/train")
    wait_until(lambda: "epoch 3 of 43" in deployed.log("worker"), told=lambda: deployed.log("worker")[-4000:])
    deployed.kill("worker")
    (dead,) = [run for run in deployed.flow_runs() if run["state_type"] == "RUNNING"]
    crashed = {"type": "CRASHED", "name": "Crashed"}  # what the automation says of it after ten minutes
    deployed.ask_prefect(f"/flow_runs/{dead['id']}/set_state", state=crashed, force=True)
    before = ended(deployed)
    start_worker(deployed, workspace)
    deployed.call("prefect", "deployment", "run", "train-model/train")
    next_run(deployed, besides=before)
    killed, finished = sorted(
        (run for run in runs_of(client) if run.data.params.get("epochs") == "43"), key=lambda run: run.info.start_time
    )
    assert (killed.info.status, finished.info.status) == ("KILLED", "FINISHED")
    history = client.get_metric_history(finished.info.run_id, "validation_loss")
    assert max(point.step for point in history) == 43
    assert not list((workspace / ".datamill/spool").iterdir())
