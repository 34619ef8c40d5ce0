"""Measurements in processes of their own, taking turns: time, memory of the process tree, and what went wrong."""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.loading.child import TIMED

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-W", "ignore", "-m", "benchmarks.loading.child")
SAMPLE_S = 0.05
HOPELESS, PATIENCE = 0.1, 2
MIB = 2**20


@dataclass
class Result:
    """What a contender showed over the rounds."""

    name: str
    role: str
    values: list[float] = field(default_factory=list)
    """Of each round: samples per second, or seconds."""
    peak_bytes: list[int] = field(default_factory=list)
    """Proportional set size of the process tree, of each round."""
    extra: dict[str, float] = field(default_factory=dict)
    fault: str | None = None
    """Why it does not count: absent, crashed, too slow, or wrong."""

    @property
    def median(self) -> float:
        return statistics.median(self.values)


def run_child(request: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
    """What ``child`` measured, with the peak memory after its clock stopped; ``fault`` says what went wrong."""
    with tempfile.TemporaryDirectory(prefix="datamill-loading-") as name:
        out, log = Path(name) / "result.json", Path(name) / "log"
        command = [*COMMAND, json.dumps(request), str(out)]
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "HF_HUB_OFFLINE": "1"}
        quiet |= {"NUMBA_THREADING_LAYER_PRIORITY": "omp tbb workqueue"}  # the first loses least between batches
        with log.open("wb") as errors:
            child = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **quiet},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        assert child.stdout is not None
        peak: list[int] = []
        watcher = threading.Thread(target=_watch, args=(child, peak), daemon=True)
        watcher.start()
        fault = None
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            fault = f"nothing after {timeout_s:g} s"
        finally:  # also when this run is interrupted
            end_group(child)
        watcher.join(5)
        child.stdout.close()
        if out.exists() and fault is None:
            return {**json.loads(out.read_text()), "peak_bytes": max(peak, default=0)}
        lines = log.read_text(errors="replace").strip().splitlines() or ["no word"]
        return {"fault": fault or f"exit status {child.returncode}: {lines[-1][:200]}"}


def end_group(child: "subprocess.Popen[Any]") -> None:
    """End a process that leads a session of its own, and every process that it left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _watch(child: "subprocess.Popen[str]", peak: list[int]) -> None:
    """Sample memory from the moment that the child says that its clock has stopped."""
    for line in child.stdout or ():
        if line.strip() == TIMED:
            break
    while child.poll() is None:
        peak.append(tree_bytes(child.pid))
        time.sleep(SAMPLE_S)


def tree_bytes(pid: int) -> int:
    """Proportional set size of a process and its descendants; pages that they share count once."""
    total = 0
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total = int(line.split()[1]) * 1024
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            total += sum(tree_bytes(int(one)) for one in children.read_text().split())
    return total


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """Another process keeps one core busy while the block runs."""
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    try:
        yield
    finally:
        end_group(spinner)


def is_hopeless(result: Result, results: Sequence[Result], *, key: str) -> bool:
    """Is it a peer whose best rate in two turns or more is less than a tenth of the best peer's?"""
    best = max((max(one.values) for one in results if one.role == "peer" and one.values), default=0.0)
    is_known = key == "rate" and result.role == "peer" and len(result.values) >= PATIENCE
    return is_known and max(result.values) < HOPELESS * best


def take_turns(
    results: Sequence[Result], run: Callable[[str], dict[str, Any]], *, key: str, rounds: int, word: str
) -> None:
    """Every contender once a round, one at a time.

    One that fails does not run again, nor does a peer whose first two turns gave less than a tenth of the best peer's
    rate: its order of magnitude is known, and the time is better spent on the others.
    """
    for number in range(rounds):
        shift = number * max(1, len(results) // rounds)  # who comes first must not matter
        for result in [*results[shift:], *results[:shift]]:
            if result.fault is not None or is_hopeless(result, results, key=key):
                continue
            found = run(result.name)
            result.fault = found.get("fault")
            if result.fault is None:
                result.values.append(found[key])
                result.peak_bytes.append(found.get("peak_bytes", 0))
                result.extra.update({k: v for k, v in found.items() if isinstance(v, float)})
            shown = result.fault or f"{found[key]:,.4g} {word}"
            print(f"  round {number + 1}/{rounds}  {result.name:25} {shown}", flush=True)
