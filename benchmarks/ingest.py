"""Folders of image files turned into samples, beside the tools that turn them into shards or tables.

    python benchmarks/ingest.py --check                       40,000 small and 10,000 larger images (about 8 minutes)
    python benchmarks/ingest.py --peers /path/to/python       an interpreter that has the peers
    python benchmarks/ingest.py --quick --check               few images, one round, half a minute

Every contender runs in a process of its own, once a round, after its imports and on files that were read before.
``floor`` lists, reads and decodes the files and does nothing else; ``ours`` checks every byte, decodes every image,
names it by its content and writes verified parts; ``again`` does so when no file has changed. Peers do not look at an
image: ``webdataset`` writes tar files, ``mds`` and ``litdata`` shards, ``pyarrow`` and ``datasets`` Parquet; as
``-decoded`` they decode each first. A peer that does not load is absent, and its reason is printed. Peers are best
installed apart, because datasets 5 wants a newer huggingface-hub than transformers 4 bears, and datasets 4 an older
fsspec than s3fs::

    pip install 'datasets<5' webdataset mosaicml-streaming litdata pyarrow opencv-python-headless

Processor time is that of the process and of all that it has started. The last lines name each figure beside its bar;
with ``--check`` the exit status is 1 when one is missed.
"""

import argparse
import itertools
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import Figure

CLASSES = 10
MIB = 2**20
LIMITS = {"max_pixels": 64_000_000, "max_file_bytes": 2**30}
DECODED = "-decoded"  # ends the name of a peer that decodes what it converts


def main() -> int:
    options = parse()
    if options.child:
        print(json.dumps(CONTENDERS[options.child](options.source, options.out)))
        return 0
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    figures = []
    with tempfile.TemporaryDirectory(prefix="datamill-ingest-", dir=options.folder) as name:
        for side, ending, count, few in ((28, ".png", 40_000, 2_000), (256, ".jpg", 10_000, 300)):
            source = Path(name) / f"{side}px"
            draw(source, side=side, ending=ending, count=few if options.quick else count)
            rounds = 1 if options.quick else options.rounds
            cost = take_turns(source, Path(name) / "out", rounds=rounds, peers=options.peers)
            capacity = measure_capacity(source)
            figures += judge(cost, capacity=capacity, side=side, is_quick=options.quick)
    print("\n".join(map(str, figures)))
    return 1 if options.check and not all(figure.holds for figure in figures) else 0


def judge(cost: dict[str, float], *, capacity: float, side: int, is_quick: bool) -> list[Figure]:
    """Bars for microseconds per image; of a few images, which show that it works, only one that cannot be missed."""
    mine = min(cost["ours"], cost["ours-2"])
    if is_quick:
        return [Figure(f"{side} px: ours us/image", mine, 10_000, at_most=True)]
    # Two workers on two virtual cores need not be twice as fast, so the bar is a share of what two floors gain.
    gain = cost["ours"] / cost["ours-2"] / capacity
    title = f"{side} px: gain of two workers ({cost['ours'] / cost['ours-2']:.2f}) / of two processes ({capacity:.2f})"
    figures = [
        Figure(title, gain, 0.6 if side < 100 else 0.8, at_most=False),  # one process lists what all read
        Figure(f"{side} px: unchanged / first", cost["again"] / cost["ours"], 0.6, at_most=True),
    ]
    for kind, is_decoding in (("converts", False), ("decodes and converts", True)):
        peers = {name: cost[name] for name in PEERS if name in cost and name.endswith(DECODED) == is_decoding}
        if peers:
            fastest = min(peers, key=peers.__getitem__)
            title = f"{side} px: ours / fastest peer that {kind} ({fastest})"
            figures.append(Figure(title, mine / peers[fastest], 1.0, at_most=True))
    return figures


def measure_capacity(source: Path) -> float:
    """How much more two processes do together that read and decode the same files."""
    command = [sys.executable, __file__, "--child", "floor", "--source", str(source), "--out", str(source)]

    def seconds(count: int) -> float:
        children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        return max(float(json.loads(child.communicate()[0])["seconds"]) for child in children)

    return 2 * seconds(1) / seconds(2)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender")
    parser.add_argument("--folder", type=Path, help="where the images are drawn; a disk, not memory")
    parser.add_argument("--peers", default=sys.executable, help="interpreter that runs the peers")
    parser.add_argument("--quick", action="store_true", help="few images, one round")
    parser.add_argument("--check", action="store_true", help="exit with status 1 when a bar is missed")
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def draw(folder: Path, *, side: int, ending: str, count: int) -> None:
    """Smooth noise, no two images alike."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    small = [rng.integers(0, 255, (side // 8 + 2, side // 8 + 2, 3), dtype=np.uint8) for _ in range(200)]
    images = [cv2.resize(one, (side, side), interpolation=cv2.INTER_CUBIC) for one in small]
    for number in range(count):
        image = images[number % len(images)]
        image[0, :3] = np.frombuffer(number.to_bytes(9, "little"), np.uint8).reshape(3, 3)
        path = folder / f"class-{number % CLASSES}" / f"{number:07d}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(ending, image if side > 28 else image[..., 0])[1].tobytes())


def take_turns(source: Path, out: Path, *, rounds: int, peers: str) -> dict[str, float]:
    """Microseconds per image of each contender, the median of its turns."""
    turns: dict[str, list[float]] = {}
    absent: dict[str, str] = {}
    for _ in range(rounds):
        for name in CONTENDERS:
            if name in absent:
                continue
            found = run(name, source, out, python=peers if name in PEERS else sys.executable)
            if isinstance(found, str):
                absent[name] = found
                print(f"{source.name} {name:20} absent: {found}", flush=True)
                continue
            spent, cpu = (found[key] / found["count"] * 1e6 for key in ("seconds", "cpu_seconds"))
            turns.setdefault(name, []).append(spent)
            told = f"{spent:7.1f} us/image, {cpu:7.1f} us of processor time, peak {found['peak_mib']:.0f} MiB"
            print(f"{source.name} {name:20} {told}", flush=True)
    return {name: statistics.median(values) for name, values in turns.items()}


def run(name: str, source: Path, out: Path, *, python: str) -> dict[str, float] | str:
    """What a contender measured; of a peer that does not run, the reason."""
    if name != "again":
        shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    for path, _ in image_files(source):  # so that all find the files in memory, which some machines soon take away
        read(path)
    command = [python, __file__, "--child", name, "--source", str(source), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.returncode:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    if name not in PEERS:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    return (done.stderr.strip().splitlines() or ["no word"])[-1][:200]


class Clock:
    """Measures one contender."""

    def __init__(self) -> None:
        """Start."""
        self._cpu, self._start = self._cpu_seconds(), time.perf_counter()

    def read(self, count: int) -> dict[str, float]:
        """Time since the start, for so many images."""
        seconds = time.perf_counter() - self._start
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        spent = {"seconds": seconds, "cpu_seconds": self._cpu_seconds() - self._cpu}
        return {**spent, "count": count, "peak_mib": peak_mib}

    def _cpu_seconds(self) -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in usages)


def image_files(source: Path) -> Iterator[tuple[str, str]]:
    """Path and class of every image."""
    for folder in sorted(source.iterdir()):
        for path in sorted(entry.path for entry in os.scandir(folder)):
            yield path, folder.name


def read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def floor(source: Path, out: Path) -> dict[str, float]:
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    clock, count = Clock(), 0
    for path, _ in image_files(source):
        payload = read(path)
        assert cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_UNCHANGED) is not None
        count += 1
    return clock.read(count)


def ours(source: Path, out: Path, *, num_workers: int = 1, is_again: bool = False) -> dict[str, float]:
    """The stage itself; ``is_again`` after a run that is its previous one."""
    import cv2

    from datamill.engine import Engine
    from datamill.sources import IngestParams, image_folder, intake  # noqa: F401 - imported before the clock starts
    from datamill.stage import Context
    from tasks.ingest import ingest

    class Tracker:
        def log_metrics(self, metrics: Any, *, step: int | None = None) -> None:
            """Nothing is kept."""

    cv2.setNumThreads(1)
    (out / "scratch").mkdir(exist_ok=True)
    outputs = {name: out / ("second" if is_again else "first") / name for name in ("samples", "rejects")}
    context = Context(
        wanted_device="cpu",
        num_threads=1,
        num_workers=num_workers,
        engine=Engine(num_workers=num_workers),
        previous={name: out / "first" / name for name in outputs} if is_again else {},
        tracker=Tracker(),
        scratch=out / "scratch",
        state=out / "state",
        progress=lambda items, **_: items,
    )
    folder = {"kind": "image_folder", "path": str(source), "group_from": "none"}
    params = IngestParams.model_validate({"source": folder, **LIMITS})
    clock = Clock()
    metrics = ingest(**outputs, params=params, context=context)
    return clock.read(metrics["num_samples"])


def again(source: Path, out: Path) -> dict[str, float]:
    """The second ingest of files none of which changed."""
    time.sleep(2.5)  # files that were changed a moment ago are not trusted
    if not (out / "state").exists():
        ours(source, out)
    return ours(source, out, is_again=True)


class Payloads:
    """Bytes of files, decoded once where asked."""

    def __init__(self, *, is_decoding: bool) -> None:
        """Load what is needed."""
        self._is_decoding = is_decoding
        if is_decoding:
            import cv2

            cv2.setNumThreads(1)

    def of(self, path: str) -> bytes:
        """A file's bytes."""
        payload = read(path)
        if self._is_decoding:
            self.decode(payload)
        return payload

    def decode(self, payload: bytes) -> None:
        import cv2
        import numpy as np

        assert cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_UNCHANGED) is not None


def webdataset(source: Path, out: Path, *, is_decoding: bool = False) -> dict[str, float]:
    import webdataset

    payloads = Payloads(is_decoding=is_decoding)
    clock, count = Clock(), 0
    with webdataset.ShardWriter(f"file:{out}/%06d.tar", maxcount=50_000, verbose=0) as writer:
        for path, label in image_files(source):
            writer.write({"__key__": f"{count:09d}", path.rpartition(".")[2]: payloads.of(path), "cls": label})
            count += 1
    return clock.read(count)


def mds(source: Path, out: Path, *, is_decoding: bool = False) -> dict[str, float]:
    from loading.stubs import import_streaming

    sys.path.remove(str(Path(__file__).parent))  # where a module of ours has the library's name
    streaming = import_streaming()
    payloads = Payloads(is_decoding=is_decoding)
    clock, count = Clock(), 0
    with streaming.MDSWriter(out=str(out / "mds"), columns={"image": "bytes", "label": "str"}) as writer:
        for path, label in image_files(source):
            writer.write({"image": payloads.of(path), "label": label})
            count += 1
    return clock.read(count)


def litdata(source: Path, out: Path, *, is_decoding: bool = False) -> dict[str, float]:
    import litdata

    payloads = Payloads(is_decoding=is_decoding)

    def sample(item: tuple[str, str]) -> dict[str, Any]:
        return {"image": payloads.of(item[0]), "label": item[1]}

    clock = Clock()
    items = list(image_files(source))
    workers = {"num_workers": os.cpu_count(), "start_method": "fork", "verbose": False}
    litdata.optimize(sample, items, str(out / "lit"), chunk_bytes="64MB", **workers)
    return clock.read(len(items))


def pyarrow(source: Path, out: Path, *, is_decoding: bool = False) -> dict[str, float]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    payloads = Payloads(is_decoding=is_decoding)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.string())])
    clock, count = Clock(), 0
    with pq.ParquetWriter(out / "train.parquet", schema) as writer:
        files = image_files(source)
        while some := list(itertools.islice(files, 1_000)):
            rows = [{"bytes": payloads.of(path), "path": path} for path, _ in some]
            writer.write_table(pa.table([pa.array(rows, image), pa.array([label for _, label in some])], schema=schema))
            count += len(some)
    return clock.read(count)


def datasets(source: Path, out: Path, *, is_decoding: bool = False) -> dict[str, float]:
    os.environ.update(HF_HOME=str(out / "home"), HF_HUB_OFFLINE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1")
    import datasets

    payloads = Payloads(is_decoding=is_decoding)
    clock = Clock()
    loaded = datasets.load_dataset("imagefolder", data_dir=str(source), split="train", cache_dir=str(out / "cache"))
    if is_decoding:
        for image in loaded.cast_column("image", datasets.Image(decode=False))["image"]:
            payloads.of(image["path"])
    loaded.to_parquet(str(out / "train.parquet"))
    return clock.read(len(loaded))


CONVERTERS = (webdataset, mds, litdata, pyarrow, datasets)
PEERS: dict[str, Callable[[Path, Path], dict[str, float]]] = {
    **{one.__name__: one for one in CONVERTERS},
    **{one.__name__ + DECODED: partial(one, is_decoding=True) for one in CONVERTERS},
}
CONTENDERS: dict[str, Callable[[Path, Path], dict[str, float]]] = {
    "floor": floor,
    "ours": ours,
    "again": again,
    "ours-2": partial(ours, num_workers=2),
    **PEERS,
}

if __name__ == "__main__":
    sys.exit(main())
