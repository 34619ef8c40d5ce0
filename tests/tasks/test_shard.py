import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from datamill import files, ledger
from datamill.errors import StageError
from datamill.modalities import image
from datamill.samples import Dataset
from datamill.shards.native import open_shard
from datamill.stage import Metrics
from tasks.shard import STAGE, ShardParams
from tests.builders import identity, image_table, write_parts
from tests.fakes import make_context

BRIGHT = image.encode_png(np.full((8, 8, 1), 255, np.uint8))


@dataclass
class Workspace:
    """The stage's inputs: 12 images, the last made from the first, the second repaired."""

    folder: Path
    dataset: Dataset
    ids: list[str]

    def run(self, out: str, **params: Any) -> Metrics:
        (self.folder / out).mkdir()
        settings = ShardParams(**({"webdataset": "none", "webdataset_max_samples": 4} | params))
        inputs = {port: self.folder / port for port in ("samples", "repairs", "copies", "synthetic", "resampled")}
        outputs = {"shards": "shards", "ledger": "ledger.parquet", "webdataset": "webdataset"}
        return STAGE.run(
            **inputs,
            **{port: self.folder / out / name for port, name in outputs.items()},
            plan=self.folder / "plan.parquet",
            preprocessor=self.folder / "preprocessor.json",
            params=settings,
            context=make_context(self.folder),
        )

    def write_plan(self, splits: list[str], *, fates: list[str] | None = None) -> None:
        count = len(self.ids)
        ledger.write(
            self.folder / "plan.parquet",
            sample_ids=self.ids,
            fates=fates or ["kept"] * count,
            reasons=[""] * count,
            details=[""] * count,
            extra={
                "split": pa.array(splits),
                "label": pa.array([self.dataset.classes[row % 3] for row in range(count)]),
                "weight": pa.array([1.0] * count, pa.float32()),
                "draw": pa.array([1.0] * count, pa.float32()),
            },
        )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    dataset, table = image_table(num_samples=11)
    write_parts(tmp_path / "samples", dataset, table)
    repaired = table.slice(1, 1).drop_columns(["image"]).append_column("image", [[{"bytes": BRIGHT, "path": None}]])
    write_parts(tmp_path / "repairs", dataset, repaired)
    made = identity(["made"], labels=["2"]) | {
        "origin": pa.array(["augmented"]),
        "parents": pa.array([[table["sample_id"][0].as_py()]], pa.list_(pa.string())),
        "image": pa.array([{"bytes": BRIGHT, "path": None}]),
    }
    write_parts(tmp_path / "copies", dataset, pa.table(made))
    for empty in ("synthetic", "resampled"):
        write_parts(tmp_path / empty, dataset, table.slice(0, 0))
    files.write_json(
        tmp_path / "preprocessor.json",
        {"kind": "image", "height": 8, "width": 8, "channels": 1, "mean": [0.3], "std": [0.3]},
    )
    ids = [*table["sample_id"].to_pylist(), pa.table(made)["sample_id"][0].as_py()]
    made_workspace = Workspace(tmp_path, dataset, ids)
    made_workspace.write_plan(["train"] * 8 + ["validation", "test", "test", "train"])
    return made_workspace


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            total.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return total.hexdigest()


def test_every_split_becomes_a_shard(workspace: Workspace) -> None:
    metrics = workspace.run("out")
    assert metrics == {"rows": {"train": 9, "validation": 1, "test": 2}, "bytes": 12 * (64 + 12 + 16), "tar_files": 0}
    train = open_shard(workspace.folder / "out/shards/train", verify=True)
    assert train.ids() == [*workspace.ids[:8], workspace.ids[11]]
    assert train.label.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]


def test_repairs_take_the_place_of_what_they_repair(workspace: Workspace) -> None:
    workspace.run("out")
    train = open_shard(workspace.folder / "out/shards/train")
    assert train.x[1].min() == 255
    assert train.x[0].min() < 60


def test_the_ledger_tells_split_and_row(workspace: Workspace) -> None:
    workspace.write_plan(["train"] * 8 + ["validation", "test", "test", "train"], fates=["dropped"] + ["kept"] * 11)
    workspace.run("out")
    table = ledger.read(workspace.folder / "out/ledger.parquet")
    assert table["sample_id"].to_pylist() == workspace.ids[1:]
    assert table["split"].to_pylist() == ["train"] * 7 + ["validation", "test", "test", "train"]
    assert table["row"].to_pylist() == [0, 1, 2, 3, 4, 5, 6, 0, 0, 1, 7]
    ledger.check(workspace.folder / "out/ledger.parquet", population=workspace.ids[1:], stage="shard")


def test_equal_inputs_give_equal_bytes(workspace: Workspace) -> None:
    for out in ("first", "second"):
        workspace.run(out, webdataset="all")
    assert digest(workspace.folder / "first") == digest(workspace.folder / "second")


def test_a_parent_that_moved_to_test_stops_the_stage(workspace: Workspace) -> None:
    workspace.write_plan(["test", *["train"] * 7, "validation", "test", "test", "train"])
    with pytest.raises(StageError, match=f"{workspace.ids[11]} was made from {workspace.ids[0]}, which is in test"):
        workspace.run("out")


def test_a_copy_in_validation_stops_the_stage(workspace: Workspace) -> None:
    workspace.write_plan(["train"] * 10 + ["test", "validation"])
    with pytest.raises(StageError, match=f"augmented sample {workspace.ids[11]} is in validation"):
        workspace.run("out")


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("none", []),
        ("train", ["train-000000.tar", "train-000001.tar", "train-000002.tar"]),
        (
            "all",
            ["test-000000.tar", "train-000000.tar", "train-000001.tar", "train-000002.tar", "validation-000000.tar"],
        ),
    ],
)
def test_webdataset_exports_the_splits_that_were_asked_for(workspace: Workspace, choice: str, names: list[str]) -> None:
    assert workspace.run("out", webdataset=choice)["tar_files"] == len(names)
    assert sorted(tar.name for tar in (workspace.folder / "out/webdataset").glob("*.tar")) == names
    assert (workspace.folder / "out/webdataset/dataset.json").exists()
