"""References on disk: written by evaluate, read and verified by those who watch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamill.errors import DataError
from datamill.evaluation.prediction import open_splits
from datamill.evaluation.referencing import choose_rows, write_sampled
from datamill.files import sha256_file
from datamill.monitoring.reference import Reference, read_description, read_reference, require_model
from datamill.networks import load_network
from tests.fakes import make_context
from tests.trained import Trained, train_images, train_tables


def refer(workspace: Trained, folder: Path, *, max_samples: int = 20, seed: int = 0) -> Reference:
    """The reference that evaluate writes."""
    shards = open_splits(workspace.shards)
    write_sampled(
        folder,
        shards=shards,
        rows=choose_rows(shards, max_samples=max_samples, seed=seed),
        network=load_network(workspace.network, workspace.weights),
        samples=workspace.samples,
        repairs=workspace.repairs,
        weights=workspace.weights,
        preprocessor=workspace.preprocessor,
        accuracy=1.0,
        batch_size=5,
        context=make_context(folder.parent / "context"),
    )
    return read_reference(folder)


def test_the_test_split_comes_first_and_validation_fills_up_to_the_limit(tmp_path: Path) -> None:
    workspace = train_images(tmp_path)
    assert refer(workspace, tmp_path / "r20").description.splits == {"test": 14, "validation": 6}
    assert refer(workspace, tmp_path / "r9", max_samples=9).description.splits == {"test": 9}
    assert len(refer(workspace, tmp_path / "all", max_samples=1000)) == 24


def test_an_image_reference_holds_inputs_answers_and_readable_traits(tmp_path: Path) -> None:
    reference = refer(train_images(tmp_path), tmp_path / "reference").only("test")
    assert len(reference) == 14
    assert reference.inputs.shape == (14, 8, 8, 1)
    assert reference.inputs.dtype == np.uint8
    assert reference.embeddings.shape[0] == 14
    assert np.allclose(reference.probabilities.sum(axis=1), 1, atol=1e-5)
    assert reference.features.column_names == ["height", "width", "channels", "brightness", "contrast"]
    assert reference.features["height"].to_pylist() == [8.0] * 14
    brightness = np.asarray(reference.inputs).reshape(14, -1).mean(axis=1)
    assert reference.features["brightness"].to_numpy() == pytest.approx(brightness, abs=1e-9)
    assert reference.rows["time"].null_count == 0


def test_a_table_reference_holds_the_columns_themselves(tmp_path: Path) -> None:
    reference = refer(train_tables(tmp_path), tmp_path / "reference")
    assert reference.features.column_names == ["height", "width", "noise", "colour"]
    assert [str(kind) for kind in reference.features.schema.types] == ["double", "double", "double", "string"]
    assert reference.features["noise"].null_count > 0
    height = reference.features["height"].to_numpy()
    assert np.asarray(reference.inputs)[:, 0] == pytest.approx(height / 4, abs=1e-6)


@pytest.mark.parametrize("train", [train_images, train_tables])
def test_equal_models_and_seeds_give_equal_bytes_and_another_seed_another_choice(train: Any, tmp_path: Path) -> None:
    workspace = train(tmp_path)
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        refer(workspace, tmp_path / name, max_samples=9, seed=seed)
    one, two, three = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two", "three")
    )
    assert one == two
    assert one["rows.parquet"] != three["rows.parquet"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    refer(train_tables(tmp_path), tmp_path / "reference")
    path = tmp_path / "reference" / "embeddings.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"embeddings\.npy has SHA-256 .* run evaluate again"):
        read_reference(tmp_path / "reference")


def test_a_missing_and_a_newer_reference_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"reference\.json is missing: run evaluate"):
        read_description(tmp_path)
    refer(train_tables(tmp_path), tmp_path / "reference")
    path = tmp_path / "reference" / "reference.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    with pytest.raises(DataError, match="has version 2, this datamill reads 1"):
        read_description(tmp_path / "reference")


def test_a_reference_of_another_model_is_refused(tmp_path: Path) -> None:
    workspace = train_tables(tmp_path)
    description = refer(workspace, tmp_path / "reference").description
    files = {"weights": workspace.weights, "preprocessor": workspace.preprocessor}
    require_model(description, **files, classes=("0", "1", "2"))
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"other")
    message = f"belongs to another model: it was made with SHA-256 {sha256_file(workspace.weights)[:12]}"
    with pytest.raises(DataError, match=message):
        require_model(description, **(files | {"weights": other}), classes=("0", "1", "2"))
    with pytest.raises(DataError, match="belongs to another preprocessor"):
        require_model(description, **(files | {"preprocessor": other}), classes=("0", "1", "2"))
    with pytest.raises(DataError, match=r"knows the classes \['0', '1', '2'\] and the model \['0', '1'\]"):
        require_model(description, **files, classes=("0", "1"))
    with pytest.raises(DataError, match=r"gone is missing, so there is no model to watch"):
        require_model(description, **(files | {"weights": tmp_path / "gone"}), classes=("0", "1", "2"))
