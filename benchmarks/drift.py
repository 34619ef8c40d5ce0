"""Whether drift is found, and only drift: power, honesty, estimated performance, and a window of a million rows.

    python benchmarks/drift.py --check             (about 7 minutes)
    python benchmarks/drift.py power --check       (one part: power, honesty, estimate, scale)
    python benchmarks/drift.py --quick             (under a minute, on few windows and a network trained little)

Power and estimate take the shift grid of S. Rabanser et al., "Failing loudly", NeurIPS 2019, on Fashion-MNIST: Gaussian
noise and image transformations of three strengths on 10, 50 and 100 % of the samples, and 10, 50 and 100 % of one class
knocked out. The network is trained once and kept in ``--folder``. The last line names each figure beside its bar; with
``--check`` the exit status is 1 when one is missed. The rates of ``--quick`` are rough, so their bars are lower.
"""

import argparse
import dataclasses
import gzip
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pipeline import GIB, Figure, conclude
from safetensors.torch import load_file, save_file
from scipy import stats
from torch import nn

from datamill.config import parse_yaml
from datamill.drift import Control, DriftParams, Observations, judge
from datamill.networks import build, design, to_input

FASHION = Path("/usr/share/datasets/fashion-mnist")
NUM_TRAINED = 50_000  # of the 60,000 training images; the others are the reference
STRENGTHS = ("small", "medium", "large")
SHARES = (0.1, 0.5, 1.0)
NOISE = {"small": 1.0, "medium": 10.0, "large": 100.0}
KNOCKED_OUT = {"small": 0.1, "medium": 0.5, "large": 1.0}
EASE = 0.8  # of the bars of detection with ``--quick``
CHILD = "--child"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEFAULTS: dict[str, Any] = parse_yaml((Path(__file__).parent.parent / "watch.yaml").read_text(encoding="utf-8"))[
    "drift"
]
PARAMS: dict[str, Any] = {
    **DEFAULTS,
    "backend": "native",
    "false_alarms_per_month": None,
    "windows_per_month": 120,
    "detectors": {**DEFAULTS["detectors"], "joint": ["mmd"]},
    "min_effect": {"wasserstein": 0.0, "cramers_v": 0.0, "psi": 0.0, "mmd": 0.0, "auc": 0.5, "share": 0.0},
    "min_matched": 100,
    "min_labels": 100,
    "num_examples": 5,
    "seed": 0,
}
"""Sizes from which a difference matters are 0: what is measured here are the tests."""


@dataclasses.dataclass(frozen=True)
class Affine:
    """Ranges of a random transformation of images, as Keras's generator takes them."""

    degrees: float
    shift: float
    shear_degrees: float
    zoom: float
    is_flipped: bool
    is_turned: bool


TRANSFORMED = {
    "small": Affine(10, 0.05, 0.1, 0.1, is_flipped=False, is_turned=False),
    "medium": Affine(40, 0.2, 0.2, 0.2, is_flipped=True, is_turned=False),
    "large": Affine(90, 0.4, 0.3, 0.4, is_flipped=True, is_turned=True),
}
AUGMENTED = Affine(20, 0.1, 0, 0.1, is_flipped=True, is_turned=False)
"""What the network sees in training beside the images as they are."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One shift of the grid."""

    kind: str
    strength: str
    share: float


GRID = [Cell(kind, strength, share) for kind in ("noise", "affine") for strength in STRENGTHS for share in SHARES]
GRID += [Cell("knock-out", strength, 1.0) for strength in STRENGTHS]


class Model:
    """What the network answers to every image of the grid, so that windows are drawn and not computed."""

    def __init__(self, folder: Path, *, is_quick: bool) -> None:
        """Train the network, or read it, and ask it about every image and every shift of it."""
        images, labels = read_idx("train")
        new_images, self.labels = read_idx("t10k")
        num_new = 3_000 if is_quick else len(new_images)
        new_images, self.labels = new_images[:num_new], self.labels[:num_new]
        network = trained(folder, images[:NUM_TRAINED], labels[:NUM_TRAINED], is_quick=is_quick)
        held = slice(NUM_TRAINED, NUM_TRAINED + num_new)
        self.reference_labels = labels[held]
        self.reference = answers(network, images[held])
        self.brightness = [side.reshape(len(side), -1).mean(axis=1) for side in (images[held], new_images)]
        rng = np.random.default_rng(1)
        self.shifted = {("clean", ""): answers(network, new_images)}
        for strength in STRENGTHS:
            noisy = np.clip(new_images + rng.normal(0, NOISE[strength], new_images.shape), 0, 255)
            self.shifted["noise", strength] = answers(network, noisy)
            moved = transformed(new_images, TRANSFORMED[strength], rng=rng)
            self.shifted["affine", strength] = answers(network, moved)

    def window(self, cell: Cell, *, num: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """Probabilities and labels of a window of ``num`` samples of the cell."""
        clean = self.shifted["clean", ""]
        if cell.kind == "knock-out":
            is_out = (self.labels == 0) & (rng.random(len(self.labels)) < KNOCKED_OUT[cell.strength])
            rows = rng.choice(np.flatnonzero(~is_out), num, replace=False)
            return clean[rows], self.labels[rows]
        rows = rng.choice(len(clean), num, replace=False)
        is_shifted = np.arange(num) < round(cell.share * num)
        shifted = self.shifted[cell.kind, cell.strength][rows]
        return np.where(is_shifted[:, None], shifted, clean[rows]), self.labels[rows]


def read_idx(name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images, shape (N, 28, 28, 1), and labels."""
    if not FASHION.is_dir():
        sys.exit(f"{FASHION} is missing: apt-get install dataset-fashion-mnist")
    pixels = gzip.decompress((FASHION / f"{name}-images-idx3-ubyte.gz").read_bytes())
    numbers = gzip.decompress((FASHION / f"{name}-labels-idx1-ubyte.gz").read_bytes())
    images = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28, 1)
    return images, np.frombuffer(numbers, np.uint8, offset=8).astype(np.int64)


def trained(folder: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], *, is_quick: bool) -> nn.Module:
    """A small network, trained on images and on transformed copies of them; taken from the folder if it is there."""
    num, epochs = (6_000, 2) if is_quick else (len(images), 2)
    spec = design(
        "cnn",
        shape=(28, 28, 1),
        classes=tuple("0123456789"),
        width=8,
        depth=0,
        dropout=0.0,
        mean=(0.286,),
        std=(0.353,),
    )
    torch.manual_seed(0)
    network, path = build(spec), folder / f"cnn-{num}-{epochs}.safetensors"
    if path.is_file():
        network.load_state_dict(load_file(path))
        return network.eval()
    copies = transformed(images[:num], AUGMENTED, rng=np.random.default_rng(0))
    pixels = to_input(np.concatenate([images[:num].astype(np.float32), copies]))
    truth = torch.from_numpy(np.tile(labels[:num], 2))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    steps = epochs * (len(truth) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(truth)).split(128)[: len(truth) // 128]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(pixels[rows]), truth[rows]).backward()
            optimizer.step()
            schedule.step()
    save_file(network.state_dict(), path)
    return network.eval()


def answers(network: nn.Module, images: NDArray[Any]) -> NDArray[np.float32]:
    """Class probabilities, shape (N, 10)."""
    with torch.inference_mode():
        pieces = to_input(images).split(500)
        return np.concatenate([torch.softmax(network(piece), dim=1).numpy() for piece in pieces])


def transformed(images: NDArray[Any], affine: Affine, *, rng: np.random.Generator) -> NDArray[np.float32]:
    """Every image turned, moved, sheared, zoomed and mirrored by chance; its edge is continued outwards."""
    side = images.shape[1]
    moved = np.empty(images.shape, np.float32)
    for number, image in enumerate(images):
        matrix = _matrix(affine, side=side, rng=rng)
        flags, border = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE
        one = cv2.warpAffine(image[:, :, 0].astype(np.float32), matrix, (side, side), flags=flags, borderMode=border)
        one = one[:, ::-1] if affine.is_flipped and rng.random() < 0.5 else one
        moved[number, :, :, 0] = one[::-1] if affine.is_turned and rng.random() < 0.5 else one
    return moved


def _matrix(affine: Affine, *, side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    angle = np.deg2rad(rng.uniform(-affine.degrees, affine.degrees))
    shear = np.deg2rad(rng.uniform(-affine.shear_degrees, affine.shear_degrees))
    zoom = rng.uniform(1 - affine.zoom, 1 + affine.zoom, 2)
    offset = rng.uniform(-affine.shift, affine.shift, 2) * side
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.array([[1, -np.sin(shear)], [0, np.cos(shear)]]) @ np.diag(zoom)
    centre = np.full(2, (side - 1) / 2)
    return np.column_stack([linear, centre + turn @ offset - linear @ centre])


def params(**changes: Any) -> DriftParams:
    detectors = {**dict.fromkeys(PARAMS["detectors"], ()), **changes.pop("detectors", PARAMS["detectors"])}
    return DriftParams.model_validate({**PARAMS, "detectors": detectors, **changes})


def observed(probabilities: NDArray[Any], *, labels: NDArray[Any] | None = None, **features: Any) -> Observations:
    ids = tuple(map(str, range(len(probabilities))))
    table = pa.table(features) if features else pa.table({})
    return Observations(ids, table, tuple("0123456789"), probabilities=probabilities, labels=labels)


def power(model: Model, *, is_quick: bool) -> list[Figure]:
    """How often each shift of the grid is found by what the model answers, at the level 0.05."""
    bars = {100: 0.47, 200: 0.51, 500: 0.65, 1000: 0.70}
    rounds, sizes, ease = (2, (100, 1000), EASE) if is_quick else (10, tuple(bars), 1.0)
    chosen = params(detectors={"prediction": ["ks", "fet", "novelty"]})
    reference = observed(model.reference)
    figures = []
    for num in sizes:
        found: dict[Cell, float] = {}
        for number, cell in enumerate(GRID):
            rng = np.random.default_rng([num, number])
            windows = [observed(model.window(cell, num=num, rng=rng)[0]) for _ in range(rounds)]
            verdicts = [judge(reference, one, params=chosen, control=Control(), now=NOW)[0] for one in windows]
            found[cell] = float(np.mean([verdict.is_drift for verdict in verdicts]))
        mean = float(np.mean(list(found.values())))
        print(f"power at {num}: mean {mean:.3f}; " + _by_kind(found), flush=True)
        figures.append(Figure(f"detection at {num}", mean, ease * bars[num], at_most=False))
        if num == min(bars):
            large = float(np.mean([rate for cell, rate in found.items() if cell.strength == "large"]))
            figures.append(Figure(f"large shifts at {num}", large, ease * 0.82, at_most=False))
    return figures


def _by_kind(found: dict[Cell, float]) -> str:
    rates: dict[str, list[str]] = {}
    for cell, rate in found.items():
        rates.setdefault(f"{cell.kind} {cell.strength}", []).append(f"{rate:.1f}")
    return ", ".join(f"{name} {'/'.join(shown)}" for name, shown in rates.items())


def honesty(model: Model, *, is_quick: bool) -> list[Figure]:
    """How often windows without drift are called drifted, and how often in a year under monthly control."""
    figures = []
    for backend, num in (("native", 100 if is_quick else 1_000), ("alibi", 20 if is_quick else 1_000)):
        chosen = params(backend=backend, detectors={"numbers": ["ks"], "prediction": ["ks", "fet", "novelty"]})
        false = sum(
            judge(reference, window, params=chosen, control=Control(), now=NOW)[0].is_drift
            for reference, window in drift_free(model, num=num)
        )
        bound = float(stats.beta.ppf(0.95, false + 1, num - false))
        print(f"{backend}: {false} of {num} windows without drift called drifted", flush=True)
        bar = 0.2 if is_quick else 0.07  # 20 windows without a false alarm have a bound of 0.14
        figures.append(Figure(f"{backend} false alarms, upper bound", bound, bar, at_most=True))
    asked, num = 1.0, 52 if is_quick else 1_461
    chosen = params(
        false_alarms_per_month=asked,
        windows_per_month=round(num / 12) + 1,
        detectors={"numbers": ["ks"], "prediction": ["ks", "fet", "novelty"]},
    )
    figures.append(Figure("false alarms in a year", year(model, params=chosen, num=num), 12 * asked, at_most=True))
    return figures


def drift_free(model: Model, *, num: int, is_fixed: bool = False) -> Iterator[tuple[Observations, Observations]]:
    """References of 2,000 and windows of 200 images, of the same 20,000 that the network was not trained on."""
    every = np.concatenate([model.reference, model.shifted["clean", ""]])
    light = np.concatenate(model.brightness)
    rng = np.random.default_rng(7)
    for number in range(num):
        if number == 0 or (not is_fixed and number % 20 == 0):
            order = rng.permutation(len(every))
            reference = observed(every[order[:2_000]], brightness=light[order[:2_000]])
        rows = rng.choice(order[2_000:], 200, replace=False)
        yield reference, observed(every[rows], brightness=light[rows])


def year(model: Model, *, params: DriftParams, num: int) -> int:
    """Windows called drifted in a year without drift, with one reference, and the control handed on."""
    control, false, step = Control(), 0, timedelta(days=365.25) / num
    for number, (reference, window) in enumerate(drift_free(model, num=num, is_fixed=True)):
        verdict, control = judge(reference, window, params=params, control=control, now=NOW + number * step)
        false += verdict.is_drift
    return false


def estimate(model: Model, *, is_quick: bool) -> list[Figure]:
    """How far the accuracy that is estimated without labels is from the true one, over small and medium shifts."""
    num = 2_000 if is_quick else 5_000
    reference = observed(model.reference, labels=model.reference_labels)
    missed = []
    for number, cell in enumerate(cell for cell in GRID if cell.strength != "large"):
        probabilities, labels = model.window(cell, num=num, rng=np.random.default_rng([3, number]))
        chosen = params(detectors={"prediction": ["ks"]})
        verdict, _ = judge(reference, observed(probabilities), params=chosen, control=Control(), now=NOW)
        assert verdict.performance is not None
        true = float((probabilities.argmax(axis=1) == labels).mean())
        missed.append(abs(verdict.performance.estimated - true))
        print(f"{cell}: accuracy {true:.3f}, estimated {verdict.performance.estimated:.3f}", flush=True)
    return [Figure("estimated accuracy off by", float(np.mean(missed)), 0.02, at_most=True)]


def scale(*, is_quick: bool) -> list[Figure]:
    """Time and peak memory of the largest window, in a process of its own, with either backend."""
    rows, columns = (100_000, 16) if is_quick else (1_000_000, 64)
    figures = []
    for backend in ("native", "auto"):
        command = [sys.executable, __file__, CHILD, backend, str(rows), str(columns)]
        seconds, peak = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
        figures.append(Figure(f"{backend} window s", seconds, 60, at_most=True))
        figures.append(Figure(f"{backend} peak GiB", peak / GIB, 2, at_most=True))
    return figures


def child(backend: str, rows: int, columns: int) -> None:
    """Judge a window of ``rows`` by ``columns`` numbers against a reference of a tenth, at most 100,000."""
    reference, window = (table(num, columns, seed=seed) for seed, num in enumerate((min(rows // 10, 100_000), rows)))
    start = time.perf_counter()
    judge(reference, window, params=params(backend=backend), control=Control(), now=NOW)
    print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def table(rows: int, columns: int, *, seed: int) -> Observations:
    rng = np.random.default_rng(seed)
    features = pa.table({f"x{number}": rng.normal(size=rows) for number in range(columns)})
    return Observations(tuple(f"{number:012d}" for number in range(rows)), features)


def main() -> int:
    parts = ("power", "honesty", "estimate", "scale")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=parts, help="one part; all of them without it")
    default = Path(tempfile.gettempdir()) / "datamill-benchmark-drift"
    parser.add_argument("--folder", type=Path, default=default, help="where the trained network is kept")
    parser.add_argument("--quick", action="store_true", help="few windows")
    parser.add_argument("--check", action="store_true", help="exit with status 1 when a bar is missed")
    parser.add_argument(CHILD, nargs=3, metavar=("BACKEND", "ROWS", "COLUMNS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], *map(int, options.child[1:]))
        return 0
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    options.folder.mkdir(parents=True, exist_ok=True)
    chosen = (options.part,) if options.part else parts
    figures = scale(is_quick=options.quick) if "scale" in chosen else []
    if set(chosen) - {"scale"}:
        model = Model(options.folder, is_quick=options.quick)
        for name, part in (("power", power), ("honesty", honesty), ("estimate", estimate)):
            figures += part(model, is_quick=options.quick) if name in chosen else []
    return conclude(figures, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
