"""Old runs are forgotten, and what a kept champion came from is not."""

import json
import shutil
from pathlib import Path

import pytest

from datamill.errors import DataError
from datamill.lineage.pruning import prune
from datamill.lineage.runs import find_run, records
from datamill.tracing import trace
from tasks import PIPELINE
from tests.datamill.lineage.test_runs import record, run_again, store
from tests.lineages import write_workspace


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five runs, each of other parameters; the first two made champions."""
    root = write_workspace(tmp_path / "ws")
    store(root)
    for number in range(5):
        run_again(root, params={"train": {"epochs": 10 + number}})
        record(root, f"run{number}-key", hour=number)
    return root


def crown(root: Path, number: int, *, version: str, run: str) -> Path:
    """A kept champion with the lock file of a run, whose card names a session."""
    folder = root / "models/champions" / version
    folder.mkdir(parents=True)
    for name in ("dvc.lock", "params.yaml"):
        shutil.copyfile(root / f".datamill/runs/run{number}-key" / name, folder / name)
    (folder / "champion.json").write_text(json.dumps({"run": run}))
    link = root / "models/champion"
    link.unlink(missing_ok=True)
    link.symlink_to(f"champions/{version}")
    return folder


def left(root: Path) -> list[str]:
    return [folder.name for folder in records(root)]


def test_the_latest_runs_stay(root: Path) -> None:
    assert prune(root, keep=2) == ("run2-key", "run1-key", "run0-key")
    assert left(root) == ["run4-key", "run3-key"]
    assert prune(root, keep=2) == ()


def test_what_kept_champions_came_from_stays_by_lock_file_and_by_session(root: Path) -> None:
    crown(root, 0, version="0123456789ab", run="run1-key")
    assert prune(root, keep=2) == ("run2-key",)
    assert left(root) == ["run4-key", "run3-key", "run1-key", "run0-key"]


def test_why_champion_and_trace_find_what_they_found_before(root: Path) -> None:
    crown(root, 0, version="0123456789ab", run="run0-key")
    prune(root, keep=1)
    champion = find_run("champion", stages=PIPELINE, root=root)
    assert (champion.key, champion.params["train"]["epochs"]) == ("run0-key", 10)
    assert find_run("0123456789ab", stages=PIPELINE, root=root).key == "run0-key"
    trail = trace("model:champion", stages=PIPELINE, root=root)
    assert trail.chapters


def test_once_a_champion_is_no_longer_kept_its_run_is_forgotten(root: Path) -> None:
    shutil.rmtree(crown(root, 0, version="0123456789ab", run="run0-key"))
    prune(root, keep=1)
    assert left(root) == ["run4-key"]


def test_with_a_damaged_card_nothing_is_forgotten(root: Path) -> None:
    (crown(root, 0, version="0123456789ab", run="run0-key") / "champion.json").write_text("{")
    with pytest.raises(DataError, match=r"champion.json is damaged, so that no run is forgotten"):
        prune(root, keep=1)
    assert len(left(root)) == 5
