"""What a stage is: a function, its parameters, and the artifacts it reads and writes."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, field_validator

from datamill.redaction import holds_password
from datamill.settings import resolve_device

T = TypeVar("T")
R = TypeVar("R")

Metrics = dict[str, Any]
"""Numbers by name, nested at will; what a stage returns. Never a duration: equal inputs must give equal metrics."""


class Params(BaseModel):
    """One section of ``params.yaml``: every field documented, no default, unknown keys and passwords refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*")
    @classmethod
    def _tells_no_password(cls, value: Any) -> Any:
        """Parameters go into Git, MLflow and messages."""
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and holds_password(text):
                raise ValueError("it holds a password; give it by an environment variable, or a file its library reads")
        return value


@dataclass(frozen=True)
class Plot:
    """How ``dvc plots`` draws an artifact; all empty for a picture."""

    x: str | None = None
    y: str | None = None
    template: str | None = None


@dataclass(frozen=True)
class Artifact:
    """Something a stage writes, named by its path below the workspace's root.

    Attributes:
        path: POSIX path relative to the root.
        in_git: Small and worth a diff: kept in Git instead of DVC's cache.
        measured: Holds durations or links, so its bytes differ from run to run: neither DVC nor Git track it.
        logged: The tracker receives a copy (reports, pictures, small tables; not data).
        dataset: The tracker names it as the data set of every run that reads it.
        example: Path of an input example; given for a model, which the tracker registers with its signature.
        plot: How ``dvc plots`` draws it.
    """

    path: str
    in_git: bool = False
    measured: bool = False
    logged: bool = False
    dataset: bool = False
    example: str | None = None
    plot: Plot | None = None


@dataclass(frozen=True)
class Account:
    """Which samples a stage owes an answer for; ``execute`` refuses a ledger that does not add up.

    Attributes:
        ledger: Output port of the ledger.
        population: Input ports whose samples come in: all samples of a parts folder, the surviving ones of a ledger.
        created: Output ports of parts the stage makes itself; their samples come in as well and are kept.
    """

    ledger: str
    population: tuple[str, ...] = ()
    created: tuple[str, ...] = ()


class Tracker(Protocol):
    """Where a stage reports numbers and files while it runs; a sick tracker never stops a stage."""

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Record numbers, at a step of a curve or for the whole stage; durations are welcome here."""


class Engine(Protocol):
    """Where the parts of the data are worked on."""

    def map(
        self, function: Callable[[T], R], items: Iterable[T], *, total: int | None = None, is_lockless: bool = False
    ) -> Iterator[R]:
        """Results in the order of ``items``; few of them wait at a time, so memory does not grow with their number.

        ``function`` is a function of a module, or a ``functools.partial`` of one; what it takes and gives can be
        pickled. A worker that dies has its item tried again. A function that lets go of Python's lock most of the time,
        which ``is_lockless`` says, runs on threads where no cluster is.
        """

    def share(self, path: Path) -> str:
        """Where workers find a file of the workspace."""


class Progress(Protocol):
    """Shows how far long work has come."""

    def __call__(self, items: Iterable[T], *, total: int | None, label: str) -> Iterable[T]:
        """``items`` unchanged; a bar in a terminal, a plain line now and then elsewhere."""


@dataclass(frozen=True)
class Context:
    """Where and how a stage runs; nothing in it may change a result.

    Attributes:
        wanted_device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; ``device`` says which it is.
        num_threads: Threads for one process's arithmetic.
        num_workers: Processes or threads for independent pieces of work; at least 1.
        engine: Maps a function over independent parts of the data, on this machine or on a cluster.
        previous: What the stage wrote the last time, by output port; a source of results to reuse where they are named
            by the content they were made from, and never of anything else. Absent before the first run.
        tracker: Receives numbers and files.
        scratch: A folder for checkpoints, empty unless a run with equal inputs, parameters and code was killed.
        state: The stage's own folder for what makes its next run cheaper. It lasts, is neither data nor result, and may
            be deleted or damaged at any time: what is in it is checked before it is believed.
        progress: Wraps iterables of long work.
    """

    wanted_device: str
    num_threads: int
    num_workers: int
    engine: Engine
    previous: Mapping[str, Path]
    scratch: Path
    state: Path
    tracker: Tracker
    progress: Progress

    @cached_property
    def device(self) -> str:
        """``cpu``, ``cuda`` or ``cuda:N``; finding out loads torch, so whoever needs no device does not ask.

        Raises:
            ParamsError: A GPU was asked for and there is none.
        """
        return resolve_device(self.wanted_device)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A declared stage. The keyword arguments of ``run`` are its ports.

    Attributes:
        run: ``run(*, <inputs>, <outputs>, params[, context]) -> Metrics``, paths in, files out.
        params: Type of its section in ``params.yaml``.
        inputs: Artifact by input port.
        outputs: Artifact by output port.
        account: Which ledger it writes for whom; ``None`` for stages that decide about no sample.
        by_part: Works part by part, and leaves parts alone whose samples have not changed.

    Raises:
        TypeError: The declaration differs from the function's signature.
    """

    run: Callable[..., Metrics]
    params: type[Params]
    inputs: Mapping[str, Artifact] = field(default_factory=dict)
    outputs: Mapping[str, Artifact]
    account: Account | None = None
    by_part: bool = False

    def __post_init__(self) -> None:
        declared = {*self.inputs, *self.outputs, "params"}
        wanted = set(inspect.signature(self.run).parameters) - {"context"}
        if declared != wanted:
            raise TypeError(
                f"stage {self.name}: ports {sorted(declared - wanted)} are declared but not arguments of the function, "
                f"arguments {sorted(wanted - declared)} are not declared"
            )

    @property
    def name(self) -> str:
        """The function's name: one verb."""
        return self.run.__name__

    @property
    def module(self) -> str:
        """Dotted name of the module the stage is declared in."""
        return self.run.__module__

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.run) or "").partition("\n")[0]

    @property
    def wants_context(self) -> bool:
        """Whether the function takes ``context``."""
        return "context" in inspect.signature(self.run).parameters

    @property
    def metrics(self) -> Artifact:
        """Where its metrics are written."""
        return metrics_of(self.name)


def metrics_of(name: str) -> Artifact:
    """The artifact in which ``execute`` stores the metrics of the stage ``name``."""
    return Artifact(f"reports/{name}.json", in_git=True, logged=True)


def topological(stages: Iterable[Stage]) -> dict[str, tuple[str, ...]]:
    """Names of the stages each stage needs, in declared order.

    Raises:
        TypeError: An artifact has two producers, or is read before any stage writes it.
    """
    producer: dict[str, str] = {}
    needs: dict[str, tuple[str, ...]] = {}
    for stage in stages:
        for port, artifact in stage.inputs.items():
            if artifact.path not in producer:
                raise TypeError(f"stage {stage.name} reads {port} from {artifact.path}, which no earlier stage writes")
        needs[stage.name] = tuple(dict.fromkeys(producer[artifact.path] for artifact in stage.inputs.values()))
        for artifact in (*stage.outputs.values(), stage.metrics):
            if artifact.path in producer:
                raise TypeError(f"{artifact.path} is written by {producer[artifact.path]} and by {stage.name}")
            producer[artifact.path] = stage.name
    return needs
