"""Old runs are forgotten, and what a kept champion came from is not."""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from datamill.errors import DataError
from datamill.lineage import codebase
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


def note_code(root: Path, letter: str, *, hour: int) -> str:
    """A digest of code whose files were noted at this hour of the runs' day."""
    note = root / codebase.FOLDER / f"{letter * 32}.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text("{}")
    time = datetime(2026, 3, 1, hour, tzinfo=UTC).timestamp()
    os.utime(note, (time, time))
    return note.stem


def name_code(path: Path, digest: str) -> None:
    """Let a file name a digest; a lock file does so in the way of a workspace outside the checkout."""
    if path.name == "code.json":
        path.write_text(json.dumps(json.loads(path.read_text()) | {"train": {"digest": digest, "files": {}}}))
        return
    lock = yaml.safe_load(path.read_text())
    lock["stages"]["train"]["params"][".datamill/observed.yaml"] = {"code.train": digest}
    path.write_text(yaml.safe_dump(lock))


def noted(root: Path) -> list[str]:
    return sorted(path.name[0] for path in (root / codebase.FOLDER).iterdir())


def test_code_that_nothing_kept_names_is_forgotten_with_the_runs(root: Path) -> None:
    digests = {letter: note_code(root, letter, hour=1) for letter in "abcde"}
    note_code(root, "f", hour=4)  # between the kept runs: a commit that `dvc repro` made may name it
    (root / codebase.FOLDER / "train.json").write_text("{}")
    champion = crown(root, 0, version="0123456789ab", run="run1-key")
    name_code(root / ".datamill/runs/run0-key/code.json", digests["a"])  # kept, because the champion has its lock file
    name_code(root / ".datamill/runs/run2-key/code.json", digests["b"])  # goes
    name_code(root / ".datamill/runs/run3-key/code.json", digests["c"])
    name_code(root / "dvc.lock", digests["d"])
    prune(root, keep=2)
    assert noted(root) == ["a", "c", "d", "f", "t"]
    shutil.rmtree(champion)
    prune(root, keep=2)
    assert noted(root) == ["c", "d", "f", "t"]


def test_what_a_champion_ran_with_stays_where_no_run_on_record_has_its_lock_file(root: Path) -> None:
    digest = note_code(root, "a", hour=1)
    name_code(crown(root, 0, version="0123456789ab", run="") / "dvc.lock", digest)
    prune(root, keep=2)
    assert left(root) == ["run4-key", "run3-key"]
    assert noted(root) == ["a"]


def test_no_code_is_forgotten_while_no_run_is(root: Path) -> None:
    note_code(root, "a", hour=1)
    prune(root, keep=5)
    assert noted(root) == ["a"]
