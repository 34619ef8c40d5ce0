import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from datamill import ledger
from datamill.extracting import extract
from tasks.audit import STAGE, AuditParams
from tests.builders import CLASSES, image_table, tabular_table, write_parts
from tests.fakes import InlineEngine, make_context

VALUES = {
    "policy": "flag",
    "method": "prune_by_noise_rate",
    "min_quality": 0.5,
    "max_share": 1.0,
    "weight": 0.25,
    "max_rows": 1000,
}
FLIPPED = (5, 10, 20, 61)  # the last one is a test sample


def run(folder: Path, *, builder: Any = image_table, **changes: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    folder.mkdir()
    dataset, table = builder(num_samples=72)
    labels = table["label"].to_pylist()
    for row in FLIPPED:
        labels[row] = CLASSES[(int(labels[row]) + 1) % 3]
    table = table.set_column(table.column_names.index("label"), "label", pa.array(labels))
    write_parts(folder / "samples", dataset, table)
    write_parts(folder / "repairs", dataset, table.slice(0, 0))
    extract(folder / "samples", folder=folder / "features", engine=InlineEngine())
    splits = ["train"] * 54 + ["validation"] * 6 + ["test"] * 12
    ledger.write(
        folder / "assignments.parquet",
        sample_ids=table["sample_id"],
        fates=["dropped"] + ["kept"] * 71,
        reasons=[""] * 72,
        details=[""] * 72,
        extra={
            "split": pa.array(splits),
            "fold": pa.array([row // 3 % 3 if row < 54 else -1 for row in range(72)], pa.int8()),
        },
    )
    metrics = STAGE.run(
        samples=folder / "samples",
        repairs=folder / "repairs",
        features=folder / "features",
        assignments=folder / "assignments.parquet",
        ledger=folder / "ledger.parquet",
        suspects=folder / "suspects.csv",
        params=AuditParams(**{**VALUES, **changes}),
        context=make_context(folder),
    )
    ledger.check(folder / "ledger.parquet", population=ledger.incoming([folder / "assignments.parquet"]), stage="audit")
    return ledger.read(folder / "ledger.parquet").to_pylist(), metrics


def row_of(position: int) -> int:
    """Row in the audit's ledger: the first sample was dropped before."""
    return position - 1


@pytest.mark.parametrize("builder", [image_table, tabular_table])
def test_flipped_labels_are_flagged_and_kept(tmp_path: Path, builder: Any) -> None:
    rows, metrics = run(tmp_path / "a", builder=builder)
    flagged = [position for position, row in enumerate(rows) if row["reason"]]
    assert set(flagged) == {row_of(position) for position in FLIPPED}
    assert {row["fate"] for row in rows} == {"kept"}
    assert metrics["issues"] == {"train": 3, "validation": 0, "test": 1}
    assert metrics["judged"] == {"train": 53, "validation": 6, "test": 12}
    assert rows[row_of(5)]["detail"].startswith("labelled '0', looks like '2', quality 0.")


@pytest.mark.parametrize(
    ("policy", "fate", "reason", "label", "weight"),
    [
        ("drop", "dropped", "label_issue", "0", 1.0),
        ("relabel", "repaired", "relabelled", "2", 1.0),
        ("down_weight", "kept", "down_weighted", "0", 0.25),
    ],
)
def test_the_policy_touches_train_alone(
    tmp_path: Path, policy: str, fate: str, reason: str, label: str, weight: float
) -> None:
    rows, _ = run(tmp_path / "a", policy=policy)
    treated, tested = rows[row_of(5)], rows[row_of(61)]
    assert (treated["fate"], treated["reason"]) == (fate, reason)
    assert (treated["label"], treated["weight"], treated["suggestion"]) == (label, weight, "2")
    assert (tested["fate"], tested["reason"], tested["label"], tested["weight"]) == ("kept", "label_issue", "2", 1.0)


def test_no_more_than_the_allowed_share_is_dropped(tmp_path: Path) -> None:
    rows, metrics = run(tmp_path / "a", policy="drop", max_share=0.02)
    assert metrics["actions"] == {"drop": 1, "flag": 3}
    dropped = [row["quality"] for row in rows if row["fate"] == "dropped"]
    assert dropped == [min(row["quality"] for row in rows if row["split"] == "train")]


def test_off_judges_nobody(tmp_path: Path) -> None:
    rows, metrics = run(tmp_path / "a", policy="off")
    assert {(row["fate"], row["quality"], row["suggestion"], row["weight"]) for row in rows} == {
        ("kept", None, "", 1.0)
    }
    assert metrics["judged"] == {"train": 0, "validation": 0, "test": 0}
    assert len((tmp_path / "a/suspects.csv").read_text().splitlines()) == 1


def test_suspects_are_sorted_by_quality(tmp_path: Path) -> None:
    run(tmp_path / "a")
    with (tmp_path / "a/suspects.csv").open() as file:
        qualities = [float(row["quality"]) for row in csv.DictReader(file)]
    assert len(qualities) == 4
    assert qualities == sorted(qualities)


def test_the_ledger_has_the_columns_other_stages_read(tmp_path: Path) -> None:
    run(tmp_path / "a")
    schema = ledger.read(tmp_path / "a/ledger.parquet").schema
    assert schema.names[4:] == ["split", "label", "weight", "quality", "suggestion"]
    assert (schema.field("weight").type, schema.field("quality").type) == (pa.float32(), pa.float32())


def test_two_runs_write_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path / name, policy="relabel")
    for file in ("ledger.parquet", "suspects.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_qualities_are_probabilities(tmp_path: Path) -> None:
    rows, _ = run(tmp_path / "a")
    qualities = np.array([row["quality"] for row in rows])
    assert ((qualities >= 0) & (qualities <= 1)).all()
