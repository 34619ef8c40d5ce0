"""Stage ``ingest``."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from datamill import parts, sources
from datamill.errors import DataError, StageError
from datamill.sources.batches import Batch, Reading
from datamill.stage import Metrics
from tasks.ingest import STAGE
from tests.datamill.sources.drain import TABLE_FIELDS, make_params, opened
from tests.fakes import make_context


def ingest(folder: Path, source: dict[str, Any]) -> Metrics:
    return STAGE.run(
        samples=folder / "samples",
        rejects=folder / "rejects.parquet",
        params=make_params(source),
        context=make_context(folder),
    )


def table(folder: Path, text: str) -> dict[str, Any]:
    path = folder / "t.csv"
    path.write_text(text)
    return {**TABLE_FIELDS, "path": str(path)}


def content(folder: Path) -> dict[str, bytes]:
    files = [*sorted((folder / "samples").iterdir()), folder / "rejects.parquet"]
    return {path.name: path.read_bytes() for path in files}


def test_samples_and_rejects_add_up_to_the_items(tmp_path: Path) -> None:
    metrics = ingest(tmp_path, table(tmp_path, "size,class\n1,a\n2,b\n3\n4,\n5,a\n"))
    assert metrics == {
        "num_items": 5,
        "num_samples": 3,
        "num_rejects": 2,
        "rejects": {"ragged_row": 1, "target_missing": 1},
        "num_classes": 2,
        "classes": {"a": 2, "b": 1},
    }
    manifest = parts.verify(tmp_path / "samples")
    assert (manifest.num_rows, manifest.dataset.classes) == (3, ("a", "b"))
    assert pq.read_table(tmp_path / "rejects.parquet")["source"].to_pylist() == ["t.csv:4", "t.csv:5"]


def test_equal_sources_give_equal_bytes(tmp_path: Path) -> None:
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        ingest(tmp_path / run, {"kind": "bundled", "name": "digits"})
    assert content(tmp_path / "first") == content(tmp_path / "second")


def test_relative_paths_start_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = table(tmp_path, "size,class\n1,a\n2,b\n")
    monkeypatch.chdir(tmp_path)
    assert ingest(tmp_path, {**source, "path": "t.csv"})["num_samples"] == 2


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'t' has only class 'a'; classification needs two at least"):
        ingest(tmp_path, table(tmp_path, "size,class\n1,a\n2,a\n"))


def test_a_class_without_a_readable_item_stops_the_run(tmp_path: Path) -> None:
    rows = "".join(f"{number},a\n" for number in range(300))
    with pytest.raises(
        DataError, match=r"no item of class 'b' could be read; .* first t\.csv:302: column 'size' holds 'x'"
    ):
        ingest(tmp_path, table(tmp_path, f"size,class\n{rows}x,b\n"))


def test_a_source_of_which_nothing_can_be_read_stops_the_run(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        (tmp_path / "pets" / name / "1.png").touch()
    with pytest.raises(DataError, match=r"none of the 2 items of 'pets' could be read: 2 zero_byte; first cat/1\.png"):
        ingest(tmp_path, {"kind": "image_folder", "path": str(tmp_path / "pets"), "group_from": "none"})


def test_a_reader_that_loses_an_item_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(make_params({"kind": "bundled", "name": "iris"})) as whole:
        (batch,) = whole.batches
    assert isinstance(batch, Batch)
    leaky = Reading(dataset=whole.dataset, num_items=whole.num_items, batches=iter([Batch(batch.table.slice(1))]))
    monkeypatch.setattr(sources, "read", lambda params, **_: leaky)
    with pytest.raises(StageError, match="150 items were listed, but 149 became samples and 0 rejects"):
        ingest(tmp_path, {"kind": "bundled", "name": "iris"})
