"""Samples in the formats of other tools: one module per format, each with a writer and a reader of single files.

The layouts are specified in ``README.md`` beside this file. ``writer`` streams samples into any of ``FORMATS``;
``export_shard`` and ``import_shard`` turn native shards into foreign files and back.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from datamill.errors import DataError
from datamill.samples import Dataset
from datamill.shards.exchange import mds, parquet, tfrecord, webdataset
from datamill.shards.exchange.records import Format, Payload
from datamill.shards.exchange.splits import SplitWriter

__all__ = ["FORMATS", "Payload", "SplitWriter", "export_shard", "format_module", "import_shard", "writer"]

FORMATS: dict[str, Format] = {"webdataset": webdataset, "tfrecord": tfrecord, "parquet": parquet, "mds": mds}
MAX_SAMPLES = 10_000


def __getattr__(name: str) -> Any:
    """Functions between formats, imported when they are wanted: what only writes need not load what reads."""
    if name in ("export_shard", "import_shard"):
        return getattr(import_module(f"{__name__}.conversion"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def format_module(name: str) -> Format:
    """The format of this name.

    Raises:
        DataError: There is none.
    """
    if name not in FORMATS:
        raise DataError(f"format {name!r} is none of {list(FORMATS)}")
    return FORMATS[name]


def writer(
    format: str,  # noqa: A002 - the word a user looks for
    folder: Path,
    *,
    split: str,
    dataset: Dataset | None,
    max_samples: int = MAX_SAMPLES,
    max_bytes: int | None = None,
) -> SplitWriter:
    """A context manager that writes one split; equal samples give equal files.

    Args:
        format: One of ``FORMATS``.
        folder: Where the files go; several splits may share it.
        split: Name of the split, which the files' names begin with.
        dataset: Names the classes, and goes into ``dataset.json``.
        max_samples: Samples per file at most (count).
        max_bytes: Payload after which a file ends; ``None`` takes the format's own, which suits its loaders.

    Raises:
        DataError: There is no such format.
    """
    form = format_module(format)
    limit = form.MAX_BYTES if max_bytes is None else max_bytes
    return SplitWriter(form, folder, split=split, dataset=dataset, max_samples=max_samples, max_bytes=limit)
