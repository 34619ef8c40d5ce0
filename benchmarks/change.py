"""What a rerun costs when the source changes: rows appended, changed and deleted, from ingest to shard through DVC.

    python benchmarks/change.py --check                 1,000,000 drawn images and 70,000 real ones (about 40 minutes)
    python benchmarks/change.py --rows 200000           fewer
    python benchmarks/change.py --quick --check         10,000 drawn rows, no memory and no workers, under a minute

The rows are images of 28 x 28 px drawn from Fashion-MNIST with noise, as Parquet files of encoded images. Changed and
deleted rows lie anywhere, so every file of the source is touched. What DVC and the bytes alone cost is measured after
each rerun: the same stages under DVC, with commands that only copy the files that the rerun changed. The last line
names each figure beside its bar; with ``--check`` the exit status is 1 when one is missed.
"""

import argparse
import filecmp
import gzip
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from pipeline import BIN, Figure, conclude, new_workspace, timed
from ruamel.yaml import YAML

ROWS_PER_FILE = 10_000
FASHION = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts it
MIB = 2**20
SHARE, FIXED_S = 0.05, 5.0  # of the full cost, and on top of it, that a small change may take


@dataclass
class Cost:
    """What a run cost.

    Attributes:
        seconds: Wall time of the whole command.
        stages: Seconds of each stage that ran, as it says itself.
        peak_mib: Largest proportional set size of each stage and its workers together, where it was watched.
    """

    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    peak_mib: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        slowest = sorted(self.stages.items(), key=lambda item: -item[1])
        told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in slowest)
        others = self.seconds - sum(self.stages.values())
        return f"{self.seconds:.1f} s ({told}; DVC and starting {others:.1f})"


class Source:
    """Images as Parquet files of 10,000 rows."""

    def __init__(self, folder: Path, *, seed: int = 7) -> None:
        """An empty folder; equal seeds give equal images."""
        folder.mkdir(parents=True)
        self.folder = folder
        self._rng = np.random.default_rng(seed)
        self._pixels, self._labels = fashion_mnist()
        self._num_files = 0
        self.num_rows = 0

    def append(self, count: int, *, noisy: bool = True) -> None:
        """Add rows: each a real image, with noise of its own where asked."""
        for start in range(0, count, ROWS_PER_FILE):
            rows = min(ROWS_PER_FILE, count - start)
            picks = (self.num_rows + np.arange(rows)) % len(self._pixels)
            if noisy:
                picks = self._rng.permutation(picks)
            images = self._images(picks, noisy=noisy)
            for row, image in enumerate(images):
                image["path"] = f"{row}.png"
            self._write(self._num_files, images, [int(one) for one in self._labels[picks]])
            self._num_files += 1
            self.num_rows += rows

    def change(self, count: int) -> None:
        """Give rows anywhere another picture."""
        self._edit(count, delete=False)

    def delete(self, count: int) -> None:
        """Remove rows anywhere."""
        self._edit(count, delete=True)
        self.num_rows -= count

    def _edit(self, count: int, *, delete: bool) -> None:
        files = self._rng.integers(0, self._num_files, count)
        for number, hits in zip(*np.unique(files, return_counts=True), strict=True):
            table = pq.read_table(self._path(number))
            rows = self._rng.choice(table.num_rows, hits, replace=False)
            images, labels = table["image"].to_pylist(), table["label"].to_pylist()
            if delete:
                kept = np.setdiff1d(np.arange(table.num_rows), rows)
                images, labels = [images[row] for row in kept], [labels[row] for row in kept]
            else:
                for row, image in zip(rows, self._images(np.full(hits, 0), noisy=True), strict=True):
                    images[row] = {**image, "path": images[row]["path"]}
            self._write(number, images, labels)

    def _images(self, picks: np.ndarray, *, noisy: bool) -> list[dict[str, object]]:
        pixels = self._pixels[picks]
        if noisy:
            noise = self._rng.integers(-12, 13, pixels.shape, dtype=np.int16)
            pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
        return [{"bytes": cv2.imencode(".png", one)[1].tobytes(), "path": None} for one in pixels]

    def _write(self, number: int, images: list[dict[str, object]], labels: list[int]) -> None:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(images, kind), "label": pa.array(labels, pa.int64())})
        pq.write_table(table, self._path(number), compression="none")

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.parquet"


class Copying:
    """A workspace whose stages copy what those of another made, instead of making it."""

    COPY = """\
import os, shutil, sys
for line in open(sys.argv[1]).read().splitlines():
    there, here = line.split("|")
    os.makedirs(os.path.dirname(here), exist_ok=True)
    shutil.copyfile(there, here)
"""

    def __init__(self, root: Path, folder: Path) -> None:
        """The workspace ``root`` as it is now, with hashes known to DVC."""
        self._root, self._folder = root, folder
        shutil.copytree(root, folder, symlinks=True, ignore=shutil.ignore_patterns("cache", "scratch"))
        shutil.copytree(root / ".dvc/cache", folder / ".dvc/cache", copy_function=os.link)  # never written again
        timed("dvc", "status", root=folder)

    def rerun(self) -> float:
        """Seconds that ``dvc repro`` takes to bring it to where the other is."""
        yaml = YAML()
        graph = yaml.load(self._folder / "dvc.yaml")
        (self._folder / "copy.py").write_text(self.COPY)
        for name, stage in graph["stages"].items():
            outs = [one if isinstance(one, str) else next(iter(one)) for one in self._outputs(stage)]
            changed = [pair for out in outs for pair in self._changed(out)]
            (self._folder / f"{name}.txt").write_text("\n".join(changed))
            stage["cmd"] = f"{sys.executable} -S copy.py {name}.txt"
        yaml.dump(graph, self._folder / "dvc.yaml")
        return timed("dvc", "repro", "shard", root=self._folder)

    def _outputs(self, stage: dict[str, list[str | dict[str, object]]]) -> list[str | dict[str, object]]:
        return [*stage.get("outs", ()), *stage.get("metrics", ()), *stage.get("plots", ())]

    def _changed(self, out: str) -> list[str]:
        """Files to copy, as ``from|to``; those that went are removed now."""
        there, here = self._root / out, self._folder / out
        if not there.is_dir():
            return [] if not there.exists() or same(there, here) else [f"{there}|{out}"]
        for file in here.rglob("*"):
            if file.is_file() and not (there / file.relative_to(here)).exists():
                file.unlink()
        found = [file.relative_to(there) for file in there.rglob("*") if file.is_file()]
        return [f"{there / file}|{out}/{file}" for file in found if not same(there / file, here / file)]


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes."""
    return other.exists() and filecmp.cmp(one, other, shallow=False)


def fashion_mnist() -> tuple[np.ndarray, np.ndarray]:
    """The 70,000 images and labels; where they are not installed, drawings of ten kinds take their place."""
    if not FASHION.is_dir():
        print(f"{FASHION} is missing, so pictures are drawn instead", flush=True)
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 10, 70_000)
        shapes = rng.integers(0, 255, (10, 28, 28))
        return np.clip(shapes[labels] + rng.integers(-60, 60, (70_000, 28, 28)), 0, 255).astype(np.uint8), labels
    parts = []
    for name, header in (("images-idx3", 16), ("labels-idx1", 8)):
        raw = b"".join(
            gzip.decompress((FASHION / f"{split}-{name}-ubyte.gz").read_bytes())[header:] for split in ("train", "t10k")
        )
        parts.append(np.frombuffer(raw, np.uint8))
    return parts[0].reshape(-1, 28, 28), parts[1]


def workspace(folder: Path, source: Source) -> Path:
    """A workspace on Fashion-MNIST's parameters that reads ``source``."""
    folder.mkdir()
    root = new_workspace(folder, example="fashion-mnist")
    columns = {"image": "image", "label": "label", "class_names": None}
    where = json.dumps({"kind": "exchanged", "format": "parquet", "path": str(source.folder), **columns})
    set_params(root, f"ingest.source={where}", "synthesize.method=off")
    return root


def set_params(root: Path, *assignments: str) -> None:
    """Change parameters without running anything."""
    from datamill import config
    from tasks import PIPELINE

    config.set_params(list(assignments), stages=PIPELINE, root=root)


def reproduce(root: Path, *, workers: int, is_watched: bool = False) -> Cost:
    """Bring the workspace up to date to the shards.

    Where asked, memory is watched, which takes time of its own, and every stage loads its libraries itself, so that
    none shares memory with another.
    """
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "DATAMILL_WORKERS": str(workers),
        "DATAMILL_TRACKING": "off",
        "DATAMILL_WARM": "off" if is_watched else "on",
    }
    subprocess.run([sys.executable, "-m", "tasks", "render"], cwd=root, env=environment, check=True)
    cost = Cost()
    start = time.monotonic()
    command = [sys.executable, "-m", "dvc", "repro", "shard"]
    with subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        watcher = threading.Thread(target=watch, args=(process, cost))
        if is_watched:
            watcher.start()
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            stage, _, rest = line.partition(": done in ")
            if rest:
                cost.stages[stage] = float(rest.split()[0])
        process.wait()
        if is_watched:
            watcher.join()
    if process.returncode:
        sys.exit("".join(said[-40:]))
    cost.seconds = time.monotonic() - start
    return cost


def watch(process: subprocess.Popen[str], cost: Cost) -> None:
    """Note the largest memory of each stage while ``process`` runs."""
    above = psutil.Process(process.pid)
    while process.poll() is None:
        stages: dict[str, float] = {}
        try:
            for child in above.children(recursive=True):
                stage = stage_of(child)
                if stage:
                    stages[stage] = stages.get(stage, 0.0) + child.memory_full_info().pss / MIB
        except psutil.Error:
            continue
        for stage, used in stages.items():
            cost.peak_mib[stage] = max(cost.peak_mib.get(stage, 0.0), used)
        time.sleep(0.1)


def stage_of(process: psutil.Process) -> str | None:
    """The stage that a process, or one it was started by, works on."""
    for one in [process, *process.parents()]:
        words = one.cmdline()
        if "-m" in words and "tasks" in words:
            return words[words.index("tasks") + 1]
    return None


def measure(folder: Path, *, rows: int, noisy: bool, label: str) -> list[Figure]:
    """A full run, then each kind of change."""
    source = Source(folder / "source")
    source.append(rows, noisy=noisy)
    root = workspace(folder / "workspace", source)
    full = reproduce(root, workers=2)
    print(f"{label}: full {full}", flush=True)
    limit = SHARE * full.seconds + FIXED_S
    figures = []
    for name, edit, count in (
        ("append 1 %", source.append, rows // 100),
        ("change 0.1 %", source.change, rows // 1000),
        ("delete 0.1 %", source.delete, rows // 1000),
    ):
        copying = Copying(root, folder / "copying")
        edit(count)
        cost = reproduce(root, workers=2)
        print(f"{label}: {name} {cost}; DVC and copying alone {copying.rerun():.1f} s", flush=True)
        shutil.rmtree(folder / "copying")
        figures.append(Figure(f"{label} {name} s", cost.seconds, limit, at_most=True))
    return figures


def peaks(folder: Path, *, rows: int) -> dict[str, float]:
    """Peak memory of each stage with one worker, so that few rows and many are worked on by as many processes (MiB)."""
    source = Source(folder / "source")
    source.append(rows)
    cost = reproduce(workspace(folder / "workspace", source), workers=1, is_watched=True)
    told = ", ".join(f"{stage} {peak:.0f}" for stage, peak in cost.peak_mib.items())
    print(f"{rows} rows, one worker, MiB: {told}", flush=True)
    return cost.peak_mib


def growth(folder: Path, *, rows: int) -> Figure:
    """The stage whose memory grows most, from a tenth of the rows to all."""
    large, small = (peaks(folder / name, rows=count) for name, count in (("whole", rows), ("tenth", rows // 10)))
    most = max(large[stage] / small[stage] for stage in large.keys() & small)
    return Figure("peak memory against a tenth of the rows", most, 1.15, at_most=True)


def speed_up(folder: Path, *, rows: int) -> Figure:
    """A full run with one worker against one with two."""
    source = Source(folder / "again")
    source.append(rows)
    one, two = (reproduce(workspace(folder / f"workers-{workers}", source), workers=workers) for workers in (1, 2))
    print(f"{source.num_rows} rows: 1 worker {one}; 2 workers {two}", flush=True)
    return Figure("two workers against one", one.seconds / two.seconds, 1.6, at_most=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="drawn rows (count)")
    parser.add_argument("--real", type=int, default=70_000, help="real rows (count)")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--quick", action="store_true", help="10,000 drawn rows, without memory and workers")
    parser.add_argument("--check", action="store_true", help="exit with status 1 when a bar is missed")
    options = parser.parse_args()
    rows, real = (10_000 if options.quick else options.rows), options.real
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    with tempfile.TemporaryDirectory(prefix="datamill-benchmark-", dir=options.folder) as name:
        folder = Path(name)
        for part in ("drawn", "real", "whole", "tenth"):
            (folder / part).mkdir()
        figures = measure(folder / "drawn", rows=rows, noisy=True, label=f"{rows} rows")
        if not options.quick:
            figures += measure(folder / "real", rows=real, noisy=False, label=f"{real} real rows")
            figures += [growth(folder, rows=rows), speed_up(folder, rows=rows // 2)]
    return conclude(figures, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
