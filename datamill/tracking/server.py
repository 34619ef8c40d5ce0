"""A reachable MLflow server or database, and the run that events go to. It and ``registry`` alone import MLflow."""

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import mlflow
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelStatus, Metric, Param

from datamill import files
from datamill.settings import STATE, Settings
from datamill.tracking import registry
from datamill.tracking.session import Session, experiment_name, knock, tracking_uri
from datamill.tracking.spool import Event

REQUEST_TIMEOUT_S = 3
TRANSFER_TIMEOUT_S = 120  # MLflow answers once a file has gone on to its own store
PARAMS_AT_ONCE = 100  # limits of MLflow's batch call
METRICS_AT_ONCE = 1_000
SESSION_KEY = re.compile(r"\w[\w.-]*")
RECORD = "lineage"  # folder of the parent run's artifacts that holds the session's record


class Server:
    """Applies the events of one run, child of its session's parent run."""

    def __init__(
        self,
        client: mlflow.MlflowClient,
        *,
        session: Session,
        run_name: str,
        all_stages: tuple[str, ...],
        experiment_id: str,
        lock: FileLock,
        run_id: str | None,
    ) -> None:
        """Use ``connect``."""
        self._client = client
        self._session = session
        self._run_name = run_name
        self._all_stages = all_stages
        self._experiment_id = experiment_id
        self._lock = lock
        self._parent_id = ""
        self._run_id = run_id or ""

    @classmethod
    def connect(
        cls,
        *,
        root: Path,
        settings: Settings,
        session: Session,
        run_name: str,
        all_stages: tuple[str, ...],
        run_id: str | None = None,
    ) -> Self:
        """Find or make the experiment and the session's parent run.

        Raises:
            Exception: The server does not answer, or refuses.
        """
        uri = tracking_uri(root=root, settings=settings)
        knock(uri)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_TIMEOUT_S))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # an address may hold a password
        for name, level in (("mlflow", logging.WARNING), ("mlflow.onnx", logging.ERROR), ("alembic", logging.WARNING)):
            logging.getLogger(name).setLevel(level)
        (root / STATE).mkdir(exist_ok=True)
        lock = FileLock(root / STATE / "mlflow.lock")  # SQLite takes one writer, and its first use creates the tables
        with lock:
            mlflow.set_tracking_uri(uri)
            client = mlflow.MlflowClient(tracking_uri=uri)
            server = cls(
                client,
                session=session,
                run_name=run_name,
                all_stages=all_stages,
                experiment_id=_experiment(client, root=root, settings=settings, is_local=uri.startswith("sqlite:")),
                lock=lock,
                run_id=run_id,
            )
            server._parent_id = server._find_or_create_parent()
        return server

    @property
    def run_id(self) -> str | None:
        """The run's id; ``None`` before its start was sent."""
        return self._run_id or None

    @property
    def parent_path(self) -> str:
        """The parent run's path below ``#/experiments/`` in the UI."""
        return f"{self._experiment_id}/runs/{self._parent_id}"

    def apply(self, event: Event) -> None:
        """Send one event.

        Raises:
            Exception: The server does not answer, or refuses.
        """
        with self._lock:
            getattr(self, f"_apply_{event['kind']}")(event)

    def kill(self) -> None:
        """Close a run whose process went away without a word."""
        if self._run_id:
            with self._lock:
                self._client.set_terminated(self._run_id, status="KILLED")

    def _apply_start(self, event: Event) -> None:
        self._run_id = self._find_or_create_child(key=event["key"])
        self._log_params(self._run_id, event["params"])
        known = self._client.get_run(self._parent_id).data.params
        section = {f"{self._run_name}.{key}": value for key, value in event["params"].items()}
        self._log_params(self._parent_id, {key: value for key, value in section.items() if key not in known})

    def _apply_metrics(self, event: Event) -> None:
        self._log_metrics(self._run_id, event["values"], step=event["step"], time_ms=event["time_ms"])

    def _apply_artifact(self, event: Event) -> None:
        path = Path(event["path"])
        with _patience():
            if path.is_dir():
                self._client.log_artifacts(self._run_id, str(path), artifact_path=path.name)
            else:
                self._client.log_artifact(self._run_id, str(path))

    def _apply_record(self, event: Event) -> None:
        with _patience():
            self._client.log_artifacts(self._parent_id, event["path"], artifact_path=RECORD)

    def _apply_model(self, event: Event) -> None:
        if not self._has_model():
            with _patience():
                registry.log_onnx(self._run_id, path=Path(event["path"]), example=Path(event["example"]))

    def _apply_register(self, event: Event) -> None:
        with _patience():
            registry.register(
                self._client,
                name=event["name"],
                experiment_id=self._experiment_id,
                run_id=self._run_id,
                path=Path(event["path"]),
                example=Path(event["example"]),
                evidence=event["evidence"],
                alias=event["alias"],
            )

    def _apply_decision(self, event: Event) -> None:
        registry.note_decision(self._client, name=event["name"], run_id=self._run_id, entry=event["entry"])

    def _apply_dataset(self, event: Event) -> None:
        dataset = Dataset(
            name=event["name"],
            digest=event["digest"][:36],  # MLflow's limit; DVC's digest of a folder fits to the letter
            source_type="dvc",
            source=json.dumps({"path": event["source"]}),
            profile=json.dumps({"num_rows": event["rows"]}),
        )
        recorded = self._client.get_run(self._parent_id).inputs
        inputs = recorded.dataset_inputs if recorded else []
        is_known = any((one.dataset.name, one.dataset.digest) == (dataset.name, dataset.digest) for one in inputs)
        for run_id in [self._run_id, *([] if is_known else [self._parent_id])]:
            self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "source")])])

    def _apply_finish(self, event: Event) -> None:
        name, status = self._run_name, event["status"]
        ended = {"status": "FAILED" if status == "failed" else "FINISHED", "end_time": event["time_ms"]}
        self._client.set_tag(self._run_id, "stage.status", status)
        self._client.set_terminated(self._run_id, **ended)
        self._client.set_tag(self._parent_id, f"stage.{name}", status)
        summary = {f"{name}.{key}": value for key, value in event["summary"].items()}
        self._log_metrics(self._parent_id, summary, step=0, time_ms=event["time_ms"])
        parent = self._client.get_run(self._parent_id)
        if status == "failed":
            later = self._all_stages[self._all_stages.index(name) + 1 :]
            for stage in (stage for stage in later if parent.data.tags.get(f"stage.{stage}") == "cached"):
                self._client.set_tag(self._parent_id, f"stage.{stage}", "not reached")
        if parent.info.status != "FAILED":
            self._client.set_terminated(self._parent_id, **ended)

    def _apply_session(self, event: Event) -> None:
        for stage, status in event["statuses"].items():
            self._client.set_tag(self._parent_id, f"stage.{stage}", status)
        self._client.set_tag(self._parent_id, "mlflow.note.content", event["note"])
        known = self._client.get_run(self._parent_id).data.metrics
        new = {key: value for key, value in event["summary"].items() if _metric_name(key) not in known}
        self._log_metrics(self._parent_id, new, step=0, time_ms=event["time_ms"])
        is_failed = "failed" in event["statuses"].values()
        status = "FAILED" if is_failed else "FINISHED"
        self._client.set_terminated(self._parent_id, status=status, end_time=event["time_ms"])

    def _apply_window(self, event: Event) -> None:
        self._log_metrics(self._parent_id, event["values"], step=event["step"], time_ms=event["time_ms"])
        self._client.log_artifact(self._parent_id, event["path"], artifact_path=f"windows/{event['name']}")
        self._client.set_terminated(self._parent_id, status="FINISHED", end_time=event["time_ms"])

    def _find_or_create_parent(self) -> str:
        query = f"tags.`datamill.session` = '{self._session.key}' and tags.`datamill.role` = 'parent'"
        found = self._client.search_runs([self._experiment_id], filter_string=query, max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = {"datamill.session": self._session.key, "datamill.role": "parent"}
        tags |= {f"stage.{name}": "cached" for name in self._all_stages}  # each stage that runs says otherwise
        run = self._client.create_run(self._experiment_id, run_name=self._session.name, tags=tags)
        return str(run.info.run_id)

    def _find_or_create_child(self, *, key: str) -> str:
        """The run that ``key`` began; its start is sent again when MLflow made it but its answer was lost."""
        query = f"tags.`datamill.key` = '{key}'"
        found = self._client.search_runs([self._experiment_id], filter_string=query, max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = {"mlflow.parentRunId": self._parent_id, "datamill.session": self._session.key, "datamill.key": key}
        return str(self._client.create_run(self._experiment_id, run_name=self._run_name, tags=tags).info.run_id)

    def _has_model(self) -> bool:
        """Whether MLflow has the run's model; one that was cut off on its way is deleted."""
        query = f"source_run_id = '{self._run_id}'"
        models = self._client.search_logged_models([self._experiment_id], filter_string=query)
        whole = [model for model in models if model.status == LoggedModelStatus.READY]
        for model in models:
            if model not in whole:
                self._client.delete_logged_model(model.model_id)
        return bool(whole)

    def _log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        items = [Param(key, value) for key, value in params.items()]
        for start in range(0, len(items), PARAMS_AT_ONCE):
            self._client.log_batch(run_id, params=items[start : start + PARAMS_AT_ONCE])

    def _log_metrics(self, run_id: str, values: Mapping[str, float], *, step: int, time_ms: int) -> None:
        items = [Metric(_metric_name(key), value, time_ms, step) for key, value in values.items()]
        for start in range(0, len(items), METRICS_AT_ONCE):
            self._client.log_batch(run_id, metrics=items[start : start + METRICS_AT_ONCE])


def fetch_record(run_id: str, *, root: Path, settings: Settings) -> Path | None:
    """The record of the session that a run belongs to: the one on this machine, or else the one MLflow keeps.

    Returns:
        Its folder below the workspace; ``None`` when the run is unknown or left no record.

    Raises:
        Exception: The server does not answer.
    """
    uri = tracking_uri(root=root, settings=settings)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return None
    knock(uri)
    client = mlflow.MlflowClient(tracking_uri=uri)
    try:
        run = client.get_run(run_id)
    except mlflow.exceptions.MlflowException:
        return None
    key = run.data.tags.get("datamill.session", "")
    folder = root / STATE / "runs" / key
    if SESSION_KEY.fullmatch(key) is None:  # whoever may write to MLflow must not name another folder
        return None
    if folder.is_dir():
        return folder
    parent = run.data.tags.get("mlflow.parentRunId", run_id)
    if not any(entry.path == RECORD for entry in client.list_artifacts(parent)):
        return None
    with files.atomic_write(folder) as partial, tempfile.TemporaryDirectory() as place:
        shutil.copytree(client.download_artifacts(parent, RECORD, place), partial)
    return folder


def _experiment(client: mlflow.MlflowClient, *, root: Path, settings: Settings, is_local: bool) -> str:
    name = experiment_name(root=root, settings=settings)
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    location = (root / "mlartifacts").resolve().as_uri() if is_local else None
    return str(client.create_experiment(name, artifact_location=location))


@contextmanager
def _patience() -> Iterator[None]:
    """Give MLflow the time to pass files on before it answers."""
    usual = os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(max(int(usual), TRANSFER_TIMEOUT_S))
    try:
        yield
    finally:
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = usual


def _metric_name(key: str) -> str:
    return "".join(char if char.isascii() and (char.isalnum() or char in "_-. /:") else "_" for char in key)
