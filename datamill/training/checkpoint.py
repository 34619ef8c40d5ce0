"""Everything a killed run needs to go on as if nothing had happened: one safetensors file, replaced in one rename."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from datamill import files
from datamill.errors import StageError
from datamill.training.history import EpochResult
from datamill.training.times import Times

FILE = "checkpoint.safetensors"
VERSION = 2
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Progress:
    """How far an epoch has come.

    Attributes:
        loader: State of the loader of training batches.
        num_steps: Optimizer steps done.
        totals: Summed loss, hits and gradient norms of these steps.
        times: Durations so far.
        random: States of the random generators, by device.
    """

    loader: Mapping[str, Any] = field(default_factory=dict)
    num_steps: int = 0
    totals: tuple[float, ...] = (0.0, 0.0, 0.0)
    times: Times = field(default_factory=Times)
    random: Tensors = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A run after an epoch, or on its way through the next one.

    Attributes:
        network: State of the network.
        best: State of the network after its best epoch.
        optimizer: State of the optimizer, ``<parameter's number>.<name>``.
        history: Every epoch so far.
        times: Durations of every epoch so far.
        progress: How far the epoch after these has come; ``None`` between epochs.
    """

    network: Tensors
    best: Tensors
    optimizer: Tensors
    history: list[EpochResult]
    times: list[Times]
    progress: Progress | None = None


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint; a kill at any moment leaves the old one or the new one, whole."""
    progress = checkpoint.progress
    state: dict[str, Any] = {
        "version": VERSION,
        "history": [asdict(result) for result in checkpoint.history],
        "times": [asdict(times) for times in checkpoint.times],
    }
    groups = {"network": checkpoint.network, "best": checkpoint.best, "optimizer": checkpoint.optimizer}
    if progress is not None:
        state["progress"] = {name: value for name, value in asdict(progress).items() if name != "random"}
        groups["random"] = progress.random
    tensors = {f"{group}.{name}": value for group, members in groups.items() for name, value in members.items()}
    save_tensors(folder / FILE, tensors, metadata={"state": json.dumps(state)})


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The folder's checkpoint; ``None`` when there is none, so that training starts from the beginning.

    Raises:
        StageError: The checkpoint is damaged or of another version.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StageError(f"checkpoint {path} is damaged ({error}); delete it to train from the beginning") from error
    if state["version"] != VERSION:
        raise StageError(f"checkpoint {path} has version {state['version']}, not {VERSION}; delete it to train again")
    return Checkpoint(
        network=_group(tensors, "network"),
        best=_group(tensors, "best"),
        optimizer=_group(tensors, "optimizer"),
        history=[EpochResult(**result) for result in state["history"]],
        times=[Times(**times) for times in state["times"]],
        progress=_read_progress(state.get("progress"), random=_group(tensors, "random")),
    )


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, atomically; equal tensors give equal bytes."""
    # Copies, because safetensors refuses tensors that share memory, as the network's and the best one's may.
    plain = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    with files.atomic_write(path) as partial:
        save_file(plain, partial, metadata=metadata)


def snapshot(network: nn.Module) -> Tensors:
    """A copy of a network's state, which further training leaves alone."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """An optimizer's state as named tensors; its learning rates belong to the schedule."""
    states = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, state in states.items() for name, value in state.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer the state that ``optimizer_tensors`` returned.

    Every tensor gets its parameter's memory layout: another one would take another path through the arithmetic and
    round differently.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[int, Tensors] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        like = parameters[int(number)]
        laid_out = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        states.setdefault(int(number), {})[name] = laid_out.detach()
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def random_tensors() -> Tensors:
    """States of torch's random generators, by device."""
    devices = range(torch.cuda.device_count())
    return {"cpu": torch.get_rng_state(), **{f"cuda{one}": torch.cuda.get_rng_state(one) for one in devices}}


def restore_random(tensors: Mapping[str, Tensor]) -> None:
    """Put torch's random generators where ``random_tensors`` found them."""
    torch.set_rng_state(tensors["cpu"])
    for number in range(torch.cuda.device_count()):
        if f"cuda{number}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda{number}"], number)


def _read_progress(state: dict[str, Any] | None, *, random: Tensors) -> Progress | None:
    if state is None:
        return None
    return Progress(
        loader=state["loader"],
        num_steps=state["num_steps"],
        totals=tuple(state["totals"]),
        times=Times(**state["times"]),
        random=random,
    )


def _group(tensors: Tensors, group: str) -> Tensors:
    prefix = f"{group}."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
