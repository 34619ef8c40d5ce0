"""The stage ``evaluate``."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from datamill.errors import StageError
from datamill.stage import Metrics
from tasks.evaluate import STAGE, EvaluateParams
from tests.fakes import make_context
from tests.trained import Trained, train_images, train_tables

PARAMS = EvaluateParams.model_validate(
    {
        "seed": 3,
        "batch_size": 5,
        "num_resamples": 200,
        "level": 0.95,
        "num_bins": 15,
        "min_slice": 3,
        "num_mistakes": 8,
        "baseline": {"max_rows": 1000, "max_iterations": 200, "regularisation": 1e-4},
        "reference": {"max_samples": 20},
    }
)


def run(workspace: Trained, out: Path, *, params: EvaluateParams = PARAMS) -> tuple[Metrics, dict[str, Path]]:
    """The stage's metrics and outputs below ``out``."""
    out.mkdir()
    outputs = {port: out / Path(artifact.path).name for port, artifact in STAGE.outputs.items()}
    context = make_context(out / "context")
    return STAGE.run(**workspace.paths(), **outputs, params=params, context=context), outputs


def contents(outputs: dict[str, Path]) -> dict[str, bytes]:
    """Bytes of every file of some outputs."""
    found = [file for path in outputs.values() for file in (path.iterdir() if path.is_dir() else [path])]
    return {file.name: file.read_bytes() for file in found}


def rows(path: Path) -> list[dict[str, str]]:
    """Lines of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("train", [train_images, train_tables])
def test_a_network_that_learnt_easy_data_scores_high_on_every_metric(train: Any, tmp_path: Path) -> None:
    metrics, _ = run(train(tmp_path), tmp_path / "out")
    assert metrics["samples"] == 14
    assert metrics["accuracy"] >= 0.9
    assert metrics["roc_auc"] >= 0.95
    assert metrics["interval"]["accuracy"]["low"] <= metrics["accuracy"] <= metrics["interval"]["accuracy"]["high"]
    assert set(metrics["baseline"]["difference"]) == set(metrics["interval"])
    assert metrics["validation"]["samples"] == 10
    assert metrics["class"]["0"]["support"] == 5
    json.dumps(metrics, allow_nan=False)


def test_every_validation_and_test_sample_has_a_prediction(tmp_path: Path) -> None:
    workspace = train_images(tmp_path)
    _, outputs = run(workspace, tmp_path / "out")
    table = pq.read_table(outputs["predictions"])
    assert table["sample_id"].to_pylist() == workspace.shard("validation").ids() + workspace.shard("test").ids()
    assert table["split"].to_pylist() == ["validation"] * 10 + ["test"] * 14
    assert all(abs(sum(row) - 1) < 1e-5 for row in table["probabilities"].to_pylist())
    assert len(rows(outputs["confusion"])) == 14
    assert sum(int(row["count"]) for row in rows(outputs["calibration"])) == 14


def test_slices_cover_class_group_and_properties(tmp_path: Path) -> None:
    metrics, outputs = run(train_images(tmp_path), tmp_path / "out")
    properties = [row["property"] for row in rows(outputs["slices"])]
    assert list(dict.fromkeys(properties)) == ["class", "group", "pixel_mean", "pixel_std"]
    assert metrics["worst_slice"]["count"] >= 3


def test_equal_inputs_and_seed_give_equal_bytes(tmp_path: Path) -> None:
    workspace = train_tables(tmp_path)
    first, one = run(workspace, tmp_path / "one")
    second, two = run(workspace, tmp_path / "two")
    assert first == second
    assert contents(one) == contents(two)
    assert {path.name for path in one["reference"].iterdir()} == {
        "rows.parquet", "inputs.npy", "embeddings.npy", "probabilities.npy", "reference.json",
    }  # fmt: skip


def test_a_test_split_of_one_class_leaves_the_auc_out_and_says_so(tmp_path: Path) -> None:
    workspace = train_images(tmp_path, bounds={"train": (0, 40), "validation": (40, 40), "test": (50, 51)})
    metrics, _ = run(workspace, tmp_path / "out")
    assert "roc_auc" not in metrics
    assert metrics["notes"]["roc_auc"] == "left out: every test sample is of class 2"
    assert metrics["notes"]["classes"] == "no test sample of 2 of 3 classes: 0, 1"
    assert metrics["validation"] == {"samples": 0}
    assert metrics["worst_slice"] == {}


def test_an_empty_test_split_says_what_to_change(tmp_path: Path) -> None:
    workspace = train_images(tmp_path, bounds={"train": (0, 40), "validation": (40, 50), "test": (50, 50)}, steps=1)
    with pytest.raises(
        StageError, match=r"the test split has 0 samples \(train has 40\).*split section of params.yaml"
    ):
        run(workspace, tmp_path / "out")


def test_a_training_split_of_one_class_still_has_a_baseline(tmp_path: Path) -> None:
    workspace = train_images(tmp_path, bounds={"train": (0, 1), "validation": (40, 50), "test": (50, 64)})
    metrics, _ = run(workspace, tmp_path / "out")
    assert metrics["baseline"]["accuracy"] == pytest.approx(5 / 14, abs=1e-6)  # it always says class 0
