"""Where and how to run, read once from the environment; nothing here may change a result."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from datamill.errors import ParamsError

PREFIX = "DATAMILL_"
STATE = ".datamill"  # the workspace's folder for what is neither data nor result

Tracking = Literal["on", "off", "relay"]


@dataclass(frozen=True)
class Settings:
    """The environment's wishes.

    Attributes:
        tracking_uri: ``MLFLOW_TRACKING_URI``; empty means SQLite below the workspace.
        experiment: ``MLFLOW_EXPERIMENT_NAME``; empty means the workspace's folder name.
        session: ``DATAMILL_SESSION``; ties the runs of one flow run together. Set by the flow, not by people.
        device: ``DATAMILL_DEVICE``: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        num_threads: ``DATAMILL_THREADS``: threads of one process's arithmetic; 0 means one per core.
        num_workers: ``DATAMILL_WORKERS``: independent pieces of work at a time; 0 means one per core.
        tracking: ``DATAMILL_TRACKING``: ``on`` sends to MLflow, ``relay`` keeps for the flow to send, ``off`` neither.
    """

    tracking_uri: str = ""
    experiment: str = ""
    session: str = ""
    device: str = "auto"
    num_threads: int = 0
    num_workers: int = 0
    tracking: Tracking = "on"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """The settings of this process.

        Raises:
            ParamsError: A variable has a value it cannot have.
        """
        variables = os.environ if environment is None else environment
        return cls(
            tracking_uri=variables.get("MLFLOW_TRACKING_URI", ""),
            experiment=variables.get("MLFLOW_EXPERIMENT_NAME", ""),
            session=variables.get(f"{PREFIX}SESSION", ""),
            device=variables.get(f"{PREFIX}DEVICE", "auto"),
            num_threads=_count(variables, "THREADS") or cpu_count(),
            num_workers=_count(variables, "WORKERS") or cpu_count(),
            tracking=_tracking(variables),
        )


def cpu_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_device(wish: str) -> str:
    """The torch device for ``wish``; ``auto`` takes a GPU when there is one.

    Raises:
        ParamsError: A GPU was asked for and there is none.
    """
    if wish == "cpu":
        return wish
    import torch  # only stages that train ask for a device other than the CPU

    if wish == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wish.startswith("cuda") and not torch.cuda.is_available():
        raise ParamsError(f"{PREFIX}DEVICE is {wish!r}, but torch sees no GPU here; set it to 'cpu' or 'auto'")
    if wish.partition(":")[0] not in {"cuda", "mps"}:
        raise ParamsError(f"{PREFIX}DEVICE is {wish!r}; use 'auto', 'cpu', 'cuda' or 'cuda:N'")
    return wish


def _count(variables: Mapping[str, str], name: str) -> int:
    value = variables.get(f"{PREFIX}{name}", "0")
    if not value.isdecimal():
        raise ParamsError(f"{PREFIX}{name} is {value!r}; use a whole number, or 0 for one per core")
    return int(value)


def _tracking(variables: Mapping[str, str]) -> Tracking:
    value = variables.get(f"{PREFIX}TRACKING", "on")
    for known in get_args(Tracking):
        if value == known:
            return cast(Tracking, known)
    raise ParamsError(f"{PREFIX}TRACKING is {value!r}; use 'on', 'off' or 'relay'")
