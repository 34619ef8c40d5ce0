"""One measurement in a process of its own: ``python -m benchmarks.loading.child REQUEST RESULT``, both JSON."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.loading.building import FORMATS
from benchmarks.loading.contender import Batch, Contender, Epochs, read_data
from benchmarks.loading.tasks import TASKS
from benchmarks.loading.works import contenders_of

CHECKED_BATCHES = 8  # of the first epoch, against the samples
TIMED = "timed"
"""Printed when the clock has stopped and memory may be sampled."""


def find(work: str, name: str) -> Contender:
    return next(one for one in contenders_of(work) if one.name == name)


def missing_rows(ids: Iterable[Any], *, num_rows: int) -> str | None:
    """What is wrong when the rows of an epoch are not each row once."""
    found = np.concatenate([np.asarray(one).reshape(-1) for one in ids])
    counts = np.bincount(found, minlength=num_rows)
    if len(counts) == num_rows and (counts == 1).all():
        return None
    absent = int((counts[:num_rows] == 0).sum())
    return f"{len(found)} rows instead of {num_rows}, {absent} absent, {int((counts > 1).sum())} twice or more"


def is_in_order(ids: Iterable[Any]) -> bool:
    """Do the rows come as they are stored?"""
    found = np.concatenate([np.asarray(one).reshape(-1) for one in ids])
    return len(found) > 1 and bool((np.diff(found) == 1).mean() > 0.5)


def first_epoch(epochs: Epochs, *, work: str, folder: Path, is_strict: bool) -> tuple[str | None, float]:
    """Fault of an epoch that is not timed, and the share of its elements that is padding."""
    data, task, ids, elements = read_data(folder), TASKS[work], [], 0
    source, fault = task.source(data.source), None
    for number, batch in enumerate(epochs(0)):
        if batch.x is not None and number < CHECKED_BATCHES and fault is None:
            fault = task.fault(batch, source, is_strict=is_strict)
        elements += 0 if batch.x is None else batch.x.numel()
        ids.append(np.array(batch.ids))
    fault = fault or missing_rows(ids, num_rows=data.num_rows)
    fault = fault or ("the rows are not shuffled" if is_in_order(ids) else None)
    real = int(source.lengths.sum()) if work == "sequences" else elements  # type: ignore[attr-defined]
    return fault, 1 - real / elements if elements else 0.0


def measure_epochs(*, work: str, contender: str, folder: str, min_seconds: float) -> dict[str, Any]:
    """Samples per second over whole epochs, after one that is checked; then more epochs for memory's sake."""
    data = read_data(Path(folder))
    one = find(work, contender)
    epochs = one.open(data)
    fault, padding = first_epoch(epochs, work=work, folder=Path(folder), is_strict=one.role == "ours")
    seconds, number, faults = 0.0, 0, [fault]
    while seconds < min_seconds:
        number += 1
        ids = []
        start = time.perf_counter()
        for batch in epochs(number):
            ids.append(batch.ids)
        seconds += time.perf_counter() - start
        faults.append(missing_rows(ids, num_rows=data.num_rows))
    print(TIMED, flush=True)
    _keep_busy(epochs, number=number, seconds=min_seconds)
    fault = next((one for one in faults if one), None)
    return {"rate": number * data.num_rows / seconds, "fault": fault, "padding": padding}


def _keep_busy(epochs: Epochs, *, number: int, seconds: float) -> None:
    stop = time.perf_counter() + seconds
    while True:
        number += 1
        for _ in epochs(number):
            if time.perf_counter() > stop:
                return


def measure_building(*, work: str, contender: str, folder: str, out: str) -> dict[str, Any]:
    """Seconds to write a format from samples in memory."""
    task, (write, modules) = TASKS[work], FORMATS[contender]
    source = task.source(read_data(Path(folder)).source, in_memory=True)
    source.take(np.arange(1))
    for name in modules:
        __import__(name) if name != "streaming" else None
    start = time.perf_counter()
    write(Path(out), task=task, source=source, name=work)
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in Path(out).rglob("*") if path.is_file())
    return {"seconds": seconds, "size_bytes": size, "fault": None}


def measure_start(*, work: str, contender: str, folder: str) -> dict[str, Any]:
    """Seconds from ``import torch`` to the first batch."""
    data, one = read_data(Path(folder)), find(work, contender)
    start = time.perf_counter()
    import torch  # noqa: F401

    imported = time.perf_counter()
    first: Batch = next(iter(one.open(data)(0)))
    seconds = time.perf_counter() - imported
    fault = None if len(first.ids) == data.batch_size else f"the first batch has {len(first.ids)} rows"
    return {"seconds": seconds, "import_torch": imported - start, "fault": fault}


def measure_resume(*, work: str, folder: str, state: str, is_fresh: bool) -> dict[str, Any]:
    """Seconds to the first batch of a loader; one that is not fresh starts where ``state`` says and compares it."""
    from benchmarks.loading.ours import make_loader

    data, path = read_data(Path(folder)), Path(state)
    import torch  # noqa: F401

    start = time.perf_counter()
    loader = make_loader(data, work)
    if not is_fresh:
        loader.load_state_dict(json.loads((path / "state.json").read_text()))
    iterator = iter(loader)
    batch = next(iterator)
    seconds = time.perf_counter() - start
    fault = None
    if is_fresh:
        for _ in range(data.num_rows // data.batch_size // 2):
            batch = next(iterator)
        (path / "state.json").write_text(json.dumps(loader.state_dict()))
        np.savez(path / "batch.npz", **_arrays(next(iterator)))
    else:
        with np.load(path / "batch.npz") as wanted:
            found = _arrays(batch)
            fault = next((f"{key} differs" for key in wanted if not np.array_equal(wanted[key], found[key])), None)
    return {"seconds": seconds, "fault": fault}


def _arrays(batch: dict[str, Any]) -> dict[str, NDArray[Any]]:
    return {"x": np.array(batch["x"]), "row": np.array(batch["row"])}


def measure_step(*, folder: str, steps: int) -> dict[str, Any]:
    """Share of a training step that is spent waiting for the batch; datamill's convolutional network on images."""
    import torch
    from torch.nn import functional

    from benchmarks.loading.ours import make_loader
    from datamill.networks.cnn import ConvNet, stage_widths

    data = read_data(Path(folder))
    widths = stage_widths(height=28, width=28, base=16)
    network = ConvNet(in_channels=1, num_classes=10, widths=widths, depth=1, dropout=0.0, mean=(), std=())
    optimizer = torch.optim.AdamW(network.parameters())
    batches = iter(make_loader(data, "images"))
    waited, total = [], []
    for _ in range(steps):
        start = time.perf_counter()
        batch = next(batches)
        waited.append(time.perf_counter() - start)
        loss = functional.cross_entropy(network(batch["x"].reshape(-1, 1, 28, 28)), batch["label"].long() % 10)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total.append(time.perf_counter() - start)
    skip = steps // 5
    share = sum(waited[skip:]) / sum(total[skip:])
    return {"share": share, "step_ms": 1000 * float(np.median(total[skip:])), "fault": None}


ACTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "epochs": measure_epochs,
    "build": measure_building,
    "start": measure_start,
    "resume": measure_resume,
    "step": measure_step,
}


def main() -> None:
    request = json.loads(sys.argv[1])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    result = ACTIONS[request.pop("action")](**request)
    Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
