"""Joins samples with the plan that says where each belongs, and refuses a plan that would leak."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill import files, ledger
from datamill.errors import DataError, StageError
from datamill.samples import Dataset
from datamill.shards import SPLITS
from datamill.shards.native import ShardWriter
from datamill.shards.webdataset import TarWriter, image_member, row_member

TRAIN = SPLITS[0]
DECODED_BYTES = 64 * 2**20  # arrays held at a time; bounds memory, not results


class Arrays(Protocol):
    """What joining needs of a fitted preprocessor."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""

    @property
    def dtype(self) -> str:
        """``uint8`` or ``float32``."""

    def arrays(self, table: pa.Table) -> NDArray[Any]:
        """Samples as training sees them, shape ``(N, *shape)``."""


@dataclass(frozen=True)
class Plan:
    """Where every surviving sample goes; arrays have one entry per sample, in the plan's order.

    Attributes:
        row_of: Position of each surviving sample in the arrays below, by id.
        split_of: Split by id, of the samples that did not survive as well: they may be parents.
        split: Name of the split.
        label: Number of the class, int32.
        weight: Weight of the loss, float32.
        draw: Relative probability to be drawn, float32.
    """

    row_of: dict[str, int]
    split_of: dict[str, str]
    split: NDArray[np.str_]
    label: NDArray[np.int32]
    weight: NDArray[np.float32]
    draw: NDArray[np.float32]

    @property
    def num_rows(self) -> int:
        """Number of surviving samples."""
        return len(self.row_of)


@dataclass(frozen=True)
class Export:
    """A WebDataset export.

    Attributes:
        folder: Where the tar files go.
        splits: Which splits are exported.
        max_samples: Samples per tar file.
    """

    folder: Path
    splits: tuple[str, ...]
    max_samples: int


def read_plan(path: Path, *, classes: tuple[str, ...]) -> Plan:
    """The plan that balance wrote.

    Raises:
        DataError: A split or a label is unknown, or a weight or a probability is negative or not finite.
    """
    table = ledger.read(path, columns=["sample_id", "fate", "split", "label", "weight", "draw"])
    split_of = dict(zip(table["sample_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    table = table.filter(pa.array([fate in ledger.SURVIVING for fate in table["fate"].to_pylist()], pa.bool_()))
    numbers = {name: number for number, name in enumerate(classes)}
    for column, known in (("split", SPLITS), ("label", tuple(numbers))):
        unknown = sorted(set(table[column].to_pylist()) - set(known), key=str)
        if unknown:
            raise DataError(f"{path}: {column} {unknown[0]!r} is none of {list(known)}; run balance again")
    floats = {name: np.asarray(table[name].to_pylist(), np.float32) for name in ("weight", "draw")}
    for name, values in floats.items():
        wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if wrong.size:
            key = table["sample_id"][int(wrong[0])].as_py()
            raise DataError(
                f"{path}: {name} of sample {key} is {values[wrong[0]]}, not a number from 0; run balance again"
            )
    return Plan(
        row_of={key: row for row, key in enumerate(table["sample_id"].to_pylist())},
        split_of=split_of,
        split=np.asarray(table["split"].to_pylist(), np.str_),
        label=np.asarray([numbers[label] for label in table["label"].to_pylist()], np.int32),
        **floats,
    )


def require_no_leak(tables: Iterable[pa.Table], *, plan: Plan) -> None:
    """Pass when every generated sample, and every parent it names, belongs to the training split.

    Args:
        tables: ``sample_id``, ``origin`` and ``parents`` of every sample.
        plan: The plan; samples that are not in it do not matter.

    Raises:
        StageError: Names the sample, and the parent where there is one.
    """
    for table in tables:
        for row in table.to_pylist():
            key, parents = row["sample_id"], row["parents"]
            if key not in plan.row_of or (row["origin"] == "source" and not parents):
                continue
            if plan.split_of[key] != TRAIN:
                raise StageError(
                    f"shard: {row['origin']} sample {key} is in {plan.split_of[key]}; made samples belong to train"
                )
            for parent in parents:
                home = plan.split_of.get(parent, "no split of the plan")
                if home != TRAIN:
                    raise StageError(
                        f"shard: sample {key} was made from {parent}, which is in {home}; training on it would leak. "
                        f"Run the stage that made it again: {row['origin']} samples may have parents in train only"
                    )


def write_shards(
    tables: Iterable[pa.Table],
    *,
    plan: Plan,
    preprocessor: Arrays,
    dataset: Dataset,
    folder: Path,
    export: Export | None = None,
) -> NDArray[np.int64]:
    """Write one native shard per split, rows in the order the samples come; memory does not grow with the data.

    Returns:
        Row of each sample of the plan in the shard of its split, shape ``(N,)``.

    Raises:
        StageError: A sample of the plan did not come.
    """
    rows = np.full(plan.num_rows, -1, np.int64)
    num_written = dict.fromkeys(SPLITS, 0)
    with contextlib.ExitStack() as stack:
        shards = {
            split: stack.enter_context(
                ShardWriter(
                    folder / split, split=split, dataset=dataset, shape=preprocessor.shape, dtype=preprocessor.dtype
                )
            )
            for split in SPLITS
        }
        tars = _open_tars(export, dataset=dataset, stack=stack)
        for table in _bounded(tables, preprocessor=preprocessor):
            ids = table["sample_id"].to_pylist()
            planned = np.asarray([plan.row_of[key] for key in ids])
            arrays = _arrays(table, ids=ids, planned=planned, plan=plan, preprocessor=preprocessor)
            for split in SPLITS:
                here = np.flatnonzero(plan.split[planned] == split)
                shards[split].write({name: array[here] for name, array in arrays.items()})
                rows[planned[here]] = num_written[split] + np.arange(len(here))
                num_written[split] += len(here)
                if split in tars:
                    _write_tar(tars[split], table.take(pa.array(here)), arrays={k: a[here] for k, a in arrays.items()})
    missing = [key for key, row in plan.row_of.items() if rows[row] < 0]
    if missing:
        raise StageError(
            f"shard: {len(missing)} of {plan.num_rows} planned samples are in no parts folder, first {missing[0]}; "
            f"run balance again"
        )
    return rows


def _bounded(tables: Iterable[pa.Table], *, preprocessor: Arrays) -> Iterator[pa.Table]:
    row_bytes = int(np.prod(preprocessor.shape)) * np.dtype(preprocessor.dtype).itemsize
    num_rows = max(1, DECODED_BYTES // max(1, row_bytes))
    for table in tables:
        for start in range(0, table.num_rows, num_rows):
            yield table.slice(start, num_rows)


def _arrays(
    table: pa.Table, *, ids: list[str], planned: NDArray[np.int64], plan: Plan, preprocessor: Arrays
) -> dict[str, NDArray[Any]]:
    return {
        "x": preprocessor.arrays(table),
        "label": plan.label[planned],
        "weight": plan.weight[planned],
        "draw": plan.draw[planned],
        "sample_id": np.frombuffer(bytes.fromhex("".join(ids)), np.uint8).reshape(len(ids), -1),
    }


def _open_tars(export: Export | None, *, dataset: Dataset, stack: contextlib.ExitStack) -> dict[str, TarWriter]:
    if export is None:
        return {}
    files.write_json(export.folder / "dataset.json", dataset.model_dump(mode="json"))
    return {
        split: stack.enter_context(TarWriter(export.folder, split=split, max_samples=export.max_samples))
        for split in export.splits
    }


def _write_tar(tar: TarWriter, table: pa.Table, *, arrays: Mapping[str, NDArray[Any]]) -> None:
    if "image" in table.column_names:
        members = [image_member(one["bytes"]) for one in table["image"].to_pylist()]
    else:
        members = [row_member(row) for row in arrays["x"]]
    for key, (extension, payload), label in zip(table["sample_id"].to_pylist(), members, arrays["label"], strict=True):
        tar.write(key, extension=extension, payload=payload, label=int(label))
