from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from datamill import ledger
from datamill.errors import DataError
from datamill.extracting import extract
from datamill.preprocessing import load_preprocessor
from tasks.preprocess import STAGE, PreprocessParams
from tests.builders import image_table, tabular_table, write_parts
from tests.fakes import InlineEngine, make_context

VALUES: dict[str, Any] = {
    "seed": 0,
    "image": {"height": None, "width": None, "channels": "auto", "normalise": "standardise"},
    "table": {
        "numeric": "standardise",
        "categorical": "one_hot",
        "impute": "knn",
        "num_neighbors": 3,
        "max_reference": 20,
        "max_categories": 10,
    },
}


def run(folder: Path, *, builder: Any, num_train: int = 40, loud: bool = False) -> tuple[pa.Table, dict[str, Any]]:
    """Fit on the first rows; ``loud`` changes the others, which must not matter."""
    folder.mkdir()
    dataset, table = builder()
    _, other = builder(seed=9)
    rest = other.slice(num_train) if loud else table.slice(num_train)
    table = pa.concat_tables([table.slice(0, num_train), rest])
    write_parts(folder / "samples", dataset, table)
    write_parts(folder / "repairs", dataset, table.slice(0, 0))
    extract(folder / "samples", folder=folder / "features", engine=InlineEngine())
    ledger.write(
        folder / "assignments.parquet",
        sample_ids=table["sample_id"],
        fates=["kept"] * 64,
        reasons=[""] * 64,
        details=[""] * 64,
        extra={"split": pa.array(["train"] * num_train + ["test"] * (64 - num_train))},
    )
    metrics = STAGE.run(
        samples=folder / "samples",
        repairs=folder / "repairs",
        features=folder / "features",
        assignments=folder / "assignments.parquet",
        state=folder / "state.json",
        params=PreprocessParams(**VALUES),
        context=make_context(folder),
    )
    return table, metrics


def test_training_images_come_out_standardised(tmp_path: Path) -> None:
    table, metrics = run(tmp_path / "a", builder=image_table)
    fitted = load_preprocessor(tmp_path / "a/state.json")
    pixels = fitted.arrays(table.slice(0, 40)) / 255
    assert fitted.shape == (8, 8, 1)
    assert ((pixels - fitted.mean) / fitted.std).mean() == pytest.approx(0, abs=1e-9)
    assert metrics["train_rows"] == 40
    assert metrics["values_per_sample"] == 64
    assert metrics["pixel_mean"] == {"0": pytest.approx(pixels.mean())}


def test_training_rows_come_out_standardised_and_whole(tmp_path: Path) -> None:
    table, metrics = run(tmp_path / "a", builder=tabular_table)
    features = load_preprocessor(tmp_path / "a/state.json").arrays(table)
    assert features.shape == (64, 6)
    assert np.isfinite(features).all()
    assert features[:40, :2].mean(axis=0).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert metrics["values_per_sample"] == 6


@pytest.mark.parametrize("builder", [image_table, tabular_table])
def test_rows_outside_train_do_not_change_a_byte(tmp_path: Path, builder: Any) -> None:
    run(tmp_path / "a", builder=builder)
    run(tmp_path / "b", builder=builder, loud=True)
    assert (tmp_path / "a/state.json").read_bytes() == (tmp_path / "b/state.json").read_bytes()


@pytest.mark.parametrize("builder", [image_table, tabular_table])
def test_an_empty_training_split_is_refused(tmp_path: Path, builder: Any) -> None:
    with pytest.raises(DataError, match=r"to fit on; give split\.fractions\.train a larger share"):
        run(tmp_path / "a", builder=builder, num_train=0)
