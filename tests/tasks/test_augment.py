"""Stage augment: policy, preview and copies; equal inputs give equal bytes."""

from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
import pytest

from datamill import files, ledger, parts
from datamill.augmentation import load_policy
from datamill.errors import ParamsError
from datamill.samples import Dataset
from datamill.stage import Metrics
from tasks.augment import STAGE
from tests.builders import image_table, tabular_table, write_parts
from tests.fakes import make_context

FLIP = {"name": "VerticalFlip", "probability": 1.0, "arguments": {}}
JITTER = {"name": "jitter", "probability": 1.0, "arguments": {"share": 0.1}}


def _inputs(folder: Path, dataset: Dataset, table: pa.Table, *, num_train: int = 48) -> dict[str, Path]:
    write_parts(folder / "samples", dataset, table)
    write_parts(folder / "repairs", dataset, dataset.arrow_schema().empty_table())
    rest = table.num_rows - num_train
    ledger.write(
        folder / "audited.parquet",
        sample_ids=table["sample_id"],
        fates=["kept"] * table.num_rows,
        reasons=[""] * table.num_rows,
        details=[""] * table.num_rows,
        extra={"split": pa.array(["train"] * num_train + ["test"] * rest), "label": pa.array(["1"] * table.num_rows)},
    )
    return {name: folder / name for name in ("samples", "repairs")} | {"audited": folder / "audited.parquet"}


def _run(
    folder: Path, inputs: dict[str, Path], *, name: str = "out", **changes: Any
) -> tuple[Metrics, dict[str, Path]]:
    params = {
        "seed": 7,
        "engine": "albumentations",
        "transforms": [],
        "copies_per_sample": 0,
        "preview_samples": 6,
    } | changes
    (folder / name).mkdir()
    outputs = {port: folder / name / port for port in STAGE.outputs}
    context = make_context(folder)
    metrics = STAGE.run(**inputs, **outputs, params=STAGE.params.model_validate(params), context=context)
    return metrics, outputs


def test_copies_carry_the_audited_label_and_come_from_train_alone(tmp_path: Path) -> None:
    dataset, table = image_table()
    metrics, outputs = _run(tmp_path, _inputs(tmp_path, dataset, table), transforms=[FLIP], copies_per_sample=1)
    copies = parts.read_table(outputs["copies"])
    assert copies["parents"].to_pylist() == [[key] for key in table["sample_id"].to_pylist()[:48]]
    assert set(copies["label"].to_pylist()) == {"1"}
    assert metrics == {"train_samples": 48, "transforms": 1, "copies": {"written": 48, "unchanged": 0}}


@pytest.mark.parametrize(("make", "transform"), [(image_table, FLIP), (tabular_table, JITTER)])
def test_equal_runs_give_equal_bytes(tmp_path: Path, make: Any, transform: dict[str, Any]) -> None:
    inputs = _inputs(tmp_path, *make())
    settings = {"transforms": [transform], "copies_per_sample": 2}
    runs = [_run(tmp_path, inputs, name=name, **settings)[1] for name in ("a", "b")]
    for port in ("policy", "preview"):
        assert files.sha256_file(runs[0][port]) == files.sha256_file(runs[1][port])
    assert parts.verify(runs[0]["copies"]) == parts.verify(runs[1]["copies"])


@pytest.mark.parametrize("make", [image_table, tabular_table])
def test_an_empty_policy_trains_on_the_samples_as_they_are(tmp_path: Path, make: Any) -> None:
    metrics, outputs = _run(tmp_path, _inputs(tmp_path, *make()))
    assert load_policy(outputs["policy"]).is_identity
    assert parts.read_manifest(outputs["copies"]).num_rows == 0
    assert metrics["copies"] == {"written": 0, "unchanged": 0}


def test_the_preview_shows_a_row_for_each_original(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path, *image_table())
    _, plain = _run(tmp_path, inputs, name="plain")
    _, full = _run(tmp_path, inputs, name="full", transforms=[FLIP])
    heights = [cv2.imread(str(outputs["preview"])).shape[0] for outputs in (plain, full)]
    assert heights == [166, 166 + 5 * 120 + 22]  # five more rows and the policy's line in the heading


def test_no_training_sample_is_survived(tmp_path: Path) -> None:
    for name, make, transform in (("image", image_table, FLIP), ("table", tabular_table, JITTER)):
        (tmp_path / name).mkdir()
        inputs = _inputs(tmp_path / name, *make(), num_train=0)
        metrics, _ = _run(tmp_path / name, inputs, transforms=[transform], copies_per_sample=1)
        assert metrics["train_samples"] == 0


def test_a_table_of_categories_alone_is_survived(tmp_path: Path) -> None:
    dataset, table = tabular_table()
    colours = dataset.model_copy(update={"features": dataset.features[3:]})
    inputs = _inputs(tmp_path, colours, table.drop_columns(["feature:height", "feature:width", "feature:noise"]))
    metrics, _ = _run(tmp_path, inputs, transforms=[JITTER], copies_per_sample=1)
    assert metrics["copies"] == {"written": 0, "unchanged": 48}


def test_a_policy_that_does_not_fit_the_samples_stops_before_anything_is_written(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path, *image_table())
    crop = {"name": "RandomCrop", "probability": 0.5, "arguments": {"height": 4, "width": 4}}
    with pytest.raises(ParamsError, match="RandomCrop turns an image"):
        _run(tmp_path, inputs, transforms=[crop])
    assert list((tmp_path / "out").iterdir()) == []


def test_copies_without_a_transform_are_refused(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path, *image_table())
    with pytest.raises(ParamsError, match="copies_per_sample was 3 with no transform; add one or set it to 0"):
        _run(tmp_path, inputs, copies_per_sample=3)


def test_torch_makes_copies_and_a_preview_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path, *image_table())
    affine = {"name": "Affine", "probability": 1.0, "arguments": {"rotate": [20, 30]}}
    metrics, outputs = _run(tmp_path, inputs, engine="torch", transforms=[affine], copies_per_sample=1)
    assert metrics["copies"]["written"] == 48
    assert outputs["preview"].exists()
    blur = {"name": "GaussianBlur", "probability": 1.0, "arguments": {}}
    with pytest.raises(ParamsError, match="unknown transform for engine torch 'GaussianBlur'"):
        _run(tmp_path, inputs, name="other", engine="torch", transforms=[blur])
