"""The tracker of one run: turns what a stage says into events, and sends or keeps them."""

import json
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamill.redaction import redact
from datamill.settings import STATE, Settings
from datamill.tracking.session import Session, model_name, tracking_uri
from datamill.tracking.spool import Event, Spool

if TYPE_CHECKING:
    from datamill.tracking.server import Server

MAX_PARAM_CHARS = 6_000


@dataclass
class Tracker:
    """Records one run, child of the session's parent run.

    Nothing here raises for a sick server: a stage's result never depends on who was listening.
    """

    root: Path
    settings: Settings
    session: Session
    run_name: str
    all_stages: tuple[str, ...] = ()
    _server: "Server | None" = field(default=None, init=False)
    _spool: Spool | None = field(default=None, init=False)

    def start(self, *, params: Mapping[str, Any]) -> None:
        """Open the run with its parameters."""
        self._record("start", key=uuid.uuid4().hex, params={key: _shorten(value) for key, value in params.items()})

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Record numbers, at a step of a curve or for the whole run."""
        if metrics:
            self._record("metrics", values={key: float(value) for key, value in metrics.items()}, step=step or 0)

    def log_artifact(self, path: Path) -> None:
        """Record a copy of a file or folder."""
        self._record("artifact", path=str(path))

    def log_model(self, path: Path, *, example: Path) -> None:
        """Record an ONNX model with its signature and input example."""
        self._record("model", path=str(path), example=str(example))

    def register_model(self, path: Path, *, example: Path, evidence: Mapping[str, Any], alias: str = "") -> None:
        """Put an ONNX model into the registry, with what speaks for it."""
        self._record(
            "register",
            path=str(path),
            example=str(example),
            evidence=dict(evidence),
            alias=alias,
            name=model_name(root=self.root, settings=self.settings),
        )

    def log_decision(self, entry: Mapping[str, Any]) -> None:
        """Record a decision about a registered model: a line of the history of promotions."""
        name = model_name(root=self.root, settings=self.settings)
        self._record("decision", entry=dict(entry), name=name)

    def log_dataset(self, *, name: str, digest: str, source: str, rows: int) -> None:
        """Name the data set that the run read."""
        self._record("dataset", name=name, digest=digest, source=source, rows=rows)

    def log_record(self, path: Path) -> None:
        """Record a copy of the folder that a whole session left behind, on the parent run."""
        self._record("record", path=str(path))

    def finish(self, *, status: str, summary: Mapping[str, float] | None = None) -> None:
        """Close the run, ``executed`` or ``failed``; ``summary`` goes to the parent run as well."""
        self._record("finish", status=status, summary=dict(summary or {}))

    def close_session(self, *, statuses: Mapping[str, str], summary: Mapping[str, float], note: str) -> str | None:
        """Say how every stage of the session ended; returns the parent run's path in the UI when MLflow has it."""
        self._record("session", statuses=dict(statuses), summary=dict(summary), note=note)
        return self._server.parent_path if self._server else None

    def log_window(self, *, name: str, step: int, metrics: Mapping[str, float], report: Path) -> str | None:
        """Record a judged window on the session's parent run, which lasts as long as the model is watched.

        Args:
            name: The window's.
            step: Its number: the metrics of all windows are time series.
            metrics: Its numbers.
            report: The page about it.

        Returns:
            The run's path in the UI when MLflow has it.
        """
        values = {key: float(value) for key, value in metrics.items()}
        self._record("window", name=name, step=step, values=values, path=str(report))
        return self._server.parent_path if self._server else None

    def _record(self, kind: str, **content: Any) -> None:
        if self.settings.tracking == "off":
            return
        event: Event = {"kind": kind, **content, "time_ms": int(time.time() * 1000)}
        if self._spool is None and self.settings.tracking == "on":
            try:
                if self._server is None:
                    self._server = self._connect()
                self._server.apply(event)
                return
            except Exception as error:  # noqa: BLE001 - whatever MLflow or the network raises must not stop a stage
                warn_away(error, root=self.root, settings=self.settings)
        if self._spool is None:
            run_id = self._server.run_id if self._server else None
            stages = self.all_stages
            self._spool = Spool.open(
                self.root, session=self.session, run_name=self.run_name, stages=stages, run_id=run_id
            )
            self._server = None
        self._spool.keep(event)

    def _connect(self) -> "Server":
        from datamill.tracking.server import Server
        from datamill.tracking.spool import Relay

        server = Server.connect(
            root=self.root,
            settings=self.settings,
            session=self.session,
            run_name=self.run_name,
            all_stages=self.all_stages,
        )
        Relay(root=self.root, settings=self.settings).pump()
        return server


def warn_away(error: Exception, *, root: Path, settings: Settings) -> None:
    """Tell that MLflow does not answer, and what becomes of the record."""
    reason = redact(" ".join(str(error).split()))[:160]
    print(
        f"  warning: MLflow at {redact(tracking_uri(root=root, settings=settings))} does not answer "
        f"({type(error).__name__}: {reason}); the run goes on, its record waits in {STATE}/spool and is sent when the "
        "server is back",
        file=sys.stderr,
        flush=True,
    )


def _shorten(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MAX_PARAM_CHARS else text[: MAX_PARAM_CHARS - 3] + "..."
