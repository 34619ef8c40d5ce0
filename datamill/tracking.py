"""What happened, told to MLflow: one parent run per session, one child per executed stage.

The only module that imports MLflow. A session is one flow run or one ``dvc repro``. Everything is an *event*; events
are sent as they come while the server answers. When it does not, the stage goes on, the events are kept in a spool
below the workspace, and the next session that finds the server sends them first.
"""

import json
import logging
import os
import re
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from datamill import files
from datamill.settings import Settings

STATE = ".datamill"  # the workspace's folder for what is neither data nor result
CONNECT_TIMEOUT_S = 2.0
REQUEST_TIMEOUT_S = 3
MAX_PARAM_CHARS = 6_000

Event = dict[str, Any]


@dataclass(frozen=True)
class Session:
    """Whose run a stage belongs to.

    Attributes:
        key: Equal for every stage of one flow run or one ``dvc repro``.
        name: What people see in the list of runs.
    """

    key: str
    name: str


def current_session(settings: Settings) -> Session:
    """The flow's session when there is one, else the ``dvc`` process above this one, else a session of its own."""
    if settings.session:
        key, _, name = settings.session.partition("=")
        return Session(key, name or key)
    import psutil

    with suppress(psutil.Error):
        for process in psutil.Process().parents():
            if any(Path(word).name == "dvc" for word in process.cmdline()[:4]):
                return Session(f"dvc-{process.pid}-{int(process.create_time())}", "dvc repro")
    return Session(f"stage-{uuid.uuid4().hex[:12]}", "single stage")


@dataclass
class Tracker:
    """Sends the events of one run, child of the session's parent run; keeps them when the server is away.

    Nothing here raises for a sick server: a stage's result never depends on who was listening.
    """

    root: Path
    settings: Settings
    session: Session
    run_name: str
    all_stages: tuple[str, ...] = ()
    _sent: "_Server | None" = field(default=None, init=False)
    _spool: Path | None = field(default=None, init=False)

    def start(self, *, params: Mapping[str, Any]) -> None:
        """Open the run with its parameters; earlier spooled runs are sent first."""
        if self.settings.tracking:
            self._record({"kind": "start", "params": {key: _shorten(value) for key, value in params.items()}})

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Record numbers, at a step of a curve or for the whole run."""
        if self.settings.tracking and metrics:
            numbers = {key: float(value) for key, value in metrics.items()}
            self._record({"kind": "metrics", "values": numbers, "step": step or 0, "time_ms": _now_ms()})

    def log_artifact(self, path: Path, *, folder: str) -> None:
        """Record a copy of a file or folder."""
        if self.settings.tracking:
            self._record({"kind": "artifact", "path": str(path), "folder": folder})

    def log_model(self, path: Path, *, example: Path) -> None:
        """Record an ONNX model with its signature and input example."""
        if self.settings.tracking:
            self._record({"kind": "model", "path": str(path), "example": str(example)})

    def log_dataset(self, *, name: str, digest: str, source: str, rows: int) -> None:
        """Name the data set that the run read."""
        if self.settings.tracking:
            self._record({"kind": "dataset", "name": name, "digest": digest, "source": source, "rows": rows})

    def finish(self, *, status: str, summary: Mapping[str, float] | None = None) -> None:
        """Close the run: ``executed``, ``failed`` or ``cached``; ``summary`` goes to the parent run as well."""
        if self.settings.tracking:
            self._record({"kind": "finish", "status": status, "summary": dict(summary or {}), "time_ms": _now_ms()})

    def close_session(self, *, statuses: Mapping[str, str], summary: Mapping[str, float], note: str) -> str | None:
        """Say how every stage of the session ended; returns the parent run's id when the server has it."""
        if not self.settings.tracking:
            return None
        event = {"kind": "session", "statuses": dict(statuses), "summary": dict(summary), "note": note}
        self._record({**event, "time_ms": _now_ms()})
        return None if self._sent is None else f"{self._sent.experiment_id}/runs/{self._sent.parent_id}"

    def _record(self, event: Event) -> None:
        if self._spool is None:
            try:
                if self._sent is None:
                    self._sent = _Server.connect(self)
                self._sent.apply(event)
                return
            except Exception as error:  # noqa: BLE001 - whatever MLflow or the network raises must not stop a stage
                self._go_offline(error)
        self._keep(event)

    def _go_offline(self, error: Exception) -> None:
        self._spool = self.root / STATE / "spool" / f"{time.time_ns()}-{self.run_name}"
        self._spool.mkdir(parents=True)
        run_id = self._sent.run_id if self._sent else None
        header = {"session": [self.session.key, self.session.name], "run_name": self.run_name, "run_id": run_id}
        files.write_json(self._spool / "run.json", {**header, "stages": list(self.all_stages)})
        reason = redact(" ".join(str(error).split()))[:160]
        print(
            f"  warning: MLflow at {redact(_uri(self))} does not answer ({type(error).__name__}: {reason}); "
            f"the run goes on, its record waits in {STATE}/spool and is sent when the server is back",
            file=sys.stderr,
            flush=True,
        )

    def _keep(self, event: Event) -> None:
        assert self._spool is not None
        for key in ("path", "example"):  # the next run replaces these files, so the spool keeps its own copies
            if key in event:
                source = Path(event[key])
                target = self._spool / "files" / uuid.uuid4().hex[:8] / source.name
                target.parent.mkdir(parents=True)
                (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)
                event = {**event, key: str(target.relative_to(self._spool))}
        with (self._spool / "events.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(event) + "\n")


def replay(*, root: Path, settings: Settings) -> int:
    """Send what earlier sessions had to keep; returns the number of runs sent.

    Raises:
        Exception: The server fell silent again; what was not sent stays in the spool.
    """
    sent = 0
    for spool in sorted((root / STATE / "spool").glob("*/run.json")):
        folder = spool.parent
        header = json.loads(spool.read_text(encoding="utf-8"))
        tracker = Tracker(root, settings, Session(*header["session"]), header["run_name"], tuple(header["stages"]))
        server = _Server.connect(tracker, replays=False)
        server.run_id = header["run_id"]
        log = folder / "events.jsonl"
        for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
            event = json.loads(line)
            server.apply({**event, **{key: str(folder / event[key]) for key in ("path", "example") if key in event}})
        files.remove(folder)
        sent += 1
    return sent


class _Server:
    """A reachable MLflow server or database, and the run that events go to."""

    def __init__(self, client: Any, tracker: Tracker, experiment_id: str) -> None:
        self._client = client
        self._tracker = tracker
        self.experiment_id = experiment_id
        self._lock = FileLock(tracker.root / STATE / "mlflow.lock")  # SQLite takes one writer; first use creates tables
        self.parent_id = ""
        self.run_id: str | None = None

    @classmethod
    def connect(cls, tracker: Tracker, *, replays: bool = True) -> "_Server":
        uri = _uri(tracker)
        knock(uri)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_TIMEOUT_S))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        (tracker.root / STATE).mkdir(exist_ok=True)
        with FileLock(tracker.root / STATE / "mlflow.lock"):
            import mlflow

            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.WARNING)
            mlflow.set_tracking_uri(uri)
            client = mlflow.MlflowClient(tracking_uri=uri)
            name = tracker.settings.experiment or tracker.root.resolve().name
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                local = (tracker.root / "mlartifacts").resolve().as_uri() if uri.startswith("sqlite:") else None
                experiment_id = client.create_experiment(name, artifact_location=local)
            else:
                experiment_id = experiment.experiment_id
        server = cls(client, tracker, experiment_id)
        if replays:
            replay(root=tracker.root, settings=tracker.settings)
        with server._lock:
            server.parent_id = server._find_or_create_parent()
        return server

    def apply(self, event: Event) -> None:
        """Send one event."""
        with self._lock:
            getattr(self, f"_apply_{event['kind']}")(event)

    def _apply_start(self, event: Event) -> None:
        tags = {"mlflow.parentRunId": self.parent_id, "datamill.session": self._tracker.session.key}
        run = self._client.create_run(self.experiment_id, run_name=self._tracker.run_name, tags=tags)
        self.run_id = run.info.run_id
        self._log_params(self.run_id, event["params"])
        section = {f"{self._tracker.run_name}.{key}": value for key, value in event["params"].items()}
        known = self._client.get_run(self.parent_id).data.params
        self._log_params(self.parent_id, {key: value for key, value in section.items() if key not in known})

    def _apply_metrics(self, event: Event) -> None:
        self._log_metrics(self.run_id, event["values"], step=event["step"], time_ms=event["time_ms"])

    def _apply_artifact(self, event: Event) -> None:
        path = Path(event["path"])
        if path.is_dir():
            self._client.log_artifacts(
                self.run_id, str(path), artifact_path=f"{event['folder']}/{path.name}".strip("/")
            )
        else:
            self._client.log_artifact(self.run_id, str(path), artifact_path=event["folder"] or None)

    def _apply_model(self, event: Event) -> None:
        import mlflow
        import numpy as np
        import onnx
        import onnxruntime
        from mlflow.models import infer_signature

        example = np.load(event["example"], allow_pickle=False)
        session = onnxruntime.InferenceSession(event["path"], providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        outputs = dict(zip(names, session.run(names, {session.get_inputs()[0].name: example}), strict=True))
        with mlflow.start_run(run_id=self.run_id):
            mlflow.onnx.log_model(
                onnx.load(event["path"]),
                name="model",
                signature=infer_signature(example, outputs),
                input_example=example,
                pip_requirements=[f"onnx=={onnx.__version__}", f"onnxruntime=={onnxruntime.__version__}"],
                save_as_external_data=False,
            )

    def _apply_dataset(self, event: Event) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=event["name"],
            digest=event["digest"][:36],
            source_type="dvc",
            source=json.dumps({"path": event["source"]}),
            profile=json.dumps({"num_rows": event["rows"]}),
        )
        known = {
            seen.dataset.digest
            for seen in self._client.get_run(self.parent_id).inputs.dataset_inputs
            if seen.dataset.name == event["name"]
        }
        for run_id in [self.run_id, *([] if dataset.digest in known else [self.parent_id])]:
            self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "source")])])

    def _apply_finish(self, event: Event) -> None:
        name, status = self._tracker.run_name, event["status"]
        self._client.set_tag(self.run_id, "stage.status", status)
        ended = {"status": "FAILED" if status == "failed" else "FINISHED", "end_time": event["time_ms"]}
        self._client.set_terminated(self.run_id, **ended)
        self._client.set_tag(self.parent_id, f"stage.{name}", status)
        summary = {f"{name}.{key}": value for key, value in event["summary"].items()}
        self._log_metrics(self.parent_id, summary, step=0, time_ms=event["time_ms"])
        parent = self._client.get_run(self.parent_id)
        if status == "failed":
            later = self._tracker.all_stages[self._tracker.all_stages.index(name) + 1 :]
            for stage in (stage for stage in later if parent.data.tags.get(f"stage.{stage}") == "cached"):
                self._client.set_tag(self.parent_id, f"stage.{stage}", "not reached")
        if parent.info.status != "FAILED":
            self._client.set_terminated(self.parent_id, **ended)

    def _apply_session(self, event: Event) -> None:
        for stage, status in event["statuses"].items():
            self._client.set_tag(self.parent_id, f"stage.{stage}", status)
        self._client.set_tag(self.parent_id, "mlflow.note.content", event["note"])
        known = self._client.get_run(self.parent_id).data.metrics
        new = {key: value for key, value in event["summary"].items() if _metric_name(key) not in known}
        self._log_metrics(self.parent_id, new, step=0, time_ms=event["time_ms"])
        failed = "failed" in event["statuses"].values()
        self._client.set_terminated(
            self.parent_id, status="FAILED" if failed else "FINISHED", end_time=event["time_ms"]
        )

    def _find_or_create_parent(self) -> str:
        session = self._tracker.session
        query = f"tags.`datamill.session` = '{session.key}' and tags.`datamill.role` = 'parent'"
        found = self._client.search_runs([self.experiment_id], filter_string=query, max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = {"datamill.session": session.key, "datamill.role": "parent"}
        tags |= {f"stage.{name}": "cached" for name in self._tracker.all_stages}  # each stage that runs says otherwise
        return str(self._client.create_run(self.experiment_id, run_name=session.name, tags=tags).info.run_id)

    def _log_params(self, run_id: str | None, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        items = [Param(key, value) for key, value in params.items()]
        for start in range(0, len(items), 100):
            self._client.log_batch(run_id, params=items[start : start + 100])

    def _log_metrics(self, run_id: str | None, values: Mapping[str, float], *, step: int, time_ms: int) -> None:
        from mlflow.entities import Metric

        items = [Metric(_metric_name(key), value, time_ms, step) for key, value in values.items()]
        for start in range(0, len(items), 1000):
            self._client.log_batch(run_id, metrics=items[start : start + 1000])


def tracking_uri(*, root: Path, settings: Settings) -> str:
    """The address of MLflow: the environment's, or a SQLite file in the workspace."""
    return settings.tracking_uri or f"sqlite:///{(root / 'mlflow.db').resolve()}"


def redact(text: str) -> str:
    """``text`` with user names and passwords taken out of every address in it."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)


def knock(uri: str) -> None:
    """Return at once when something listens at ``uri``; databases and folders always do.

    Raises:
        OSError: Nothing answers within ``CONNECT_TIMEOUT_S``.
    """
    parts = urlsplit(uri)
    if parts.scheme in {"http", "https"}:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=CONNECT_TIMEOUT_S).close()


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of flat metrics; texts and lists are left out."""
    return {key: float(value) for key, value in metrics.items() if isinstance(value, int | float)}


def _uri(tracker: Tracker) -> str:
    return tracking_uri(root=tracker.root, settings=tracker.settings)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _shorten(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MAX_PARAM_CHARS else text[: MAX_PARAM_CHARS - 3] + "..."


def _metric_name(key: str) -> str:
    return "".join(char if char.isalnum() or char in "_-. /:" else "_" for char in key)
