"""Where and how to run, read once from the environment; nothing here may change a result."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from datamill.errors import ParamsError

PREFIX = "DATAMILL_"
STATE = ".datamill"  # the workspace's folder for what is neither data nor result
RUNS_KEPT = 200

Tracking = Literal["on", "off", "relay"]
EngineKind = Literal["loky", "dask", "ray"]


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
        engine: ``DATAMILL_ENGINE``: ``loky`` works on this machine, ``dask`` and ``ray`` on a cluster that is running.
        engine_address: ``DATAMILL_ENGINE_ADDRESS``: of the cluster, as ``tcp://host:8786``; ``auto`` finds Ray's here.
        storage: ``DATAMILL_STORAGE``: a folder, or an fsspec URL such as ``s3://bucket/prefix``, that this machine and
            the workers of the cluster reach; empty means that they share a file system.
        keep_runs: ``DATAMILL_KEEP_RUNS``: latest flow runs that stay on record, about 250 kB each; 0 means 200.
    """

    tracking_uri: str = ""
    experiment: str = ""
    session: str = ""
    device: str = "auto"
    num_threads: int = 0
    num_workers: int = 0
    tracking: Tracking = "on"
    engine: EngineKind = "loky"
    engine_address: str = ""
    storage: str = ""
    keep_runs: int = RUNS_KEPT

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """The settings of this process.

        Raises:
            ParamsError: A variable has a value it cannot have.
        """
        variables = os.environ if environment is None else environment
        engine: EngineKind = _choice(variables, "ENGINE", get_args(EngineKind))
        return cls(
            tracking_uri=_tracking_uri(variables),
            experiment=variables.get("MLFLOW_EXPERIMENT_NAME", ""),
            session=variables.get(f"{PREFIX}SESSION", ""),
            device=variables.get(f"{PREFIX}DEVICE", "auto"),
            num_threads=_count(variables, "THREADS") or cpu_count(),
            num_workers=_count(variables, "WORKERS") or cpu_count(),
            tracking=_choice(variables, "TRACKING", get_args(Tracking)),
            engine=engine,
            engine_address=_address(variables, engine=engine),
            storage=_without_secret(variables, "STORAGE"),
            keep_runs=_count(variables, "KEEP_RUNS", zero=str(RUNS_KEPT)) or RUNS_KEPT,
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


def _count(variables: Mapping[str, str], name: str, *, zero: str = "one per core") -> int:
    value = variables.get(f"{PREFIX}{name}", "0")
    if not value.isdecimal():
        raise ParamsError(f"{PREFIX}{name} is {value!r}; use a whole number, or 0 for {zero}")
    return int(value)


def _choice(variables: Mapping[str, str], name: str, known: Sequence[Any]) -> Any:
    """One of ``known``, the first of which is the default."""
    value = variables.get(f"{PREFIX}{name}") or known[0]
    if value not in known:
        listed = ", ".join(map(repr, known[:-1]))
        raise ParamsError(f"{PREFIX}{name} is {value!r}; use {listed} or {known[-1]!r}")
    return value


def _address(variables: Mapping[str, str], *, engine: EngineKind) -> str:
    address = _without_secret(variables, "ENGINE_ADDRESS")
    if engine == "dask" and not address:
        raise ParamsError(
            f"{PREFIX}ENGINE is 'dask', but {PREFIX}ENGINE_ADDRESS is empty; give the scheduler's, as tcp://host:8786"
        )
    return address or ("auto" if engine == "ray" else "")


def _tracking_uri(variables: Mapping[str, str]) -> str:
    """An address that can be taken apart; a library that cannot would tell it with its password."""
    value = variables.get("MLFLOW_TRACKING_URI", "")
    try:
        urlsplit(value).port  # noqa: B018 - raises where a password holds a slash
    except ValueError:
        raise ParamsError(
            "MLFLOW_TRACKING_URI cannot be read as an address; percent-encode what is special in its password, or give "
            "it as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        ) from None
    return value


def _without_secret(variables: Mapping[str, str], name: str) -> str:
    """An address, which goes into messages and to workers, and so must not hold a password, a key or a token."""
    value = variables.get(f"{PREFIX}{name}", "")
    parts = urlsplit(value)
    if parts.query or ":" in parts.netloc.rpartition("@")[0]:
        raise ParamsError(
            f"{PREFIX}{name} holds a password or a token; leave it out and give it where the library looks for it, "
            "such as AWS_SECRET_ACCESS_KEY or a file in ~/.config/fsspec"
        )
    return value
