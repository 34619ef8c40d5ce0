from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from datamill import ledger, parts
from datamill.derived import sample_table
from datamill.features import look
from datamill.preprocessing import fitting, save_preprocessor
from tasks.balance import STAGE, BalanceParams
from tests.builders import image_table, tabular_table, write_parts

VALUES = {
    "method": "smote",
    "ratio": 1.0,
    "num_neighbors": 3,
    "min_rows": 2,
    "max_weight": 20.0,
    "max_values": 1_000_000,
    "seed": 0,
}
TABLE = {
    "numeric": "standardise",
    "categorical": "one_hot",
    "impute": "mean",
    "num_neighbors": 3,
    "max_reference": 10,
    "max_categories": 10,
}
IMAGE = {"height": None, "width": None, "channels": "auto", "normalise": "unit"}


def run(folder: Path, *, builder: Any = image_table, **changes: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """60 samples: 48 in train, of which class 2 keeps 6; one copy of class 0 and one synthetic sample of class 2."""
    folder.mkdir()
    dataset, table = builder(num_samples=60)
    labels = table["label"].to_pylist()
    write_parts(folder / "samples", dataset, table)
    write_parts(folder / "repairs", dataset, table.slice(0, 0))
    columns = [name for name in table.column_names if name == "image" or name.startswith("feature:")]
    for place, (name, row) in enumerate({"copies": 0, "synthetic": 2}.items()):
        made = sample_table(
            {column: table[column].slice(row, 1).combine_chunks() for column in columns},
            sources=[name],
            labels=[labels[row]],
            parents=[[table["sample_id"][row].as_py()]],
            origin=("augmented", "synthetic")[place],
        )
        write_parts(folder / name, dataset, made)
    is_dropped = [18 <= row < 48 and row % 3 == 2 for row in range(60)]
    ledger.write(
        folder / "audited.parquet",
        sample_ids=table["sample_id"],
        fates=["dropped" if dropped else "kept" for dropped in is_dropped],
        reasons=["label_issue" if dropped else "" for dropped in is_dropped],
        details=[""] * 60,
        extra={
            "split": pa.array(["train"] * 48 + ["validation"] * 6 + ["test"] * 6),
            "label": table["label"],
            "weight": pa.array([0.5] + [1.0] * 59, pa.float32()),
        },
    )
    fitted = (
        fitting.fit_images([look(table, dataset=dataset)], **IMAGE)  # type: ignore[arg-type]
        if dataset.modality == "image"
        else fitting.fit_tabular(lambda _: [table], dataset=dataset, seed=0, **TABLE)  # type: ignore[arg-type]
    )
    save_preprocessor(fitted, folder / "preprocessor.json")
    metrics = STAGE.run(
        samples=folder / "samples",
        repairs=folder / "repairs",
        audited=folder / "audited.parquet",
        copies=folder / "copies",
        synthetic=folder / "synthetic",
        preprocessor=folder / "preprocessor.json",
        plan=folder / "plan.parquet",
        resampled=folder / "resampled",
        params=BalanceParams(**{**VALUES, **changes}),
    )
    came_in = [folder / name for name in ("audited.parquet", "copies", "synthetic", "resampled")]
    ledger.check(folder / "plan.parquet", population=ledger.incoming(came_in), stage="balance")
    return ledger.read(folder / "plan.parquet").to_pylist(), metrics


def sizes(metrics: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {label: (change["before"], change["after"]) for label, change in metrics["classes"].items()}


@pytest.mark.parametrize("builder", [image_table, tabular_table])
def test_smote_evens_out_train_with_rows_made_of_train(tmp_path: Path, builder: Any) -> None:
    rows, metrics = run(tmp_path / "a", builder=builder)
    assert sizes(metrics) == {"0": (17, 17), "1": (16, 17), "2": (7, 17)}
    train = {row["sample_id"] for row in rows if row["split"] == "train"}
    made = parts.read_table(tmp_path / "a/resampled").to_pylist()
    assert len(made) == 11
    assert all(set(row["parents"]) <= train for row in made)
    assert [row["label"] for row in rows[-11:]] == ["1"] + ["2"] * 10


def test_smote_tomek_says_which_rows_it_removed(tmp_path: Path) -> None:
    rows, metrics = run(tmp_path / "a", method="smote_tomek", builder=tabular_table)
    removed = [row for row in rows if row["fate"] == "dropped"]
    assert len(removed) == metrics["removed"]
    assert {row["reason"] for row in removed} <= {"tomek_link"}


def test_adasyn_on_separated_classes_reports_that_it_made_nothing(tmp_path: Path) -> None:
    _, metrics = run(tmp_path / "a", method="adasyn", num_neighbors=1)
    assert metrics["made"] == 0
    assert metrics["not_interpolated"]["2"] == "no sample of another class near"


def test_class_weights_multiply_the_weights_of_the_audit(tmp_path: Path) -> None:
    rows, metrics = run(tmp_path / "a", method="class_weights")
    assert rows[0]["weight"] == pytest.approx(0.5 * 40 / (3 * 17))
    assert metrics["max_weight"] == pytest.approx(40 / (3 * 7))
    assert {row["weight"] for row in rows if row["split"] != "train"} == {1.0}
    assert {row["draw"] for row in rows} == {1.0}


def test_weighted_sampling_draws_classes_equally_often(tmp_path: Path) -> None:
    rows, _ = run(tmp_path / "a", method="weighted_sampling")
    drawn = {
        label: sum(row["draw"] for row in rows if row["label"] == label and row["split"] == "train") for label in "012"
    }
    assert list(drawn.values()) == pytest.approx([40 / 3] * 3)
    assert rows[0]["weight"] == 0.5


def test_random_under_sampling_drops_rows_with_a_reason(tmp_path: Path) -> None:
    rows, metrics = run(tmp_path / "a", method="random_under")
    assert sizes(metrics) == {"0": (17, 7), "1": (16, 7), "2": (7, 7)}
    assert sum(row["reason"] == "under_sampled" for row in rows) == 19
    assert all(row["fate"] == "kept" for row in rows if row["split"] != "train")


def test_none_plans_every_sample_as_it_is(tmp_path: Path) -> None:
    rows, metrics = run(tmp_path / "a", method="none")
    assert metrics["made"] == metrics["removed"] == 0
    assert len(rows) == 52
    assert parts.read_manifest(tmp_path / "a/resampled").num_rows == 0


def test_the_plan_has_the_columns_other_stages_read(tmp_path: Path) -> None:
    run(tmp_path / "a")
    schema = ledger.read(tmp_path / "a/plan.parquet").schema
    assert schema.names[4:] == ["split", "label", "weight", "draw"]
    assert (schema.field("weight").type, schema.field("draw").type) == (pa.float32(), pa.float32())


@pytest.mark.parametrize("method", ["smote", "smote_tomek", "random_under"])
def test_two_runs_write_equal_bytes(tmp_path: Path, method: str) -> None:
    for name in ("a", "b"):
        run(tmp_path / name, method=method)
    files = [Path("plan.parquet"), *(path.relative_to(tmp_path / "a") for path in (tmp_path / "a/resampled").iterdir())]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_made_images_are_images_of_the_right_size(tmp_path: Path) -> None:
    run(tmp_path / "a")
    made = parts.read_table(tmp_path / "a/resampled")
    dataset = parts.read_manifest(tmp_path / "a/resampled").dataset
    fitted = fitting.fit_images([look(made, dataset=dataset)], **IMAGE)  # type: ignore[arg-type]
    assert fitted.shape == (8, 8, 1)
    assert np.unique(fitted.arrays(made)).size > 10
