from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from datamill import ledger
from datamill.errors import DataError
from tasks.split import STAGE, SplitParams
from tests.builders import image_table, write_parts
from tests.fakes import make_context

VALUES: dict[str, Any] = {
    "strategy": "stratified_exact",
    "fractions": {"train": 0.5, "validation": 0.25, "test": 0.25},
    "validation_from": None,
    "test_from": None,
    "folds": 3,
    "seed": 1,
}


def run(
    folder: Path, *, dropped: int = 4, leaks: dict[int, str] | None = None, grouped: bool = False, **changes: Any
) -> tuple[pa.Table, Any]:
    folder.mkdir(parents=True)
    dataset, table = image_table()
    table = table if grouped else table.drop_columns(["group"])
    write_parts(folder / "samples", dataset, table)
    count = table.num_rows
    ledger.write(
        folder / "cleaned.parquet",
        sample_ids=table["sample_id"],
        fates=["dropped"] * dropped + ["kept"] * (count - dropped),
        reasons=["non_finite"] * dropped + [""] * (count - dropped),
        details=[""] * count,
        extra={"leak_group": pa.array([(leaks or {}).get(row, "") for row in range(count)])},
    )
    paths = {
        "samples": folder / "samples",
        "cleaned": folder / "cleaned.parquet",
        "assignments": folder / "out.parquet",
    }
    metrics = STAGE.run(**paths, params=SplitParams(**{**VALUES, **changes}), context=make_context(folder))
    ledger.check(folder / "out.parquet", population=ledger.incoming([paths["cleaned"]]), stage="split")
    return ledger.read(folder / "out.parquet"), metrics


def test_every_survivor_gets_a_split_and_every_training_sample_a_fold(tmp_path: Path) -> None:
    table, metrics = run(tmp_path / "a")
    assert table.column_names == ["sample_id", "fate", "reason", "detail", "split", "fold"]
    assert table.schema.field("fold").type == pa.int8()
    assert sum(metrics["samples"].values()) == 60
    assert metrics["classes"]["0"] == {"train": 10, "validation": 5, "test": 5}
    for row in table.to_pylist():
        assert (row["fold"] >= 0) == (row["split"] == "train")


def test_near_duplicates_of_a_dropped_sample_stay_together(tmp_path: Path) -> None:
    leaks = dict.fromkeys((0, 10, 20, 30, 40), "ab" * 16)
    table, metrics = run(tmp_path / "a", leaks=leaks, strategy="hash")
    assert len({table["split"].to_pylist()[row - 4] for row in (10, 20, 30, 40)}) == 1
    assert metrics["units"] == 57


def test_a_class_absent_from_a_split_is_reported(tmp_path: Path) -> None:
    _, metrics = run(tmp_path / "a", dropped=58, strategy="stratified_exact")
    assert sum(metrics["samples"].values()) == 6
    assert set(metrics["absent_classes"]) <= {"train", "validation", "test"}
    lacking = {
        name: ", ".join(label for label, counts in metrics["classes"].items() if not counts[name])
        for name in ("train", "validation", "test")
    }
    assert metrics["absent_classes"] == {name: labels for name, labels in lacking.items() if labels}


def test_two_runs_write_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path / name)
    assert (tmp_path / "a/out.parquet").read_bytes() == (tmp_path / "b/out.parquet").read_bytes()


def test_time_splits_at_the_given_moments(tmp_path: Path) -> None:
    cuts: dict[str, Any] = {"validation_from": "1970-01-02T00:00:00", "test_from": "1970-01-03T00:00:00Z"}
    _, metrics = run(tmp_path / "a", dropped=0, strategy="time", **cuts)
    assert metrics["samples"] == {"train": 24, "validation": 24, "test": 16}


@pytest.mark.parametrize("strategy", ["group", "hash", "stratified"])
def test_groups_stay_whole(tmp_path: Path, strategy: str) -> None:
    table, _ = run(tmp_path / "a", dropped=0, grouped=True, strategy=strategy, seed=3)
    splits = table["split"].to_pylist()
    assert all(len(set(splits[group::8])) == 1 for group in range(8))


def test_an_empty_split_stops_the_stage(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="would be empty: sizes are"):
        run(tmp_path / "a", dropped=63)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fractions": {"train": 0.5, "validation": 0.1, "test": 0.1}}, "sum to 0.7 and must sum to 1"),
        ({"strategy": "time"}, "strategy 'time' needs validation_from and test_from"),
        ({"test_from": "2024-01-01"}, "are for strategy 'time', not 'stratified_exact'; make them null"),
        (
            {"strategy": "time", "validation_from": "2024-01-02", "test_from": "2024-01-01"},
            "must come before test_from 2024-01-01",
        ),
        ({"folds": 1}, "greater than or equal to 2"),
    ],
)
def test_params_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SplitParams(**{**VALUES, **changes})
