"""Whole pipelines on real data, in workspaces of their own: time, memory, scores, and the cost of doing nothing.

    python benchmarks/pipeline.py digits --check
    python benchmarks/pipeline.py breast-cancer --check
    python benchmarks/pipeline.py fashion-mnist --check      (about 20 minutes)
    python benchmarks/pipeline.py fashion-mnist --check --until shard

The last line names each figure beside its bar; with ``--check`` the exit status is 1 when one is missed. ``--quick``
runs digits only, one round of flow and repro, in about three minutes.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
GIB = 2**30


@dataclass(frozen=True)
class Figure:
    """A measured number beside its bar."""

    name: str
    value: float
    bar: float
    at_most: bool

    @property
    def holds(self) -> bool:
        return self.value <= self.bar if self.at_most else self.value >= self.bar

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        return f"{self.name} {self.value:.4g} ({sign} {self.bar:g}{'' if self.holds else ', MISSED'})"


def conclude(figures: list[Figure], *, check: bool) -> int:
    """Print each figure beside its bar, in one line; the exit status."""
    print("; ".join(map(str, figures)))
    return 1 if check and not all(figure.holds for figure in figures) else 0


def timed(*command: str, root: Path) -> float:
    """Seconds that a command took; its words go to standard error when it fails."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    start = time.monotonic()
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=root, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return time.monotonic() - start


def new_workspace(folder: Path, *, example: str) -> Path:
    root = folder / example
    timed("datamill", "init", str(root), "--example", example, root=folder)
    return root


def metric(root: Path, stage: str, *keys: str) -> float:
    value = json.loads((root / f"reports/{stage}.json").read_text())
    for key in keys:
        value = value[key]
    return float(value)


def peak_memory_gib() -> float:
    """Largest resident memory of any process this benchmark waited for."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / GIB


def digits(folder: Path, *, rounds: int) -> list[Figure]:
    """The default run, the run that has nothing to do, and what the flow adds to ``dvc repro``."""
    flow, repro, noop = [], [], []
    for number in range(rounds):
        for kind, times in (("flow", flow), ("repro", repro)):
            (folder / f"{kind}{number}").mkdir()
            root = new_workspace(folder / f"{kind}{number}", example="digits")
            times.append(timed(*(["datamill", "run"] if kind == "flow" else ["dvc", "repro"]), root=root))
        noop.append(timed("dvc", "repro", root=root))
        print(f"round {number + 1}: flow {flow[-1]:.1f} s, repro {repro[-1]:.1f} s, no-op {noop[-1]:.2f} s", flush=True)
    overhead = statistics.median(flow) - statistics.median(repro)
    return [
        Figure("digits flow s", statistics.median(flow), 120, at_most=True),
        Figure("digits test accuracy", metric(root, "evaluate", "accuracy"), 0.98, at_most=False),
        Figure("no-op dvc repro s", statistics.median(noop), 3, at_most=True),
        Figure("flow overhead s", overhead, 12, at_most=True),
    ]


def fashion_mnist(folder: Path, *, until: str | None) -> list[Figure]:
    """All 70,000 images; with ``until="shard"`` only ingest to shard, without audit and synthesis."""
    root = new_workspace(folder, example="fashion-mnist")
    if until == "shard":
        off = ("--set", "audit.policy=off", "--set", "synthesize.method=off")
        seconds = timed("datamill", "run", "--target", "shard", *off, root=root)
        return [Figure("fashion ingest to shard s", seconds, 120, at_most=True)]
    minutes = timed("datamill", "run", root=root) / 60
    return [
        Figure("fashion minutes", minutes, 20, at_most=True),
        Figure("fashion peak GiB", peak_memory_gib(), 4, at_most=True),
        Figure("fashion test accuracy", metric(root, "evaluate", "accuracy"), 0.92, at_most=False),
    ]


def breast_cancer(folder: Path) -> list[Figure]:
    """The table example."""
    root = new_workspace(folder, example="breast-cancer")
    seconds = timed("datamill", "run", root=root)
    return [
        Figure("breast cancer flow s", seconds, 120, at_most=True),
        Figure("breast cancer test ROC AUC", metric(root, "evaluate", "roc_auc"), 0.98, at_most=False),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", nargs="?", default="digits", choices=["digits", "fashion-mnist", "breast-cancer"])
    parser.add_argument("--until", choices=["shard"], help="stop after this stage")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of flow and repro on digits")
    parser.add_argument("--quick", action="store_true", help="one round of digits")
    parser.add_argument("--check", action="store_true", help="exit with status 1 when a bar is missed")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    with tempfile.TemporaryDirectory(prefix="datamill-benchmark-") as name:
        folder = Path(name)
        if options.quick or options.example == "digits":
            figures = digits(folder, rounds=1 if options.quick else options.rounds)
        elif options.example == "fashion-mnist":
            figures = fashion_mnist(folder, until=options.until)
        else:
            figures = breast_cancer(folder)
    return conclude(figures, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
