"""What the global steps cost at sizes no test can hold: measured small, simulated large.

    python benchmarks/scale.py              (about two minutes)
    python benchmarks/scale.py --quick      (a few seconds)

Orders are real at every size, because they are computed where they are read. What holds something for every sample is
measured at two sizes, and the slope is printed with what it comes to for a billion samples.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BILLION = 10**9
CHILD = "--child"


def order(num_rows: int, *, kind: str) -> dict[str, float]:
    """Making an epoch's order, entering it in the middle, and reading on."""
    from datamill.shards.order import OrderReader, make_order

    start = time.perf_counter()
    reader = OrderReader(make_order(kind, num_rows=num_rows, seed=1, epoch=1, block_rows=5_000))
    reader.rows(num_rows // 2, num_rows // 2 + 256)
    entered = time.perf_counter()
    count = min(num_rows // 2, 2**21)
    for position in range(num_rows // 2, num_rows // 2 + count - 4096, 4096):
        reader.rows(position, position + 4096)
    return {"first_ms": 1e3 * (entered - start), "ns_per_row": 1e9 * (time.perf_counter() - entered) / count}


def hash_index(num_rows: int) -> dict[str, float]:
    """The index of content hashes: made, then asked for a tenth as many."""
    from datamill.hashes import HashIndex

    hashes = np.random.default_rng(0).integers(0, 2**63, (num_rows, 2), dtype=np.uint64)
    start = time.perf_counter()
    index = HashIndex(hashes)
    made = time.perf_counter()
    assert (index.find(hashes[::10]) == np.arange(0, num_rows, 10)).all()
    return {
        "make_ns_per_row": 1e9 * (made - start) / num_rows,
        "find_ns": 1e10 * (time.perf_counter() - made) / num_rows,
    }


def near(num_rows: int) -> dict[str, float]:
    """Candidate pairs of near-duplicates among fingerprints that resemble each other by chance alone."""
    from datamill.cleaning.near import Likeness, near_clusters
    from datamill.cleaning.observing import CONTENT
    from datamill.recall import State
    from datamill.runs import RUN_ROWS

    rng = np.random.default_rng(0)
    samples = np.zeros(num_rows, CONTENT)
    samples["first"] = np.sort(rng.integers(0, 2**63, num_rows, dtype=np.uint64))
    samples["row"] = np.arange(num_rows)
    samples["print"] = rng.integers(0, 2**63, num_rows, dtype=np.uint64)
    sketches = rng.integers(0, 16_000, (num_rows, 4), dtype=np.int16).view(np.uint64).ravel()

    class Drawn:
        def sketches(self, rows: np.ndarray | None) -> np.ndarray:
            return sketches

        def read(self, rows: np.ndarray) -> np.ndarray:
            return np.zeros((len(rows), 256), np.uint8)

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        near_clusters(
            lambda: (samples[first : first + RUN_ROWS] for first in range(0, num_rows, RUN_ROWS)),
            pictures=Drawn(),
            max_bits=2,
            likeness=Likeness(mean=0.02, pixel=0.1),
            scratch=Path(name),
            state=State(Path(name) / "state", made_with="drawn"),
        )
    return {"ns_per_row": 1e9 * (time.perf_counter() - start) / num_rows}


def ledger(num_rows: int) -> dict[str, float]:
    """Writing a ledger, and comparing it with those that came in."""
    import pyarrow as pa

    from datamill import ledger as ledgers

    def batches() -> Iterator[pa.Array]:
        for start in range(0, num_rows, 4096):
            digits = np.random.default_rng(start).bytes(16 * 4096).hex()
            yield pa.array([digits[place : place + 32] for place in range(0, len(digits), 32)])

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "ledger.parquet"
        start = time.perf_counter()
        with ledgers.Writer(path) as writer:
            for batch in batches():
                writer.write(sample_ids=batch)
        written = time.perf_counter()
        ledgers.check(path, population=batches(), stage="scale")
        checked = time.perf_counter()
        size = path.stat().st_size
    return {
        "write_ns_per_row": 1e9 * (written - start) / num_rows,
        "check_ns_per_row": 1e9 * (checked - written) / num_rows,
        "disk_bytes_per_row": size / num_rows,
    }


MEASURES = {"hash_index": hash_index, "near": near, "ledger": ledger}


def child(name: str, num_rows: int) -> None:
    """Run one measure in a process of its own, whose peak memory is its alone."""
    import resource

    found = MEASURES[name](num_rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(peak, *(f"{key}={value}" for key, value in found.items()))


def measure(name: str, num_rows: int) -> tuple[float, dict[str, float]]:
    """Peak memory (bytes) and figures of one measure."""
    command = [sys.executable, __file__, CHILD, name, str(num_rows)]
    words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(words[0]), {key: float(value) for key, value in (word.split("=") for word in words[1:])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rows")
    parser.add_argument(CHILD, nargs=2, metavar=("NAME", "ROWS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], int(options.child[1]))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    for kind in ("random", "blocks", "sequential"):
        for rows in (10**6, BILLION):
            told = order(rows, kind=kind)
            first, rest = told["first_ms"], told["ns_per_row"]
            print(f"order {kind}, {rows:.0e} rows: first batch {first:.1f} ms, {rest:.1f} ns a row", flush=True)
    small, large = (10**5, 3 * 10**5) if options.quick else (10**6, 5 * 10**6)
    for name in MEASURES:
        before, _ = measure(name, small)
        after, figures = measure(name, large)
        row_bytes = (after - before) / (large - small)
        told = ", ".join(f"{key} {value:.1f}" for key, value in figures.items())
        total = f"{row_bytes * BILLION / 2**30:.0f} GiB at 1e9"
        print(f"{name}, {large:.0e} rows: {told}; peak {row_bytes:.0f} bytes a row, {total}", flush=True)


if __name__ == "__main__":
    main()
