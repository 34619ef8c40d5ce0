"""Whose run a stage belongs to, and where MLflow is."""

import re
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from datamill import warm
from datamill.settings import Settings

CONNECT_TIMEOUT_S = 2.0


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
    if (keeper := warm.find_keeper()) is not None:
        return Session(f"dvc-{keeper.pid}-{keeper.start}", "dvc repro")
    return Session(f"stage-{uuid.uuid4().hex[:12]}", "single stage")


def tracking_uri(*, root: Path, settings: Settings) -> str:
    """The address of MLflow: the environment's, or a SQLite file in the workspace."""
    return settings.tracking_uri or f"sqlite:///{(root / 'mlflow.db').resolve()}"


def experiment_name(*, root: Path, settings: Settings) -> str:
    """The name of MLflow's experiment: the environment's, or the workspace's folder."""
    return settings.experiment or root.resolve().name


def model_name(*, root: Path, settings: Settings) -> str:
    """The name of the registered model: the experiment's, less what MLflow forbids there."""
    return re.sub(r"[/:\\]", "-", experiment_name(root=root, settings=settings)).lstrip(".") or "model"


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
