"""Stage synthesize: what the gate lets in is written, everything is answered for, nothing leaves train."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from datamill import files, ledger, parts
from datamill.preprocessing import (
    CategoryColumn,
    ImagePreprocessor,
    NumberColumn,
    TabularPreprocessor,
    save_preprocessor,
)
from datamill.samples import Dataset
from datamill.stage import Metrics
from tasks.synthesize import STAGE
from tests.builders import image_table, tabular_table, write_parts
from tests.fakes import make_context

IMAGES = ImagePreprocessor(height=8, width=8, channels=1, mean=(0.0,), std=(1.0,))
ROWS = TabularPreprocessor(
    numbers=tuple(NumberColumn(name=name, fill=0, offset=0, scale=3) for name in ("height", "width", "noise")),
    categories=(CategoryColumn(name="colour", values=("blue", "green", "red")),),
    encoding="one_hot",
    num_neighbors=None,
    reference=(),
)
GATE = {
    "num_neighbors": 3,
    "min_density": 0.3,
    "min_coverage": 0.3,
    "near_copy_ratio": 0.2,
    "reject_outside": True,
    "held_out_share": 0.5,
}
VAE = {"hidden": 16, "latent": 4, "epochs": 5, "batch_size": 16, "learning_rate": 0.01, "noise": 1.0}
PARAMS: dict[str, Any] = {
    "method": "pca",
    "samples_per_class": 12,
    "share": None,
    "max_rows_per_class": 100,
    "seed": 7,
    "pca": {"variance": 0.9, "max_components": 20},
    "vae": VAE,
    "gate": GATE,
}


def _inputs(folder: Path, dataset: Dataset, table: pa.Table, *, num_train: int = 100) -> dict[str, Path]:
    write_parts(folder / "samples", dataset, table)
    write_parts(folder / "repairs", dataset, dataset.arrow_schema().empty_table())
    ledger.write(
        folder / "audited.parquet",
        sample_ids=table["sample_id"],
        fates=["kept"] * table.num_rows,
        reasons=[""] * table.num_rows,
        details=[""] * table.num_rows,
        extra={
            "split": pa.array(["train"] * num_train + ["test"] * (table.num_rows - num_train)),
            "label": table["label"],
        },
    )
    save_preprocessor(IMAGES if dataset.modality == "image" else ROWS, folder / "state.json")
    return {
        "samples": folder / "samples",
        "repairs": folder / "repairs",
        "audited": folder / "audited.parquet",
        "preprocessor": folder / "state.json",
    }


def _run(
    folder: Path, inputs: dict[str, Path], *, name: str = "out", **changes: Any
) -> tuple[Metrics, dict[str, Path]]:
    (folder / name).mkdir()
    outputs = {port: folder / name / port for port in STAGE.outputs}
    params = STAGE.params.model_validate(PARAMS | changes)
    return STAGE.run(**inputs, **outputs, params=params, context=make_context(folder)), outputs


@pytest.mark.parametrize("method", ["pca", "vae"])
@pytest.mark.parametrize("make", [image_table, tabular_table])
def test_equal_runs_give_equal_bytes(tmp_path: Path, make: Any, method: str) -> None:
    inputs = _inputs(tmp_path, *make(num_samples=120))
    one, two = (_run(tmp_path, inputs, name=name, method=method) for name in ("a", "b"))
    assert one[0] == two[0]
    for port in ("admissions", "sheet"):
        assert files.sha256_file(one[1][port]) == files.sha256_file(two[1][port])
    assert parts.verify(one[1]["synthetic"]) == parts.verify(two[1]["synthetic"])


@pytest.mark.parametrize("make", [image_table, tabular_table])
def test_admitted_samples_are_those_of_the_ledger_and_their_parents_are_in_train(tmp_path: Path, make: Any) -> None:
    dataset, table = make(num_samples=120)
    metrics, outputs = _run(tmp_path, _inputs(tmp_path, dataset, table))
    written = parts.read_table(outputs["synthetic"])
    assert written["sample_id"].to_pylist() == ledger.survivors(outputs["admissions"])
    assert metrics["candidates"] == 36 == ledger.count(outputs["admissions"])["in"]
    assert 18 < metrics["admitted"] == written.num_rows
    label_of = dict(zip(table["sample_id"].to_pylist()[:100], table["label"].to_pylist()[:100], strict=True))
    assert [label_of[parents[0]] for parents in written["parents"].to_pylist()] == written["label"].to_pylist()
    assert set(written["origin"].to_pylist()) == {"synthetic"}
    assert written["source"][0].as_py().startswith("synthesize:pca:")


def test_off_makes_nothing_and_says_so(tmp_path: Path) -> None:
    metrics, outputs = _run(tmp_path, _inputs(tmp_path, *image_table(num_samples=120)), method="off")
    assert metrics == {"method": "off", "candidates": 0, "admitted": 0, "reasons": {}, "classes": {}}
    assert parts.read_manifest(outputs["synthetic"]).num_rows == 0
    assert ledger.count(outputs["admissions"])["in"] == 0
    assert outputs["sheet"].stat().st_size > 500


def test_a_class_too_small_to_judge_is_skipped_with_its_size(tmp_path: Path) -> None:
    dataset, table = image_table(num_samples=120)
    few = [row for row in range(120) if table["label"][row].as_py() != "2" or row < 12]
    table = table.take(few)
    metrics, outputs = _run(tmp_path, _inputs(tmp_path, dataset, table, num_train=table.num_rows))
    assert metrics["classes"]["2"] == {"train_rows": 4, "skipped": "class_too_small"}
    assert set(parts.read_table(outputs["synthetic"])["label"].to_pylist()) == {"0", "1"}


def test_without_training_samples_every_class_is_skipped(tmp_path: Path) -> None:
    metrics, outputs = _run(tmp_path, _inputs(tmp_path, *image_table(num_samples=30), num_train=0))
    assert metrics["candidates"] == 0
    assert metrics["classes"]["1"] == {"train_rows": 0, "skipped": "class_too_small"}
    assert parts.read_manifest(outputs["synthetic"]).num_rows == 0


def test_a_class_that_fails_the_gate_is_kept_out_as_a_whole(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path, *image_table(num_samples=120))
    metrics, outputs = _run(tmp_path, inputs, gate=GATE | {"min_density": 1000})
    assert (metrics["admitted"], metrics["reasons"]) == (0, {"low_density": 36})
    detail = ledger.read(outputs["admissions"])["detail"][0].as_py()
    assert "at least 1000 is asked for" in detail


def test_rows_that_can_only_repeat_training_rows_are_exact_copies(tmp_path: Path) -> None:
    dataset, table = tabular_table(num_samples=120)
    colours = dataset.model_copy(update={"features": dataset.features[3:]})
    inputs = _inputs(tmp_path, colours, table.drop_columns(["feature:height", "feature:width", "feature:noise"]))
    save_preprocessor(ROWS.model_copy(update={"numbers": ()}), inputs["preprocessor"])
    metrics, _ = _run(tmp_path, inputs)
    assert (metrics["admitted"], metrics["reasons"]) == (0, {"exact_copy": 36})


def test_share_counts_against_the_whole_class_and_reading_stays_bounded(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path, *image_table(num_samples=120), num_train=120)
    metrics, _ = _run(tmp_path, inputs, samples_per_class=None, share=0.5, max_rows_per_class=20)
    assert metrics["classes"]["0"]["candidates"] == 20
    assert metrics["classes"]["0"]["train_rows"] == 20


@pytest.mark.parametrize("amount", [{"samples_per_class": 5, "share": 0.1}, {"samples_per_class": None, "share": None}])
def test_exactly_one_amount_is_asked_for(amount: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="give either samples_per_class or share and set the other to null"):
        STAGE.params.model_validate(PARAMS | amount)
