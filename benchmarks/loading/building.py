"""Writers of every format that contenders read; timed by the work ``building``."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.loading.stored import Source
from benchmarks.loading.stubs import import_streaming
from benchmarks.loading.tasks import Task

CHUNK_ROWS = 4096
TAR_ROWS = 2000  # enough files for two workers
CHUNK_BYTES = "64MB"


def chunks(source: Source) -> Iterator[tuple[NDArray[np.int64], Any]]:
    """Row numbers and samples, some thousand at a time."""
    for start in range(0, len(source), CHUNK_ROWS):
        rows = np.arange(start, min(start + CHUNK_ROWS, len(source)))
        yield rows, source.take(rows)


def payload(sample: Any) -> bytes:
    """A sample's bytes."""
    return np.ascontiguousarray(sample).tobytes()


def write_datamill(folder: Path, *, task: Task, source: Source, name: str) -> None:
    from datamill.shards import Field, ShardWriter

    fields = {
        "images": lambda: {"x": Field.array("uint8", (28, 28, 1))},
        "jpegs": lambda: {"x": Field.bytes()},
        "sequences": lambda: {"x": Field.ragged("int32")},
        "audio": lambda: {"x": Field.array("int16", (16_000,))},
    }[name]()
    with ShardWriter(folder, split="train", fields={**fields, "label": Field.array("int32", ())}) as writer:
        for rows, samples in chunks(source):
            if name == "images":
                samples = samples.reshape(-1, 28, 28, 1)
            elif name == "jpegs":
                samples = [memoryview(sample) for sample in samples]
            writer.write({"x": samples, "label": rows.astype(np.int32)})


def arrow_table(task: Task, source: Source, *, as_lists: bool) -> Any:
    """Samples and row numbers as an Arrow table; ``as_lists`` keeps numbers, otherwise they are plain bytes."""
    import pyarrow as pa

    batches = []
    for rows, samples in chunks(source):
        if task.shape is None:
            flat = np.concatenate(samples)
            offsets = np.concatenate([[0], np.cumsum([len(sample) for sample in samples])])
        else:
            flat = np.ascontiguousarray(samples).reshape(-1)
            offsets = None
        batches.append(pa.record_batch({"x": _arrow_column(flat, offsets, task, as_lists), "id": rows}))
    return pa.Table.from_batches(batches)


def _arrow_column(flat: NDArray[Any], offsets: NDArray[np.int64] | None, task: Task, as_lists: bool) -> Any:
    import pyarrow as pa

    is_file = task.shape is None and task.dtype == "uint8"
    if offsets is None:
        width = int(np.prod(task.shape or ()))
        if as_lists:
            return pa.FixedSizeListArray.from_arrays(pa.array(flat), width)
        kind = pa.binary(width * flat.itemsize)
        return pa.FixedSizeBinaryArray.from_buffers(kind, len(flat) // width, [None, pa.py_buffer(flat)])
    if as_lists and not is_file:
        return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat))
    buffers = [None, pa.py_buffer(offsets * flat.itemsize), pa.py_buffer(flat)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


def write_parquet(folder: Path, *, task: Task, source: Source, name: str) -> None:
    import pyarrow.parquet as pq

    pq.write_table(arrow_table(task, source, as_lists=False), folder / "x.parquet")


def write_arrow(folder: Path, *, task: Task, source: Source, name: str) -> None:
    import pyarrow as pa

    table = arrow_table(task, source, as_lists=False).combine_chunks()
    with pa.OSFile(str(folder / "x.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def write_hf(folder: Path, *, task: Task, source: Source, name: str) -> None:
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    Dataset(arrow_table(task, source, as_lists=True)).save_to_disk(folder / "hf")


def write_lance(folder: Path, *, task: Task, source: Source, name: str) -> None:
    import lance

    lance.write_dataset(arrow_table(task, source, as_lists=True), folder / "x.lance")


def write_webdataset(folder: Path, *, task: Task, source: Source, name: str) -> None:
    import webdataset

    with webdataset.ShardWriter(f"file:{folder}/%05d.tar", maxcount=TAR_ROWS, verbose=0) as writer:
        for rows, samples in chunks(source):
            for row, sample in zip(rows.tolist(), samples, strict=True):
                writer.write({"__key__": f"{row:09d}", "bin": payload(sample)})


def write_mds(folder: Path, *, task: Task, source: Source, name: str) -> None:
    streaming = import_streaming()
    with streaming.MDSWriter(out=str(folder / "mds"), columns={"x": "bytes", "id": "int"}) as writer:
        for rows, samples in chunks(source):
            for row, sample in zip(rows.tolist(), samples, strict=True):
                writer.write({"x": payload(sample), "id": row})


def write_litdata(folder: Path, *, task: Task, source: Source, name: str) -> None:
    import litdata

    def sample(row: int) -> dict[str, Any]:
        return {"x": payload(source[row]), "id": row}

    inputs = list(range(len(source)))
    litdata.optimize(
        sample, inputs, str(folder / "lit"), chunk_bytes=CHUNK_BYTES, num_workers=2, start_method="fork", verbose=False
    )


def write_ffcv(folder: Path, *, task: Task, source: Source, name: str) -> None:
    from ffcv.fields import BytesField, IntField, NDArrayField
    from ffcv.writer import DatasetWriter

    is_file = task.shape is None
    x = BytesField() if is_file else NDArrayField(np.dtype(task.dtype), task.shape)
    writer = DatasetWriter(str(folder / "x.beton"), {"x": x, "id": IntField()}, num_workers=2)
    writer.from_indexed_dataset(_Pairs(source))


class _Pairs:
    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return np.ascontiguousarray(self._source[row]), row


FORMATS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "datamill": (write_datamill, ("datamill", "torch")),
    "parquet": (write_parquet, ("pyarrow",)),
    "arrow": (write_arrow, ("pyarrow",)),
    "hf": (write_hf, ("datasets",)),
    "lance": (write_lance, ("lance",)),
    "webdataset": (write_webdataset, ("webdataset",)),
    "mds": (write_mds, ("streaming",)),
    "litdata": (write_litdata, ("litdata",)),
    "ffcv": (write_ffcv, ("ffcv",)),
}
"""Writer of each format and the modules it needs."""

SHARD_FORMATS = ("webdataset", "mds", "litdata", "ffcv")
"""Formats of training shards."""
TABLE_FORMATS = ("hf", "lance")
"""Formats of tables, which are shown beside them."""
