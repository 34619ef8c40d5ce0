"""A shard at a URL that is larger than the local cache: an epoch in random order, beside a plain read of its bytes.

    python benchmarks/streaming.py --check            2.2 GiB through a cache of 1.1 GiB, three rounds (two minutes)
    python benchmarks/streaming.py --quick --check    1.6 GiB through 0.8, one round, under a minute

The store is the local disk behind a line of 200 MB/s that all threads share. ``plain`` reads every file through it from
its beginning to its end and keeps nothing: no loader can be faster. ``ours`` loads an epoch by ``order="blocks"``, with
every row once. Each runs in a process of its own with an empty cache. The last lines name each figure beside its bar;
with ``--check`` the exit status is 1 when one is missed.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem
from pipeline import Figure

ROW_BYTES = 3072  # of an image of 32 x 32 in colour
BATCH_ROWS = 256
GIB = 2**30
FULL, QUICK = (int(2.2 * GIB), int(1.1 * GIB)), (int(1.6 * GIB), int(0.8 * GIB))
LINE_BYTES_PER_S, PIECE_BYTES = 200e6, 4 * 2**20
MOST_FETCHED, LEAST_SHARE = 1.6, 0.5  # bytes asked for, per byte; of the speed of a plain read


class Line(LocalFileSystem):  # type: ignore[misc]
    """The local disk as a store at the end of a line, which counts the bytes it gives."""

    protocol = "line"
    num_bytes: ClassVar[int] = 0
    free_at: ClassVar[float] = 0.0
    lock: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(LocalFileSystem._strip_protocol(str(path).removeprefix("line://")))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        content = bytes(super().cat_file(path, start=start, end=end, **options))
        with Line.lock:
            Line.num_bytes += len(content)
            Line.free_at = arrived = max(Line.free_at, time.monotonic()) + len(content) / LINE_BYTES_PER_S
        time.sleep(max(0.0, arrived - time.monotonic()))
        return content


def main() -> int:
    options = parse()
    if options.child:
        print(json.dumps(CONTENDERS[options.child](options.folder, options.cache_bytes)))
        return 0
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    size_bytes, cache_bytes = QUICK if options.quick else FULL
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory(prefix="datamill-streaming-", dir=options.folder) as name:
        folder = Path(name)
        write(folder / "train", num_rows=size_bytes // ROW_BYTES)
        for contender in list(CONTENDERS) * (1 if options.quick else options.rounds):
            one = run(contender, folder, cache_bytes=cache_bytes)
            print(f"{contender}: {one['seconds']:.2f} s, {one['bytes'] / GIB:.2f} GiB fetched", flush=True)
            found[contender].append(one)
    figures = judge(found)
    print("\n".join(map(str, figures)))
    return 1 if options.check and not all(figure.holds for figure in figures) else 0


def judge(found: dict[str, list[dict[str, float]]]) -> list[Figure]:
    """Medians beside their bars."""
    seconds, fetched = (
        {name: statistics.median(one[kind] for one in some) for name, some in found.items()}
        for kind in ("seconds", "bytes")
    )
    share = seconds["plain"] / seconds["ours"]
    return [
        Figure("bytes fetched per byte of the shard", fetched["ours"] / fetched["plain"], MOST_FETCHED, at_most=True),
        Figure("share of a plain sequential read's speed", share, LEAST_SHARE, at_most=False),
    ]


def write(folder: Path, *, num_rows: int) -> None:
    """A shard of noise; a row's label is its number."""
    from datamill.shards.entries import Field
    from datamill.shards.writing import ShardWriter

    rng = np.random.default_rng(0)
    fields = {"x": Field.array("uint8", (ROW_BYTES,)), "label": Field.array("int32")}
    with ShardWriter(folder, split="train", fields=fields) as writer:
        for start in range(0, num_rows, 4096):
            count = min(4096, num_rows - start)
            rows = rng.integers(0, 256, (count, ROW_BYTES), dtype=np.uint8)
            writer.write({"x": rows, "label": np.arange(start, start + count, dtype=np.int32)})


def run(contender: str, folder: Path, *, cache_bytes: int) -> dict[str, float]:
    """What a contender measured, in a process of its own."""
    command = [
        sys.executable,
        __file__,
        "--child",
        contender,
        "--folder",
        str(folder),
        "--cache-bytes",
        str(cache_bytes),
    ]
    return dict(json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))


def plain(folder: Path, cache_bytes: int) -> dict[str, float]:
    """Every file from its beginning to its end."""
    store, start = Line(), time.perf_counter()
    for path in sorted((folder / "train").glob("*.bin")):
        for at in range(0, path.stat().st_size, PIECE_BYTES):
            store.cat_file(str(path), start=at, end=at + PIECE_BYTES)
    return {"seconds": time.perf_counter() - start, "bytes": Line.num_bytes}


def ours(folder: Path, cache_bytes: int) -> dict[str, float]:
    """An epoch, every row once."""
    from datamill.shards import ShardLoader
    from datamill.shards.remote import open_remote

    fsspec.register_implementation("line", Line)
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        start = time.perf_counter()
        shard = open_remote(f"line://{folder}/train", cache=Path(cache), cache_bytes=cache_bytes)
        seen = np.zeros(shard.num_rows, np.uint8)
        for batch in ShardLoader(shard, batch_size=BATCH_ROWS, order="blocks", seed=1, num_workers=2):
            seen[batch["label"].numpy()] += 1
        seconds = time.perf_counter() - start
    assert (seen == 1).all(), "not every row came exactly once"
    return {"seconds": seconds, "bytes": Line.num_bytes}


CONTENDERS: dict[str, Callable[[Path, int], dict[str, float]]] = {"plain": plain, "ours": ours}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender")
    parser.add_argument("--folder", type=Path, help="where the shard is written; a disk, not memory")
    parser.add_argument("--quick", action="store_true", help="a small shard, one round")
    parser.add_argument("--check", action="store_true", help="exit with status 1 when a bar is missed")
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--cache-bytes", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
