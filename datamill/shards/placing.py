"""Where every planned sample goes: part by part, in the order of the samples; and the last gate against leaks."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datamill import ledger, parts, reading, samples
from datamill.errors import DataError, StageError
from datamill.shards import SPLITS

TRAIN = SPLITS[0]
PLAN = ("sample_id", "fate", "split", "label", "weight", "draw")
MADE = ("sample_id", "origin", "parents")  # columns that say what a sample was made from
PART, ROW, REPAIRED = "part", "row", "repaired"  # columns that say where a sample lies
NOT_REPAIRED = -1


@dataclass(frozen=True)
class Placement:
    """The surviving samples of one part and what the plan says of them; arrays have one entry per sample.

    Attributes:
        path: The part.
        rows: Row in the part, ascending, int64.
        repaired: Row among all repaired samples of the payload to take instead, or ``NOT_REPAIRED``, int64.
        split: Number of the split, an index into ``SPLITS``, int8.
        label: Number of the class, int32.
        weight: Weight of the loss, float32.
        draw: Relative probability to be drawn, float32.
        sample_id: Identity, uint8, shape ``(N, 16)``.
        sample_ids: The same in hexadecimal digits.
    """

    path: Path
    rows: NDArray[np.int64]
    repaired: NDArray[np.int64]
    split: NDArray[np.int8]
    label: NDArray[np.int32]
    weight: NDArray[np.float32]
    draw: NDArray[np.float32]
    sample_id: NDArray[np.uint8]
    sample_ids: pa.Array

    @property
    def splits(self) -> pa.Array:
        """Name of the split."""
        return pa.DictionaryArray.from_arrays(pa.array(self.split), pa.array(SPLITS)).cast(pa.string())


def iter_placements(
    folders: Sequence[Path], *, plan: Path, classes: Sequence[str], repairs: Path | None = None
) -> Iterator[Placement]:
    """Where the surviving samples of each part go; parts without any are left out.

    Args:
        folders: Parts folders in the order of the plan.
        plan: The ledger that balance wrote.
        classes: Class names in the order of their numbers.
        repairs: Parts folder of repaired samples, in the same order.

    Raises:
        DataError: A split or a label is unknown, or a weight or a probability is negative or not finite.
        StageError: The plan names a sample that no folder holds, or has another order.
    """
    paths = [folder / part.name for folder in folders for part in parts.read_manifest(folder).parts]
    pieces: list[pa.Table] = []
    place = 0
    decisions = ledger.iter_tables(plan, columns=PLAN)
    for found, planned in reading.join_in_order(_located(folders, repairs=repairs), decisions, name=str(plan)):
        table = planned
        for column in (PART, ROW, REPAIRED):
            table = table.append_column(column, found[column])
        table = table.filter(ledger.is_surviving(table))
        while table.num_rows:
            first = table[PART][0].as_py()
            if first != place and pieces:
                yield _placement(pieces, path=paths[place], plan=plan, classes=classes)
                pieces = []
            place = first
            here = int(pc.sum(pc.equal(table[PART], first)).as_py())
            pieces.append(table.slice(0, here))
            table = table.slice(here)
    if pieces:
        yield _placement(pieces, path=paths[place], plan=plan, classes=classes)


def require_no_leak(folders: Sequence[Path], *, plan: Path) -> None:
    """Pass when every generated sample, and every parent it names, belongs to the training split.

    Args:
        folders: Parts folders; samples that did not survive do not matter.
        plan: The plan; samples that did not survive may be parents.

    Raises:
        StageError: Names the sample, and the parent where there is one.
    """
    paths = [folder / part.name for folder in folders for part in parts.read_manifest(folder).parts]
    light = (parts.iter_part(path, columns=MADE) for path in paths if _may_hold_made(path))
    made = [_made(table) for tables in light for table in tables]
    if not sum(table.num_rows for table in made):
        return
    children = _in_train(pa.concat_tables(made), plan=plan)
    parents = children["parents"].combine_chunks()
    wanted = pc.unique(parents)
    trains = np.zeros(len(wanted), bool)
    for table in ledger.iter_tables(plan, columns=["sample_id", "split"]):
        teaching = table["sample_id"].filter(pc.equal(table["split"], TRAIN))
        trains |= pc.is_in(wanted, value_set=teaching.combine_chunks()).to_numpy(zero_copy_only=False)
    strangers = np.flatnonzero(~trains)
    if strangers.size:
        parent = wanted[int(strangers[0])].as_py()
        child = children["sample_id"][int(pc.index(parents, parent).as_py())].as_py()
        raise StageError(
            f"shard: sample {child} was made from {parent}, which is in {_home(parent, plan=plan)}; training on it "
            f"would leak. Run the stage that made it again: made samples may have parents in train only"
        )


def _may_hold_made(path: Path) -> bool:
    """Whether a part's statistics leave room for generated samples; so that parts of the source need not be read."""
    metadata = pq.read_metadata(path)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = {column.path_in_schema: column.statistics for column in map(group.column, range(group.num_columns))}
        origin, parents = columns["origin"], columns["parents.list.element"]
        if origin is None or parents is None or not origin.has_min_max:
            return True
        if (origin.min, origin.max, parents.num_values) != ("source", "source", 0):
            return True
    return False


def _made(table: pa.Table) -> pa.Table:
    """The generated samples among others."""
    num_parents = pc.list_value_length(table["parents"])
    return table.filter(pc.or_(pc.not_equal(table["origin"], "source"), pc.greater(num_parents, 0)))


def _in_train(made: pa.Table, *, plan: Path) -> pa.Table:
    """Each surviving generated sample beside each of its parents, after a look at its own split."""
    ids = made["sample_id"].combine_chunks()
    decisions = ledger.iter_tables(plan, columns=["sample_id", "fate", "split"])
    planned = pa.concat_tables([table.filter(pc.is_in(table["sample_id"], value_set=ids)) for table in decisions])
    planned = planned.filter(ledger.is_surviving(planned))
    table = made.take(pc.index_in(planned["sample_id"], value_set=ids))
    outside = pc.not_equal(planned["split"], TRAIN)
    if pc.any(outside).as_py():
        row = int(pc.index(outside, True).as_py())
        raise StageError(
            f"shard: {table['origin'][row].as_py()} sample {table['sample_id'][row].as_py()} is in "
            f"{planned['split'][row].as_py()}; made samples belong to train"
        )
    lists = table["parents"].combine_chunks()
    children = table["sample_id"].combine_chunks().take(pc.list_parent_indices(lists))
    return pa.table({"sample_id": children, "parents": pc.list_flatten(lists)})


def _home(sample_id: str, *, plan: Path) -> str:
    """The split of a sample, in words."""
    for table in ledger.iter_tables(plan, columns=["sample_id", "split"]):
        row = pc.index(table["sample_id"], sample_id).as_py()
        if row >= 0:
            return str(table["split"][row].as_py())
    return "no split of the plan"


def _located(folders: Iterable[Path], *, repairs: Path | None) -> Iterator[pa.Table]:
    """Ids of all samples, each with the number of its part, its row there, and its row among the repaired ones."""
    cursor = None
    if repairs is not None and parts.read_manifest(repairs).num_rows:
        cursor = reading.Cursor(parts.iter_tables(repairs, columns=["sample_id"]), name=str(repairs))
    number = num_repaired = 0
    for folder in folders:
        for part in parts.read_manifest(folder).parts:
            start = 0
            for table in parts.iter_part(folder / part.name, columns=["sample_id"]):
                repaired = np.full(table.num_rows, NOT_REPAIRED)
                if cursor is not None:
                    places, _ = cursor.advance(table["sample_id"])
                    repaired[places] = num_repaired + np.arange(len(places))
                    num_repaired += len(places)
                table = table.append_column(PART, pa.array(np.full(table.num_rows, number)))
                table = table.append_column(ROW, pa.array(np.arange(start, start + table.num_rows)))
                yield table.append_column(REPAIRED, pa.array(repaired))
                start += table.num_rows
            number += 1


def _placement(pieces: Sequence[pa.Table], *, path: Path, plan: Path, classes: Sequence[str]) -> Placement:
    table = pa.concat_tables(pieces)
    return Placement(
        path=path,
        rows=table[ROW].to_numpy(),
        repaired=table[REPAIRED].to_numpy(),
        split=_numbers(table, "split", known=SPLITS, plan=plan).astype(np.int8),
        label=_numbers(table, "label", known=classes, plan=plan),
        weight=_floats(table, "weight", plan=plan),
        draw=_floats(table, "draw", plan=plan),
        sample_id=samples.id_bytes(table["sample_id"]),
        sample_ids=table["sample_id"].combine_chunks(),
    )


def _numbers(table: pa.Table, column: str, *, known: Sequence[str], plan: Path) -> NDArray[np.int32]:
    numbers = pc.index_in(table[column], value_set=pa.array(known, pa.string()))
    if numbers.null_count:
        unknown = table[column].filter(pc.is_null(numbers))[0].as_py()
        raise DataError(f"{plan}: {column} {unknown!r} is none of {list(known)}; run balance again")
    return np.asarray(numbers.to_numpy(), np.int32)


def _floats(table: pa.Table, column: str, *, plan: Path) -> NDArray[np.float32]:
    values: NDArray[np.float32] = table[column].to_numpy().astype(np.float32)
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if wrong.size:
        key = table["sample_id"][int(wrong[0])].as_py()
        raise DataError(
            f"{plan}: {column} of sample {key} is {values[wrong[0]]}, not a number from 0; run balance again"
        )
    return values
