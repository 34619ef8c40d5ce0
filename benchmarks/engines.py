"""Two workers against one, and what an item costs, on this machine: ``python benchmarks/engines.py [--check]``."""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datamill.engine import Engine

NUM_PARTS, NUM_IMAGES, SIZE_PX = 12, 20_000, 28
REPEATS = 3
NUM_ITEMS = 3_000
BAR_SPEEDUP = 1.6


def properties(path: Path) -> list[float]:
    """Mean height, width, brightness and contrast of the images of one part."""
    found = []
    for raw in pq.read_table(path)["image"].to_pylist():
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
        found.append((*image.shape[:2], image.mean(), image.std()))
    return [float(value) for value in np.mean(found, axis=0)]


def write_parts(folder: Path) -> None:
    """Write blurred noise as PNG files in Parquet parts."""
    rng = np.random.default_rng(0)
    for number in range(NUM_PARTS):
        noise = rng.integers(0, 255, (NUM_IMAGES, SIZE_PX, SIZE_PX), dtype=np.uint8)
        images = [cv2.imencode(".png", cv2.GaussianBlur(one, (5, 5), 2))[1].tobytes() for one in noise]
        pq.write_table(pa.table({"image": images}), folder / f"{number:02d}.parquet")


def measure(num_workers: int, folder: Path) -> tuple[float, list[list[float]]]:
    """Seconds for all parts, start of the workers included, and the results."""
    start = time.perf_counter()
    results = list(Engine(num_workers=num_workers).map(properties, sorted(folder.glob("*.parquet")), total=NUM_PARTS))
    return time.perf_counter() - start, results


def measure_in_a_new_process(num_workers: int, folder: Path) -> float:
    """The same in a process that has no workers yet."""
    command = [sys.executable, __file__, "--workers", str(num_workers), "--folder", str(folder)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> int:
    """Print each figure beside its bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 when a figure misses its bar")
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.workers:
        print(measure(options.workers, options.folder)[0])
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_parts(folder)
        seconds = {
            workers: statistics.median(measure_in_a_new_process(workers, folder) for _ in range(REPEATS))
            for workers in (1, 2)
        }
        is_same = measure(1, folder)[1] == measure(2, folder)[1]
    two = Engine(num_workers=2)
    start = time.perf_counter()
    assert list(two.map(abs, range(NUM_ITEMS))) == list(range(NUM_ITEMS))
    item_us = (time.perf_counter() - start) / NUM_ITEMS * 1e6
    speedup = seconds[1] / seconds[2]
    print(f"{NUM_PARTS} parts of {NUM_IMAGES} images: 1 worker {seconds[1]:.2f} s, 2 workers {seconds[2]:.2f} s")
    print(f"speed-up of two workers, their start included: {speedup:.2f} (bar {BAR_SPEEDUP})")
    print(f"results equal: {is_same}")
    print(f"an item costs {item_us:.0f} us")
    return int(options.check and not (speedup >= BAR_SPEEDUP and is_same))


if __name__ == "__main__":
    sys.exit(main())
