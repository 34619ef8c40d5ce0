"""datamill's loader, and the limits: bare compiled loops over the same samples."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.loading.batches import BucketOrder, Order
from benchmarks.loading.checks import AUDIO_SCALE
from benchmarks.loading.contender import Batch, Contender, Data, Epochs
from benchmarks.loading.peers import NUM_WORKERS
from benchmarks.loading.stored import Arrays, Ragged
from benchmarks.loading.tasks import CROP, MEAN, OFFSET, SCALE, STD, WINDOW

TOGETHER = 32  # rows


def make_loader(data: Data, name: str) -> Any:
    """Datamill's loader for a work's samples."""
    from datamill.shards import ShardLoader

    options = LOADER_OPTIONS[name]()
    return ShardLoader(data.built("datamill"), batch_size=data.batch_size, seed=data.seed, **options)


def _bucketed() -> dict[str, Any]:
    from datamill.shards.batching import Buckets

    return {"buckets": Buckets("x")}


def _decoded() -> dict[str, Any]:
    from datamill.shards.decoding import Decode

    return {"decode": {"x": Decode(CROP, CROP, crop="random", flip=True)}, "num_workers": NUM_WORKERS}


def _windowed() -> dict[str, Any]:
    from datamill.shards.windows import Window

    return {"windows": {"x": Window(WINDOW)}, "normalise": {"x": ((0.0,), (1.0,))}}


LOADER_OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "images": lambda: {"normalise": {"x": ((MEAN,), (STD,))}},
    "jpegs": _decoded,
    "sequences": _bucketed,
    "audio": _windowed,
}


def datamill(data: Data, *, name: str) -> Epochs:
    loader = make_loader(data, name)

    def epochs(epoch: int) -> Iterator[Batch]:
        for batch in loader:
            yield Batch(batch["x"], batch["label"].clone())  # the memory of a batch is used again

    return epochs


def image_limit(data: Data, *, threads: int) -> Epochs:
    """One loop in machine code that gathers and normalises into one buffer.

    Rows are copied some at a time before they are normalised: so many are on their way from memory at once, which is
    half as fast again as reading, converting and writing pixel by pixel.
    """
    import torch

    source = Arrays(data.source, in_memory=True).x.reshape(-1, 784)
    raw, out = np.empty((data.batch_size, 784), np.uint8), np.empty((data.batch_size, 784), np.float32)
    loop = _gather_in_threads(threads) if threads > 1 else _gather()

    def epochs(epoch: int) -> Iterator[Batch]:
        for rows in Order(data.num_rows, batch_size=data.batch_size):
            loop(source, rows, raw, out)
            yield Batch(torch.from_numpy(out[: len(rows)]), rows)

    return epochs


def _gather() -> Callable[..., None]:
    import numba

    scale, offset = np.float32(SCALE), np.float32(OFFSET)

    @numba.njit(fastmath=True)  # type: ignore[untyped-decorator]
    def normalise(raw: Any, out: Any) -> None:
        for place in range(len(raw)):
            for pixel in range(raw.shape[1]):
                out[place, pixel] = np.float32(raw[place, pixel]) * scale + offset  # else float64

    def gather(x: Any, rows: Any, raw: Any, out: Any) -> None:
        np.take(x, rows, axis=0, out=raw[: len(rows)], mode="clip")
        normalise(raw[: len(rows)], out)

    return gather


def _gather_in_threads(threads: int) -> Callable[..., None]:
    import numba

    scale, offset = np.float32(SCALE), np.float32(OFFSET)
    numba.set_num_threads(threads)

    @numba.njit(parallel=True, fastmath=True)  # type: ignore[untyped-decorator]
    def gather(x: Any, rows: Any, raw: Any, out: Any) -> None:
        for number in numba.prange(-(-len(rows) // TOGETHER)):
            start, stop = number * TOGETHER, min(number * TOGETHER + TOGETHER, len(rows))
            for place in range(start, stop):
                raw[place, :] = x[rows[place], :]
            for place in range(start, stop):
                for pixel in range(x.shape[1]):
                    out[place, pixel] = np.float32(raw[place, pixel]) * scale + offset

    return gather  # type: ignore[no-any-return]


def jpeg_limit(data: Data, *, threads: int) -> Epochs:
    """libjpeg-turbo alone: whole pictures, neither cropped nor put together."""
    import simplejpeg

    source = Ragged(data.source)
    pool = ThreadPoolExecutor(threads)

    def decode(rows: NDArray[np.int64]) -> Batch:
        for row in rows.tolist():
            simplejpeg.decode_jpeg(source[row].data)
        return Batch(None, rows)

    return lambda epoch: pool.map(decode, Order(data.num_rows, batch_size=data.batch_size))


def sequence_limit(data: Data, *, threads: int) -> Epochs:
    """One loop in machine code that pads into one buffer, in the order of a bucket sampler."""
    import numba
    import torch

    source = Ragged(data.source, in_memory=True)
    offsets = np.array(source.offsets)
    buffer = np.empty(data.batch_size * int(source.lengths.max()), np.int32)
    numba.set_num_threads(threads)

    @numba.njit(parallel=threads > 1)  # type: ignore[untyped-decorator]
    def pad(values: Any, offsets: Any, rows: Any, out: Any) -> None:
        for place in numba.prange(len(rows)):
            start, stop = offsets[rows[place]], offsets[rows[place] + 1]
            for at in range(start, stop):
                out[place, at - start] = values[at]
            for at in range(stop - start, out.shape[1]):
                out[place, at] = 0

    def epochs(epoch: int) -> Iterator[Batch]:
        for rows in BucketOrder(source.lengths, batch_size=data.batch_size):
            longest = int(source.lengths[rows].max())
            out = buffer[: len(rows) * longest].reshape(len(rows), longest)
            pad(source.values, offsets, rows, out)
            yield Batch(torch.from_numpy(out), rows)

    return epochs


def audio_limit(data: Data, *, threads: int) -> Epochs:
    """One loop in machine code that cuts and scales into one buffer."""
    import numba
    import torch

    clips = Arrays(data.source, in_memory=True).x
    out = np.empty((data.batch_size, WINDOW), np.float32)
    numba.set_num_threads(threads)
    scale = np.float32(AUDIO_SCALE)

    @numba.njit(parallel=threads > 1, fastmath=True)  # type: ignore[untyped-decorator]
    def cut(x: Any, rows: Any, starts: Any, out: Any) -> None:
        for place in numba.prange(len(rows)):
            row, start = rows[place], starts[place]
            for at in range(out.shape[1]):
                out[place, at] = np.float32(x[row, start + at]) * scale

    def epochs(epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng(epoch)
        for rows in Order(data.num_rows, batch_size=data.batch_size):
            cut(clips, rows, rng.integers(0, clips.shape[1] - WINDOW + 1, len(rows)), out)
            yield Batch(torch.from_numpy(out[: len(rows)]), rows)

    return epochs


LIMITS: dict[str, tuple[Callable[..., Epochs], str]] = {
    "images": (image_limit, "numba"),
    "jpegs": (jpeg_limit, "simplejpeg"),
    "sequences": (sequence_limit, "numba"),
    "audio": (audio_limit, "numba"),
}


def ours_and_limits(name: str) -> list[Contender]:
    """Datamill and what no loader can beat by much."""
    start, module = LIMITS[name]
    needs, threads = ("torch", module), ((2,) if name == "jpegs" else (1, 2))
    return [
        Contender("datamill", partial(datamill, name=name), reads="datamill", role="ours"),
        *(Contender(f"limit t{count}", partial(start, threads=count), needs=needs, role="limit") for count in threads),
    ]
