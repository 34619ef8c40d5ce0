from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from datamill import ledger
from datamill.errors import DataError, StageError
from datamill.samples import Dataset
from datamill.shards import joining
from datamill.shards.joining import Plan, read_plan, require_no_leak, write_shards
from datamill.shards.native import open_shard

DATASET = Dataset(name="rows", modality="tabular", classes=("a", "b"))
IDS = [f"{number:032x}" for number in range(6)]


class FirstNumber:
    """A preprocessor for tables with one column."""

    shape = (1,)
    dtype = "float32"

    def arrays(self, table: pa.Table) -> NDArray[Any]:
        return np.asarray(table["value"].to_pylist(), np.float32)[:, None]


def write_plan(path: Path, **changes: list[Any]) -> Path:
    columns: dict[str, list[Any]] = {
        "fates": ["kept", "kept", "dropped", "repaired", "kept", "kept"],
        "split": ["train", "test", "train", "train", "validation", "train"],
        "label": ["a", "b", "a", "b", "a", "a"],
        "weight": [1.0, 1.0, 1.0, 0.5, 1.0, 2.0],
        "draw": [1.0] * 6,
    } | changes
    ledger.write(
        path,
        sample_ids=IDS,
        fates=columns["fates"],
        reasons=[""] * 6,
        details=[""] * 6,
        extra={
            "split": pa.array(columns["split"]),
            "label": pa.array(columns["label"]),
            "weight": pa.array(columns["weight"], pa.float32()),
            "draw": pa.array(columns["draw"], pa.float32()),
        },
    )
    return path


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return read_plan(write_plan(tmp_path / "plan.parquet"), classes=DATASET.classes)


def values(numbers: list[int]) -> pa.Table:
    return pa.table({"sample_id": [IDS[number] for number in numbers], "value": [float(number) for number in numbers]})


def lineage(key: str, *, origin: str, parents: list[str]) -> list[pa.Table]:
    return [pa.table({"sample_id": [key], "origin": [origin], "parents": pa.array([parents], pa.list_(pa.string()))})]


def test_the_plan_holds_survivors_and_the_splits_of_all(plan: Plan) -> None:
    assert list(plan.row_of) == [IDS[0], IDS[1], IDS[3], IDS[4], IDS[5]]
    assert plan.label.tolist() == [0, 1, 1, 0, 0]
    assert plan.weight.tolist() == [1.0, 1.0, 0.5, 1.0, 2.0]
    assert plan.split_of[IDS[2]] == "train"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": ["a", "c", "a", "b", "a", "a"]}, r"label 'c' is none of \['a', 'b'\]"),
        ({"split": ["train", "dev", "train", "train", "test", "train"]}, "split 'dev' is none of"),
        ({"weight": [1.0, 1.0, 1.0, -0.5, 1.0, 1.0]}, f"weight of sample {IDS[3]} is -0.5, not a number from 0"),
        ({"draw": [1.0, float("nan"), 1.0, 1.0, 1.0, 1.0]}, f"draw of sample {IDS[1]} is nan"),
    ],
)
def test_a_wrong_plan_is_refused(tmp_path: Path, changes: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_plan(write_plan(tmp_path / "plan.parquet", **changes), classes=DATASET.classes)


def test_rows_keep_the_order_of_the_samples_within_their_split(tmp_path: Path, plan: Plan) -> None:
    tables = [values([0, 1, 3]), values([4, 5])]
    rows = write_shards(tables, plan=plan, preprocessor=FirstNumber(), dataset=DATASET, folder=tmp_path)
    train = open_shard(tmp_path / "train")
    assert train.x.ravel().tolist() == [0, 3, 5]
    assert (train.label.tolist(), train.weight.tolist()) == ([0, 1, 0], [1.0, 0.5, 2.0])
    assert train.ids() == [IDS[0], IDS[3], IDS[5]]
    assert open_shard(tmp_path / "validation").ids() == [IDS[4]]
    assert rows.tolist() == [0, 0, 1, 0, 2]


def test_bounded_memory_changes_nothing(tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = [values([0, 1, 3, 4, 5])]
    write_shards(everything, plan=plan, preprocessor=FirstNumber(), dataset=DATASET, folder=tmp_path / "once")
    monkeypatch.setattr(joining, "DECODED_BYTES", 4)
    write_shards(everything, plan=plan, preprocessor=FirstNumber(), dataset=DATASET, folder=tmp_path / "one_by_one")
    for file in ("train/x.bin", "train/index.json", "test/label.bin"):
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "one_by_one" / file).read_bytes()


def test_a_planned_sample_without_payload_is_refused(tmp_path: Path, plan: Plan) -> None:
    with pytest.raises(StageError, match=f"1 of 5 planned samples are in no parts folder, first {IDS[4]}"):
        write_shards([values([0, 1, 3, 5])], plan=plan, preprocessor=FirstNumber(), dataset=DATASET, folder=tmp_path)


@pytest.mark.parametrize(
    ("parent", "home"), [(IDS[1], "test"), (IDS[4], "validation"), ("f" * 32, "no split of the plan")]
)
def test_a_parent_outside_train_is_refused_naming_both(plan: Plan, parent: str, home: str) -> None:
    with pytest.raises(StageError, match=f"sample {IDS[5]} was made from {parent}, which is in {home}; training on it"):
        require_no_leak(lineage(IDS[5], origin="synthetic", parents=[IDS[0], parent]), plan=plan)


def test_a_made_sample_outside_train_is_refused(plan: Plan) -> None:
    with pytest.raises(StageError, match=f"augmented sample {IDS[4]} is in validation; made samples belong to train"):
        require_no_leak(lineage(IDS[4], origin="augmented", parents=[IDS[0]]), plan=plan)


def test_dropped_parents_in_train_and_dropped_children_are_fine(plan: Plan) -> None:
    require_no_leak(lineage(IDS[5], origin="augmented", parents=[IDS[2]]), plan=plan)
    require_no_leak(lineage(IDS[2], origin="augmented", parents=[IDS[1]]), plan=plan)
