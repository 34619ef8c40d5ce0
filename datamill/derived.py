"""Samples the pipeline makes itself: their identity, and the training samples they are made from."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datamill import ledger, parts, reading, samples
from datamill.samples import Origin
from datamill.sampling import BottomK


@dataclass(frozen=True)
class TrainClass:
    """A class of the training split.

    Attributes:
        size: Its samples that survived the audit (count).
        ids: Some of them, or all, in random order.
    """

    size: int
    ids: list[str]


def choose_by_class(audited: Path, *, classes: Sequence[str], size: int, key: str) -> dict[str, TrainClass]:
    """At most ``size`` training samples of each class, by the labels of the audit; the same ones for the same key."""
    known = pa.array(classes, pa.string())
    draw = BottomK(size, key=key, num_groups=len(classes))
    sizes = np.zeros(len(classes), np.int64)
    is_train = reading.in_split("train")
    for table in ledger.iter_tables(audited, columns=["sample_id", "fate", "split", "label"]):
        train = table.filter(is_train(table)).select(["sample_id", "label"])
        groups = pc.index_in(train["label"], value_set=known).to_numpy()
        draw.add(train.select(["sample_id"]), groups=groups)
        sizes += np.bincount(groups, minlength=len(classes))
    return {
        label: TrainClass(size=int(sizes[number]), ids=draw.group(number)["sample_id"].to_pylist())
        for number, label in enumerate(classes)
    }


def iter_chosen(
    folder: Path, *, wanted: Collection[str], repairs: Path | None = None, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """These samples, in sample order, as their last repair left them.

    Only row groups with one of them are read, so a few samples of a large folder cost little.

    Args:
        folder: Parts folder.
        wanted: Ids of the samples.
        repairs: Parts folder whose rows replace the rows of the same id, if any.
        columns: Columns to read, among them ``sample_id``; all by default.
    """
    few = pa.array(list(wanted), pa.string())
    repaired = reading.read_samples([repairs], wanted=wanted, columns=columns) if repairs is not None else None
    for part in parts.read_manifest(folder).parts:
        with pq.ParquetFile(folder / part.name, pre_buffer=False) as file:
            is_wanted = pc.is_in(file.read(columns=["sample_id"])["sample_id"], few)
            stop = 0
            for group in range(file.num_row_groups):
                start, stop = stop, stop + file.metadata.row_group(group).num_rows
                mask = is_wanted.slice(start, stop - start)
                if pc.any(mask).as_py():
                    table = file.read_row_group(group, columns=columns).filter(mask)
                    yield table if repaired is None else _with_repairs(table, repaired=repaired)


def read_in_order(folder: Path, *, wanted: Sequence[str], repairs: Path) -> pa.Table:
    """These samples with payload, in the order of ``wanted``: for a picture's worth of them."""
    schema = parts.read_manifest(folder).dataset.arrow_schema()
    table = pa.concat_tables([schema.empty_table(), *iter_chosen(folder, wanted=wanted, repairs=repairs)])
    rows = pc.index_in(pa.array(wanted, pa.string()), value_set=table["sample_id"].combine_chunks())
    return table.take(rows)


def payload_hashes(payload: Mapping[str, pa.Array | pa.ChunkedArray]) -> list[str]:
    """Content hash of each row of payload columns: equal payloads, whoever made them, share it."""
    if "image" in payload:
        return [samples.content_hash(cell["bytes"].as_py()) for cell in payload["image"]]
    rows = zip(*(column.to_pylist() for column in payload.values()), strict=True)
    return [samples.content_hash(repr(row).encode()) for row in rows]


def sample_table(
    payload: Mapping[str, pa.Array],
    *,
    sources: Sequence[str],
    labels: Sequence[str],
    parents: Sequence[Sequence[str]],
    origin: Origin,
) -> pa.Table:
    """Rows for a part: identity from ``sources`` and the payload's content; neither group nor time."""
    contents = payload_hashes(payload)
    return pa.table(
        {
            "sample_id": [
                samples.sample_id(source, content) for source, content in zip(sources, contents, strict=True)
            ],
            "source": pa.array(sources, pa.string()),
            "content_hash": pa.array(contents, pa.string()),
            "label": pa.array(labels, pa.string()),
            "origin": pa.array([origin] * len(contents), pa.string()),
            "parents": pa.array(parents, pa.list_(pa.string())),
            **payload,
        }
    )


def _with_repairs(table: pa.Table, *, repaired: pa.Table) -> pa.Table:
    """``table`` with the rows that ``repaired`` has in another version."""
    rows = np.arange(table.num_rows)
    places = pc.fill_null(pc.index_in(table["sample_id"], value_set=repaired["sample_id"].combine_chunks()), -1)
    source = np.where(places.to_numpy() < 0, rows, table.num_rows + places.to_numpy())
    return pa.concat_tables([table, repaired.select(table.column_names)]).take(pa.array(source))
