import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from datamill import files, ledger
from datamill.errors import DataError, StageError
from datamill.modalities import image
from datamill.samples import Dataset
from datamill.shards import integrity, packing
from datamill.shards.native import open_shard
from datamill.shards.previous import Previous
from datamill.stage import Metrics
from tasks.shard import STAGE, ShardParams
from tests.builders import identity, image_table, write_parts
from tests.fakes import InlineEngine, make_context

BRIGHT = image.encode_png(np.full((8, 8, 1), 255, np.uint8))


@dataclass
class Workspace:
    """The stage's inputs: 12 images, the last made from the first, the second repaired."""

    folder: Path
    dataset: Dataset
    ids: list[str]
    engine: InlineEngine = field(default_factory=InlineEngine)

    def run(self, out: str, *, previous: str | None = None, **params: Any) -> Metrics:
        (self.folder / out).mkdir()
        settings = ShardParams(exports=params.get("exports", []))
        inputs = {port: self.folder / port for port in ("samples", "repairs", "copies", "synthetic", "resampled")}
        outputs = {"shards": "shards", "ledger": "ledger.parquet", "exports": "exports"}
        return STAGE.run(
            **inputs,
            **{port: self.folder / out / name for port, name in outputs.items()},
            plan=self.folder / "plan.parquet",
            preprocessor=self.folder / "preprocessor.json",
            params=settings,
            context=make_context(
                self.folder,
                engine=self.engine,
                previous={"shards": self.folder / previous / "shards"} if previous else {},
            ),
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


@pytest.fixture(autouse=True)
def all_work_is_worth_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "WORTH_SAMPLES", 0)


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
    assert metrics == {
        "rows": {"train": 9, "validation": 1, "test": 2},
        "bytes": 12 * (64 + 12 + 16),
        "exported_files": 0,
    }
    train = open_shard(workspace.folder / "out/shards/train", verify=True)
    assert train.ids() == [*workspace.ids[:8], workspace.ids[11]]
    assert train.label.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]


def test_repairs_take_the_place_of_what_they_repair(workspace: Workspace) -> None:
    workspace.run("out")
    train = open_shard(workspace.folder / "out/shards/train")
    assert train.x[1].min() == 255
    assert train.x[0].min() < 60


def test_repairs_of_samples_that_are_gone_do_not_hide_later_ones(workspace: Workspace) -> None:
    _, table = image_table(num_samples=11)
    files.remove(workspace.folder / "repairs")
    image_column = pa.array([{"bytes": BRIGHT, "path": None}] * 2)
    repaired = table.take([1, 6]).drop_columns(["image"]).append_column("image", image_column)
    write_parts(workspace.folder / "repairs", workspace.dataset, repaired)
    fates = ["kept", "dropped", *["kept"] * 10]
    workspace.write_plan(["train"] * 8 + ["validation", "test", "test", "train"], fates=fates)
    workspace.run("out")
    train = open_shard(workspace.folder / "out/shards/train")
    assert [bool(train.x[row].min() == 255) for row in range(7)] == [False] * 5 + [True, False]


def test_the_ledger_tells_split_and_row(workspace: Workspace) -> None:
    workspace.write_plan(["train"] * 8 + ["validation", "test", "test", "train"], fates=["dropped"] + ["kept"] * 11)
    workspace.run("out")
    table = ledger.read(workspace.folder / "out/ledger.parquet")
    assert table["sample_id"].to_pylist() == workspace.ids[1:]
    assert table["split"].to_pylist() == ["train"] * 7 + ["validation", "test", "test", "train"]
    assert table["row"].to_pylist() == [0, 1, 2, 3, 4, 5, 6, 0, 0, 1, 7]
    ledger.check(workspace.folder / "out/ledger.parquet", population=[pa.array(workspace.ids[1:])], stage="shard")


ALL_TARS = {"format": "webdataset", "splits": ["train", "validation", "test"], "max_samples": 4}


def test_equal_inputs_give_equal_bytes_with_or_without_a_history(workspace: Workspace) -> None:
    workspace.run("first", exports=[ALL_TARS])
    workspace.run("second", exports=[ALL_TARS], previous="first")
    assert digest(workspace.folder / "first") == digest(workspace.folder / "second")


def without_repairs(workspace: Workspace) -> Workspace:
    files.remove(workspace.folder / "repairs")
    write_parts(workspace.folder / "repairs", workspace.dataset, image_table()[1].slice(0, 0))
    return workspace


def test_a_rerun_makes_nothing_that_is_there(workspace: Workspace) -> None:
    without_repairs(workspace).run("first")
    made = workspace.engine.num_items
    workspace.run("second", previous="first")
    assert (made, workspace.engine.num_items) == (4, 4)
    shards = [workspace.folder / run / "shards" / "train" for run in ("first", "second")]
    names = [sorted(shard.glob("x-*.bin")) for shard in shards]
    assert all(old.samefile(new) for old, new in zip(*names, strict=True))


def test_a_dropped_sample_is_left_out_by_copying_and_a_fresh_run_gives_the_same(workspace: Workspace) -> None:
    without_repairs(workspace).run("first")
    fates = ["kept", "kept", "dropped", *["kept"] * 9]
    workspace.write_plan(["train"] * 8 + ["validation", "test", "test", "train"], fates=fates)
    made = workspace.engine.num_items
    workspace.run("second", previous="first")
    assert workspace.engine.num_items == made
    workspace.run("fresh")
    assert digest(workspace.folder / "second") == digest(workspace.folder / "fresh")


def test_a_returning_sample_is_made_and_the_others_are_copied(workspace: Workspace) -> None:
    fates = ["kept", "kept", "dropped", *["kept"] * 9]
    splits = ["train"] * 8 + ["validation", "test", "test", "train"]
    without_repairs(workspace).write_plan(splits, fates=fates)
    workspace.run("first")
    made = workspace.engine.num_items
    workspace.write_plan(splits)
    workspace.run("second", previous="first")
    assert workspace.engine.num_items == made + 1
    workspace.run("fresh")
    assert digest(workspace.folder / "second") == digest(workspace.folder / "fresh")


def test_a_sample_that_is_no_longer_repaired_is_not_taken_from_the_repaired_shard(workspace: Workspace) -> None:
    workspace.run("first")
    without_repairs(workspace).run("second", previous="first")
    workspace.run("fresh")
    assert digest(workspace.folder / "second") == digest(workspace.folder / "fresh")
    assert open_shard(workspace.folder / "second/shards/train").x[1].min() < 60


def test_damage_in_the_previous_shards_is_not_passed_on(workspace: Workspace) -> None:
    without_repairs(workspace).run("first")
    workspace.run("fresh")
    for file in (workspace.folder / "first/shards").rglob("x-*.bin"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 4
        file.write_bytes(content)
    workspace.run("second", previous="first")
    assert digest(workspace.folder / "second") == digest(workspace.folder / "fresh")


@pytest.mark.parametrize("where", ["x", "sample_id"])
def test_damage_that_shows_only_when_rows_are_copied_is_not_passed_on(workspace: Workspace, where: str) -> None:
    dataset, table = image_table(num_samples=600)
    files.remove(workspace.folder / "samples")
    write_parts(workspace.folder / "samples", dataset, table)
    workspace.ids[:11] = table["sample_id"].to_pylist()
    splits = ["train"] * 600 + ["train"]
    without_repairs(workspace).write_plan(splits)
    workspace.run("first")
    fates = ["kept", "dropped", *["kept"] * 599]
    workspace.write_plan(splits, fates=fates)
    workspace.run("fresh")
    (file,) = [
        path for path in (workspace.folder / "first/shards/train").glob(f"{where}-*.bin") if path.stat().st_size > 9_000
    ]
    content = bytearray(file.read_bytes())
    unprobed = set(range(len(content))) - {
        place for start, size in integrity.probe_ranges(len(content)) for place in range(start, start + size)
    }
    content[max(unprobed, default=len(content) // 2)] ^= 4
    file.write_bytes(content)
    workspace.run("second", previous="first")
    assert digest(workspace.folder / "second") == digest(workspace.folder / "fresh")


@pytest.mark.parametrize(("decoded", "copied"), [(64, 64), (64, 10_000), (10_000, 64), (200, 150)])
def test_bounded_memory_changes_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, decoded: int, copied: int
) -> None:
    splits = ["train"] * 8 + ["validation", "test", "test", "train"]
    workspace.run("repaired")
    without_repairs(workspace).write_plan(splits, fates=["kept", "dropped", "kept", "dropped", *["kept"] * 8])
    workspace.run("fewer")
    workspace.write_plan(splits)
    workspace.run("once")
    monkeypatch.setattr(packing, "DECODED_BYTES", decoded)
    monkeypatch.setattr(packing, "COPIED_BYTES", copied)
    workspace.run("in_pieces")
    workspace.run("copied", previous="fewer")
    assert digest(workspace.folder / "once") == digest(workspace.folder / "in_pieces")
    assert digest(workspace.folder / "once") == digest(workspace.folder / "copied")


def test_repairs_are_made_in_pieces_too(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.run("once")
    monkeypatch.setattr(packing, "DECODED_BYTES", 64)
    workspace.run("one_by_one")
    assert digest(workspace.folder / "once") == digest(workspace.folder / "one_by_one")


def test_a_split_that_was_empty_may_fill(workspace: Workspace) -> None:
    without_repairs(workspace).write_plan(["train"] * 8 + ["test", "test", "test", "train"])
    workspace.run("first")
    workspace.write_plan(["train"] * 8 + ["validation", "test", "test", "train"])
    workspace.run("second", previous="first")
    workspace.run("fresh")
    assert digest(workspace.folder / "second") == digest(workspace.folder / "fresh")


def test_shards_that_are_links_into_a_cache_serve_again(workspace: Workspace) -> None:
    without_repairs(workspace).run("first")
    shards = workspace.folder / "first/shards"
    for path in [path for path in shards.rglob("*") if path.is_file()]:
        cached = workspace.folder / "cache" / path.relative_to(shards)
        cached.parent.mkdir(parents=True, exist_ok=True)
        path.rename(cached)
        path.symlink_to(cached)
    made = workspace.engine.num_items
    workspace.run("second", previous="first")
    assert workspace.engine.num_items == made
    assert not any(path.is_symlink() for path in (workspace.folder / "second").rglob("*"))
    workspace.run("fresh")
    assert digest(workspace.folder / "second") == digest(workspace.folder / "fresh")


def test_previous_shards_that_change_while_they_are_read_stop_the_stage(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_repairs(workspace).run("first")
    fates = ["kept", "kept", "dropped", *["kept"] * 9]
    workspace.write_plan(["train"] * 8 + ["validation", "test", "test", "train"], fates=fates)
    arrays = Previous.arrays

    def meddle(self: Previous, *args: Any, **options: Any) -> Any:
        for file in (workspace.folder / "first/shards/train").glob("x-*.bin"):
            file.write_bytes(bytes(file.stat().st_size))
        return arrays(self, *args, **options)

    monkeypatch.setattr(Previous, "arrays", meddle)
    with pytest.raises(DataError, match=r"changed while the shard was open|was altered or replaced"):
        workspace.run("second", previous="first")


def test_a_parent_that_moved_to_test_stops_the_stage(workspace: Workspace) -> None:
    workspace.write_plan(["test", *["train"] * 7, "validation", "test", "test", "train"])
    with pytest.raises(StageError, match=f"{workspace.ids[11]} was made from {workspace.ids[0]}, which is in test"):
        workspace.run("out")


def test_a_copy_in_validation_stops_the_stage(workspace: Workspace) -> None:
    workspace.write_plan(["train"] * 10 + ["test", "validation"])
    with pytest.raises(StageError, match=f"augmented sample {workspace.ids[11]} is in validation"):
        workspace.run("out")


def test_exports_hold_the_splits_that_were_asked_for(workspace: Workspace) -> None:
    wishes = [ALL_TARS | {"splits": ["train"]}, {"format": "parquet", "splits": ["test"], "max_samples": 4}]
    assert workspace.run("out", exports=wishes)["exported_files"] == 4
    exports = workspace.folder / "out/exports"
    tars = sorted(path.name for path in (exports / "webdataset").glob("*.tar"))
    assert tars == ["train-000000.tar", "train-000001.tar", "train-000002.tar"]
    assert len(list((exports / "parquet").glob("test-*.parquet"))) == 1


def test_a_format_listed_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="webdataset is listed twice"):
        ShardParams.model_validate({"exports": [ALL_TARS, ALL_TARS]})


def test_little_work_starts_no_workers(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    without_repairs(workspace).run("many")
    monkeypatch.setattr(packing, "WORTH_SAMPLES", 13)
    made = workspace.engine.num_items
    workspace.run("few")
    assert workspace.engine.num_items == made
    assert digest(workspace.folder / "few") == digest(workspace.folder / "many")


def test_few_large_payloads_are_worth_workers(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    without_repairs(workspace)
    monkeypatch.setattr(packing, "WORTH_SAMPLES", 1_000)
    monkeypatch.setattr(packing, "WORTH_BYTES", 1_000)  # of the parts, some thousand
    workspace.run("shards")
    assert workspace.engine.num_items > 0
