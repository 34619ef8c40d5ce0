"""Peers, each set up as its own documentation says is fastest for samples that are at hand."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.loading.batches import Batches, BucketOrder, Order, Samples
from benchmarks.loading.contender import Batch, Contender, Data, Epochs
from benchmarks.loading.stubs import import_streaming
from benchmarks.loading.tasks import TASKS, Task

NUM_WORKERS = 2  # or threads, where a peer has those; 0 works in the caller's process
SHUFFLE_ROWS = 5000  # webdataset shuffles files, then through a buffer of this size


def unpair(task: Task, pairs: list[tuple[Any, int]]) -> Batch:
    """A batch of samples that carry their row numbers."""
    samples, ids = zip(*pairs, strict=True)
    return task.collate(samples, np.array(ids))


def of_bytes(task: Task, data: Any) -> NDArray[Any]:
    """A sample from its bytes."""
    array = np.frombuffer(data, task.dtype)
    return array if task.shape is None else array.reshape(task.shape)


def of_column(task: Task, column: Any) -> Any:
    """Samples of an Arrow column, without a copy."""
    import pyarrow as pa

    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    kind = column.type
    if pa.types.is_fixed_size_list(kind):
        return column.flatten().to_numpy().reshape(-1, *(task.shape or ()))
    if pa.types.is_fixed_size_binary(kind):
        start = column.offset * kind.byte_width
        flat = np.frombuffer(column.buffers()[1], np.uint8)[start : start + len(column) * kind.byte_width]
        return flat.view(task.dtype).reshape(-1, *(task.shape or ()))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        offsets, flat = column.offsets.to_numpy().tolist(), column.values.to_numpy()
        return [flat[start:stop] for start, stop in itertools.pairwise(offsets)]
    return [of_bytes(task, value.as_buffer()) for value in column]


def data_loader(dataset: Any, *, workers: int, **options: Any) -> Epochs:
    """Epochs of torch's DataLoader; its worker processes stay."""
    from torch.utils.data import DataLoader

    loader = DataLoader(
        dataset, num_workers=workers, persistent_workers=workers > 0, prefetch_factor=4 if workers else None, **options
    )
    return lambda epoch: iter(loader)


def torch_samples(data: Data, *, task: Task, workers: int) -> Epochs:
    dataset = Samples(task, task.source(data.source))
    collate = partial(unpair, task)
    return data_loader(dataset, workers=workers, batch_size=data.batch_size, shuffle=True, collate_fn=collate)


def torch_batches(data: Data, *, task: Task, workers: int, buckets: bool = False) -> Epochs:
    source = task.source(data.source)
    order = Order(data.num_rows, batch_size=data.batch_size)
    if buckets:
        order = BucketOrder(source.lengths, batch_size=data.batch_size)  # type: ignore[attr-defined]
    dataset = Batches(task, lambda rows: (source.take(rows), rows))
    return data_loader(dataset, workers=workers, sampler=order, batch_size=None)


def arrow(data: Data, *, task: Task) -> Epochs:
    import pyarrow as pa

    table = pa.ipc.open_file(pa.memory_map(str(data.built("arrow") / "x.arrow"))).read_all()
    column, ids = table.column("x").combine_chunks(), table.column("id").to_numpy()
    order = Order(data.num_rows, batch_size=data.batch_size)
    return lambda epoch: (task.many(of_column(task, column.take(pa.array(rows))), ids[rows]) for rows in order)


def hf_datasets(data: Data, *, task: Task, workers: int) -> Epochs:
    from datasets import load_from_disk

    dataset = load_from_disk(str(data.built("hf") / "hf")).with_format("arrow")

    def take(rows: NDArray[np.int64]) -> tuple[Any, Any]:
        table = dataset[rows]
        return of_column(task, table.column("x")), table.column("id").to_numpy()

    order = Order(data.num_rows, batch_size=data.batch_size)
    return data_loader(Batches(task, take), workers=workers, sampler=order, batch_size=None)


class LanceBatches(Batches):
    """Opens the data set in the worker: Lance's threads do not survive a fork."""

    def __init__(self, task_name: str, path: str) -> None:
        """A data set that is not opened yet."""
        self._task, self._path = TASKS[task_name], path
        self._dataset: Any = None

    def _take(self, rows: NDArray[np.int64]) -> tuple[Any, Any]:
        import lance

        self._dataset = self._dataset or lance.dataset(self._path)
        table = self._dataset.take(rows, columns=["x", "id"])
        return of_column(self._task, table.column("x")), table.column("id").to_numpy()


def lance(data: Data, *, task: Task, workers: int) -> Epochs:
    name = next(name for name, one in TASKS.items() if one is task)
    dataset = LanceBatches(name, str(data.built("lance") / "x.lance"))
    order = Order(data.num_rows, batch_size=data.batch_size)
    context = {"multiprocessing_context": "spawn"} if workers else {}
    return data_loader(dataset, workers=workers, sampler=order, batch_size=None, **context)


def webdataset(data: Data, *, task: Task, workers: int) -> Epochs:
    import webdataset as wds

    files = sorted(map(str, data.built("webdataset").glob("*.tar")))
    pipeline = (
        wds.WebDataset(files, shardshuffle=len(files), workersplitter=wds.split_by_worker)
        .shuffle(SHUFFLE_ROWS)
        .map(lambda sample: (task.one(of_bytes(task, sample["bin"])), int(sample["__key__"])))
        .batched(data.batch_size, collation_fn=partial(unpair, task))
    )
    return data_loader(pipeline, workers=workers, batch_size=None)


def mosaicml(data: Data, *, task: Task, workers: int) -> Epochs:
    streaming = import_streaming()

    class Decoded(streaming.StreamingDataset):  # type: ignore[name-defined, misc]
        def __getitem__(self, at: Any) -> tuple[Any, int]:
            sample = super().__getitem__(at)
            return task.one(of_bytes(task, sample["x"])), sample["id"]

    streaming.base.util.clean_stale_shared_memory()
    dataset = Decoded(local=str(data.built("mds") / "mds"), shuffle=True, batch_size=data.batch_size)
    return data_loader(dataset, workers=workers, batch_size=data.batch_size, collate_fn=partial(unpair, task))


def litdata(data: Data, *, task: Task, workers: int) -> Epochs:
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(
        str(data.built("litdata") / "lit"),
        shuffle=True,
        item_shuffle_window="full",
        transform=lambda sample: (task.one(of_bytes(task, sample["x"])), sample["id"]),
    )
    loader = StreamingDataLoader(
        dataset,
        batch_size=data.batch_size,
        num_workers=workers,
        collate_fn=partial(unpair, task),
        persistent_workers=workers > 0,
    )
    return lambda epoch: iter(loader)


def grain(data: Data, *, task: Task, threads: int, by_batch: bool) -> Epochs:
    from grain.python import MapDataset, ReadOptions

    source = task.source(data.source)
    options = ReadOptions(num_threads=threads, prefetch_buffer_size=8 if by_batch else 2 * data.batch_size)

    def epochs(epoch: int) -> Iterator[Batch]:
        if by_batch:
            order = list(Order(data.num_rows, batch_size=data.batch_size))
            batches = MapDataset.source(order).map(lambda rows: task.many(source.take(rows), rows))
        else:
            rows = MapDataset.range(data.num_rows).shuffle(seed=epoch)
            samples = rows.map(lambda row: (task.one(source[int(row)]), row))
            batches = samples.batch(data.batch_size, batch_fn=partial(unpair, task))
        return iter(batches.to_iter_dataset(options))

    return epochs


def spdl(data: Data, *, task: Task, threads: int) -> Epochs:
    from spdl.pipeline import PipelineBuilder

    source = task.source(data.source)
    order = Order(data.num_rows, batch_size=data.batch_size)

    def epochs(epoch: int) -> Iterator[Batch]:
        builder = PipelineBuilder().add_source(order)
        builder = builder.pipe(lambda rows: task.many(source.take(rows), rows), concurrency=threads)
        pipeline = builder.add_sink(8).build(num_threads=threads, use_thread_output_queue=True)
        with pipeline.auto_stop():
            yield from pipeline.get_iterator()

    return epochs


def in_one_thread(data: Data, *, start: Callable[[Data], Epochs]) -> Epochs:
    """A contender whose torch operations do not wait for a second core."""
    import torch

    torch.set_num_threads(1)
    return start(data)


def peers_of(name: str) -> list[Contender]:
    """Every peer that does this task."""
    task = TASKS[name]
    found = []

    def add(peer: str, start: Callable[..., Epochs], *, needs: tuple[str, ...], reads: str, **options: Any) -> None:
        start = partial(start, task=task, **options)
        if peer.endswith("one core"):
            start = partial(in_one_thread, start=start)
        found.append(Contender(peer, start, needs=("torch", *needs), reads=reads))

    for workers in (0, NUM_WORKERS):
        add(f"torch samples w{workers}", torch_samples, needs=(), reads="source", workers=workers)
        add(f"torch batches w{workers}", torch_batches, needs=(), reads="source", workers=workers)
        add(f"hf-datasets w{workers}", hf_datasets, needs=("datasets",), reads="hf", workers=workers)
        add(f"webdataset w{workers}", webdataset, needs=("webdataset",), reads="webdataset", workers=workers)
        add(f"mosaicml w{workers}", mosaicml, needs=("streaming",), reads="mds", workers=workers)
        add(f"litdata w{workers}", litdata, needs=("litdata",), reads="litdata", workers=workers)
        add(f"lance w{workers}", lance, needs=("lance",), reads="lance", workers=workers)
    add("torch batches one core", torch_batches, needs=(), reads="source", workers=0)
    add("pyarrow take", arrow, needs=("pyarrow",), reads="arrow")
    for threads in (0, NUM_WORKERS):
        add(f"grain samples t{threads}", grain, needs=("grain",), reads="source", threads=threads, by_batch=False)
        add(f"grain batches t{threads}", grain, needs=("grain",), reads="source", threads=threads, by_batch=True)
    for threads in (1, NUM_WORKERS):
        add(f"spdl t{threads}", spdl, needs=("spdl",), reads="source", threads=threads)
    return found
