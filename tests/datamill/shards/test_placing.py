from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from datamill import ledger, parts
from datamill.errors import DataError, StageError
from datamill.shards.placing import iter_placements, require_no_leak
from tests.builders import identity, small_parts, tabular_table, write_parts

CLASSES = ("0", "1", "2")


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_parts(tmp_path / "samples", *tabular_table(num_samples=6))


@pytest.fixture
def ids(samples: Path) -> list[str]:
    return parts.read_table(samples, columns=["sample_id"])["sample_id"].to_pylist()


def write_plan(path: Path, ids: list[str], **changes: list[Any]) -> Path:
    columns: dict[str, list[Any]] = {
        "fates": ["kept", "kept", "dropped", "repaired", "kept", "kept"],
        "split": ["train", "test", "train", "train", "validation", "train"],
        "label": ["0", "1", "0", "1", "0", "2"],
        "weight": [1.0, 1.0, 1.0, 0.5, 1.0, 2.0],
        "draw": [1.0] * 6,
    } | changes
    more = len(ids) - 6
    for name, value in (("fates", "kept"), ("split", "train"), ("label", "0"), ("weight", 1.0), ("draw", 1.0)):
        columns[name] = [*columns[name], *[value] * more][: len(ids)]
    ledger.write(
        path,
        sample_ids=ids,
        fates=columns["fates"],
        reasons="",
        details="",
        extra={
            "split": pa.array(columns["split"]),
            "label": pa.array(columns["label"]),
            "weight": pa.array(columns["weight"], pa.float32()),
            "draw": pa.array(columns["draw"], pa.float32()),
        },
    )
    return path


def made_from(folder: Path, parents: list[str], *, origin: str = "synthetic") -> tuple[Path, str]:
    """A parts folder with one generated sample, and its id."""
    dataset, table = tabular_table(num_samples=1)
    columns = identity(["made"], labels=["0"]) | {
        "origin": pa.array([origin]),
        "parents": pa.array([parents], pa.list_(pa.string())),
    }
    features = {name: table[name] for name in table.column_names if name not in columns}
    made = pa.table({**columns, **features})
    return write_parts(folder, dataset, made), made["sample_id"][0].as_py()


def test_survivors_are_placed_with_their_row_in_the_part(tmp_path: Path, samples: Path, ids: list[str]) -> None:
    plan = write_plan(tmp_path / "plan", ids)
    (placement,) = iter_placements([samples], plan=plan, classes=CLASSES)
    assert placement.rows.tolist() == [0, 1, 3, 4, 5]
    assert placement.splits.to_pylist() == ["train", "test", "train", "validation", "train"]
    assert placement.label.tolist() == [0, 1, 1, 0, 2]
    assert placement.weight.tolist() == [1.0, 1.0, 0.5, 1.0, 2.0]
    assert [row.tobytes().hex() for row in placement.sample_id] == placement.sample_ids.to_pylist()


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_every_part_has_a_placement_of_its_own_however_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    small_parts(monkeypatch, target_bytes=5_000, least_row_bytes=1_000)
    samples = write_parts(tmp_path / "samples", *tabular_table(num_samples=60))
    monkeypatch.setattr(parts, "iter_part", partial(parts.iter_part, rows=rows))
    ids = parts.read_table(samples, columns=["sample_id"])["sample_id"].to_pylist()
    plan = write_plan(tmp_path / "plan", ids)
    placements = list(iter_placements([samples], plan=plan, classes=CLASSES))
    sizes = [part.num_rows for part in parts.read_manifest(samples).parts]
    assert len(sizes) > 5
    assert [placement.path.stem for placement in placements] == [
        part.key for part in parts.read_manifest(samples).parts
    ]
    assert [len(placement.rows) for placement in placements] == [sizes[0] - (sizes[0] > 2), *sizes[1:]]
    assert np.concatenate([placement.sample_ids for placement in placements]).tolist() == ids[:2] + ids[3:]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": ["0", "c", "0", "1", "0", "0"]}, r"label 'c' is none of \['0', '1', '2'\]"),
        ({"split": ["train", "dev", "train", "train", "test", "train"]}, "split 'dev' is none of"),
        ({"weight": [1.0, 1.0, 1.0, -0.5, 1.0, 1.0]}, r"weight of sample \w+ is -0.5, not a number from 0"),
        ({"draw": [1.0, float("nan"), 1.0, 1.0, 1.0, 1.0]}, r"draw of sample \w+ is nan"),
    ],
)
def test_a_wrong_plan_is_refused(
    tmp_path: Path, samples: Path, ids: list[str], changes: dict[str, list[Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        list(iter_placements([samples], plan=write_plan(tmp_path / "plan", ids, **changes), classes=CLASSES))


def test_a_planned_sample_that_no_folder_holds_is_refused(tmp_path: Path, samples: Path, ids: list[str]) -> None:
    plan = write_plan(tmp_path / "plan", [*ids, "f" * 32])
    with pytest.raises(StageError, match=r"names sample f{32}, which is not among the samples"):
        list(iter_placements([samples], plan=plan, classes=CLASSES))


@pytest.mark.parametrize(("parent", "home"), [(1, "test"), (4, "validation"), (None, "no split of the plan")])
def test_a_parent_outside_train_is_refused_naming_both(
    tmp_path: Path, samples: Path, ids: list[str], parent: int | None, home: str
) -> None:
    stranger = "f" * 32 if parent is None else ids[parent]
    folder, made = made_from(tmp_path / "made", [ids[0], stranger])
    plan = write_plan(tmp_path / "plan", [*ids, made])
    with pytest.raises(StageError, match=f"sample {made} was made from {stranger}, which is in {home}; training on it"):
        require_no_leak([samples, folder], plan=plan)


def test_a_made_sample_outside_train_is_refused(tmp_path: Path, samples: Path, ids: list[str]) -> None:
    folder, made = made_from(tmp_path / "made", [ids[0]], origin="augmented")
    splits = ["train", "test", "train", "train", "validation", "train", "validation"]
    plan = write_plan(tmp_path / "plan", [*ids, made], split=splits)
    with pytest.raises(StageError, match=f"augmented sample {made} is in validation; made samples belong to train"):
        require_no_leak([samples, folder], plan=plan)


@pytest.mark.parametrize(("parent", "fate"), [(2, "kept"), (1, "dropped")])
def test_dropped_parents_in_train_and_dropped_children_are_fine(
    tmp_path: Path, samples: Path, ids: list[str], parent: int, fate: str
) -> None:
    folder, made = made_from(tmp_path / "made", [ids[parent]])
    fates = ["kept", "kept", "dropped", "repaired", "kept", "kept", fate]
    require_no_leak([samples, folder], plan=write_plan(tmp_path / "plan", [*ids, made], fates=fates))


def test_parts_whose_statistics_show_the_source_alone_are_not_read(
    tmp_path: Path, samples: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    iter_part = parts.iter_part
    monkeypatch.setattr(parts, "iter_part", lambda path, **options: read.append(path) or iter_part(path, **options))
    require_no_leak([samples], plan=write_plan(tmp_path / "plan", ids))
    assert not read
    folder, made = made_from(tmp_path / "made", [ids[0]], origin="source")  # by its origin, but not by its parents
    splits = ["train", "test", "train", "train", "validation", "train", "test"]
    plan = write_plan(tmp_path / "plan", [*ids, made], split=splits)
    with pytest.raises(StageError, match=f"source sample {made} is in test"):
        require_no_leak([samples, folder], plan=plan)
    assert {path.parent for path in read} == {folder}


def test_made_samples_that_the_plan_leaves_out_do_not_matter(tmp_path: Path, samples: Path, ids: list[str]) -> None:
    folder, _ = made_from(tmp_path / "made", [ids[1]])
    require_no_leak([samples, folder], plan=write_plan(tmp_path / "plan", ids))
