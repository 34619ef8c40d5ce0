"""Each work from its samples to its figures."""

import shutil
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.loading import report
from benchmarks.loading.building import FORMATS, SHARD_FORMATS, TABLE_FORMATS
from benchmarks.loading.contender import SOURCE, Contender, Data, missing, write_data
from benchmarks.loading.measure import Result, busy_core, run_child, take_turns
from benchmarks.loading.sources import SOURCES
from benchmarks.loading.works import WORKS, contenders_of
from benchmarks.pipeline import Figure

START_S, RESUME_S = 0.15, 0.05


@dataclass(frozen=True)
class Run:
    """What the command line asked for."""

    folder: Path
    rounds: int
    is_quick: bool = False
    peers: tuple[str, ...] = ()
    """Peers whose names begin with one of these; all, when there is none."""
    idx: Path | None = None
    timeout_s: float = 120.0

    @property
    def min_seconds(self) -> float:
        """A measurement takes at least this long."""
        return 0.25 if self.is_quick else 0.5

    def wants(self, one: Contender) -> bool:
        """Does it take part?"""
        if one.role != "peer" or not self.peers:
            return one.is_quick or not self.is_quick or bool(self.peers)
        return one.name.startswith(self.peers)


Outcome = tuple[list[Result], list[Figure]]


def prepare(run: Run, *, work: str) -> Data:
    """Samples of a work, written once."""
    spec = WORKS[work]
    rows = spec.quick_rows if run.is_quick else spec.num_rows
    data = Data(run.folder / f"{work}-{rows}", rows, spec.batch_size)
    if not (data.folder / "data.json").exists():
        shutil.rmtree(data.source, ignore_errors=True)
        data.source.mkdir(parents=True)
        options = {"idx": run.idx} if work == "images" and run.idx else {}
        print(f"{work}: {SOURCES[work](data.source, num_rows=rows, **options)}", flush=True)
        write_data(data)
    return data


def build(run: Run, data: Data, *, work: str, name: str, out: Path | None = None) -> dict[str, Any]:
    """A format of the samples; left as it is when it is there."""
    folder = out or data.built(name)
    if out is None and (folder / ".complete").exists():
        return {"fault": None}
    shutil.rmtree(folder, ignore_errors=True)
    if name != "datamill":
        folder.mkdir(parents=True)
    request = {"action": "build", "work": work, "contender": name, "folder": str(data.folder), "out": str(folder)}
    found = run_child(request, timeout_s=5 * run.timeout_s)
    if found.get("fault") is None and out is None:
        (folder / ".complete").touch()
    return found


def enter(run: Run, data: Data, *, work: str, only: Callable[[Contender], bool] = lambda _: True) -> list[Result]:
    """Everyone who takes part, with the formats that they read; who is absent has a fault that says so."""
    results, broken = [], dict[str, str]()
    for one in filter(only, filter(run.wants, contenders_of(work))):
        fault = f"absent: needs {', '.join(one.missing)}" if one.missing else broken.get(one.reads)
        if fault is None and one.reads != SOURCE and (why := build(run, data, work=work, name=one.reads)["fault"]):
            fault = broken[one.reads] = f"its data could not be written: {why}"
        results.append(Result(one.name, one.role, fault=fault))
    return results


def race(run: Run, data: Data, *, work: str, results: list[Result], action: str = "epochs", busy: bool = False) -> None:
    """Rounds of one measurement."""
    extra = {"min_seconds": run.min_seconds} if action == "epochs" else {}

    def measure(name: str) -> dict[str, Any]:
        request = {"action": action, "work": work, "contender": name, "folder": str(data.folder), **extra}
        with busy_core() if busy else nullcontext():
            return run_child(request, timeout_s=run.timeout_s)

    key, word = ("rate", "samples/s") if action == "epochs" else ("seconds", "s")
    take_turns(results, measure, key=key, rounds=run.rounds, word=word)


def epochs(run: Run, *, work: str, peer_bar: float, limit_bar: float | None) -> Outcome:
    """Works 1, 3, 4 and 5: samples per second, against peers and the limit."""
    data = prepare(run, work=work)
    results = enter(run, data, work=work)
    race(run, data, work=work, results=results)
    print(report.table(WORKS[work].title, results, word="samples/s"))
    base = report.ours(results)
    best = report.best(results, role="peer", of=report.fastest)
    figures = report.against(f"{work}: datamill / fastest peer", base, best, bar=peer_bar)
    if limit_bar is not None:
        limit = report.best(results, role="limit", of=report.fastest)
        figures += report.against(f"{work}: datamill / limit", base, limit, bar=limit_bar)
    if work in ("images", "jpegs"):
        figures += report.memory_figure(work, results)
    if work == "sequences":
        padding = base.extra["padding"] if base else float("nan")
        figures.append(Figure("sequences: padding with buckets", padding, 0.06, at_most=True))
    return results, figures


def busy(run: Run) -> Outcome:
    """Work 2: the same beside a process that keeps one core busy."""
    data = prepare(run, work="images")
    torch = ("torch samples", "torch batches")
    results = enter(run, data, work="images", only=lambda one: one.role == "ours" or one.name.startswith(torch))
    alone = [Result(one.name, "limit", fault=one.fault) for one in results if one.role == "ours"]
    for _ in range(run.rounds):  # turns within turns: undisturbed, then disturbed
        once = Run(run.folder, 1, run.is_quick, run.peers, run.idx, run.timeout_s)
        race(once, data, work="images", results=alone)
        race(once, data, work="images", results=results, busy=True)
    alone[0].name = "datamill undisturbed"
    print(
        report.table("the first work while another process keeps one core busy", [*results, *alone], word="samples/s")
    )
    base = report.ours(results)
    own = report.best(alone, role="limit", of=report.fastest)
    loaders = [one for one in results if one.name.startswith("torch batches")]
    best = report.best(loaders, role="peer", of=report.fastest)
    return [*results, *alone], [
        *report.against("busy: datamill / itself undisturbed", base, own, bar=0.5),
        *report.against("busy: datamill / fastest DataLoader by batch", base, best, bar=10),
    ]


def building(run: Run) -> Outcome:
    """Work 6: seconds to write the samples in each format."""
    everything, figures = [], []
    for work in ("images", "jpegs"):
        results = race_to_write(run, work=work)
        print(report.table(f"writing {work}", results, word="seconds", is_rate=False))
        base = report.ours(results)
        parquet = next((one for one in results if one.name == "parquet" and one.values), None)
        shards = [one for one in results if one.name in SHARD_FORMATS]
        best = report.best(shards, role="peer", of=report.quickest)
        figures += report.against(f"building {work}: datamill's time / Parquet's", base, parquet, bar=1.5, at_most=True)
        figures += report.against(
            f"building {work}: datamill's time / quickest shards'", base, best, bar=1, at_most=True
        )
        everything += results
    return everything, figures


def race_to_write(run: Run, *, work: str) -> list[Result]:
    """Seconds to write the samples of a work."""
    data, results = prepare(run, work=work), []
    for name in ("datamill", "parquet", *(() if run.is_quick else SHARD_FORMATS + TABLE_FORMATS)):
        absent = missing(FORMATS[name][1])
        fault = f"absent: needs {', '.join(absent)}" if absent else None
        results.append(Result(name, "ours" if name == "datamill" else "peer", fault=fault))
    with tempfile.TemporaryDirectory(dir=run.folder) as scratch:
        out = Path(scratch) / "out"
        write = partial(build, run, data, work=work, out=out)
        take_turns(results, lambda name: write(name=name), key="seconds", rounds=run.rounds, word="s")
    return results


def start(run: Run) -> Outcome:
    """Work 7: a cold process's first batch, and going on in the middle of an epoch."""
    data = prepare(run, work="images")
    wanted = ("datamill", "torch samples", "torch batches")
    results = enter(run, data, work="images", only=lambda one: one.name.startswith(wanted))
    race(run, data, work="images", results=results, action="start")
    print(report.table("first batch, after import torch", results, word="seconds", is_rate=False))
    base = report.ours(results)
    value = base.median if base else float("nan")
    figures = [Figure("start: first batch s beyond import torch", value, START_S, at_most=True)]
    for work in ("images",) if run.is_quick else ("images", "jpegs"):
        fresh, resumed = resume(run, work=work)
        print(report.table(f"first batch of {work}, fresh and resumed", [fresh, resumed], word="s", is_rate=False))
        later = float("nan")
        if fresh.values and resumed.values and not (fresh.fault or resumed.fault):
            later = median(b - a for a, b in zip(fresh.values, resumed.values, strict=True))
        figures.append(Figure(f"start: {work} resumed s later, pixels the same", later, RESUME_S, at_most=True))
        results += [fresh, resumed]
    return results, figures


def resume(run: Run, *, work: str) -> tuple[Result, Result]:
    """Seconds to the first batch of the epoch, and to one in its middle."""
    data = prepare(run, work=work)
    fault = build(run, data, work=work, name="datamill").get("fault")
    both = [Result("fresh", "aside", fault=fault), Result("resumed", "aside", fault=fault)]
    with tempfile.TemporaryDirectory(dir=run.folder) as state:

        def measure(name: str) -> dict[str, Any]:
            request = {"action": "resume", "work": work, "folder": str(data.folder), "state": state}
            return run_child({**request, "is_fresh": name == "fresh"}, timeout_s=run.timeout_s)

        for _ in range(run.rounds):
            take_turns(both, measure, key="seconds", rounds=1, word="s")
    return both[0], both[1]


def step(run: Run) -> Outcome:
    """Work 9: what a training step waits for its batch."""
    data = prepare(run, work="images")
    result = Result("datamill", "ours", fault=build(run, data, work="images", name="datamill").get("fault"))
    request = {"action": "step", "folder": str(data.folder), "steps": 25 if run.is_quick else 60}
    take_turns(
        [result],
        lambda _: run_child(dict(request), timeout_s=run.timeout_s),
        key="share",
        rounds=run.rounds,
        word="of a step",
    )
    value = result.median if result.values else float("nan")
    return [result], [Figure("step: share spent waiting for data", value, 0.03, at_most=True)]


ACTS: dict[str, Callable[[Run], Outcome]] = {
    "images": partial(epochs, work="images", peer_bar=2.0, limit_bar=0.6),
    "busy": busy,
    "jpegs": partial(epochs, work="jpegs", peer_bar=1.15, limit_bar=0.84),
    "sequences": partial(epochs, work="sequences", peer_bar=2.0, limit_bar=0.5),
    "audio": partial(epochs, work="audio", peer_bar=1.0, limit_bar=None),
    "building": building,
    "start": start,
    "step": step,
}
"""Works by name, in the order of a whole run."""
