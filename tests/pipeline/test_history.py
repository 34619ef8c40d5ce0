"""A workspace that followed its source through edits and kills holds, byte for byte, what one without a past would."""

import contextlib
import multiprocessing
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datamill import files
from datamill.errors import StageError
from datamill.execute import execute
from tasks import PIPELINE
from tests.pipeline.histories import (
    DATA_STAGES,
    SETTINGS,
    SMALL,
    History,
    IdxPairs,
    ImageFolders,
    Outcome,
    PackedImages,
    Rows,
    Source,
    Table,
    collect,
    run,
    splits,
    write_params,
)

SOURCES = {
    "packed": PackedImages(),
    "webdataset": PackedImages("webdataset"),
    "tfrecord": PackedImages("tfrecord"),
    "mds": PackedImages("mds"),
    "idx": IdxPairs(),
    "folders": ImageFolders(),
    "csv": Table(),
    "csv-with-ids": Table(has_id=True),
    "parquet": Table("parquet"),
    "query": Rows(),
    "query-with-ids": Rows(has_id=True),
}
ALL = {
    "split.strategy": ["hash", "stratified", "stratified_exact"],
    "clean.near.policy": ["group", "drop", "flag"],
    "clean.near.max_mean_difference": [0.02, 0.3],
    "clean.near.max_pixel_difference": [0.1, 1.0],
    "clean.exact.policy": ["drop", "flag"],
    "clean.exact.conflicting": ["drop_all", "keep_first", "flag"],
    "clean.table.missing.policy": ["off", "median", "knn"],
    "clean.table.outliers.method": ["off", "zscore"],
    "clean.table.outliers.action": ["flag", "clip", "drop"],
    "audit.policy": ["off", "drop", "relabel"],
    "audit.max_rows": [40, 20000],
    "audit.max_share": [0.05, 0.5],
    "augment.copies_per_sample": [0, 2],
    "synthesize.method": ["off", "pca"],
    "balance.method": ["none", "smote", "random_under"],
}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for (module, name), value in SMALL.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(files, "fsync_path", lambda path: None)  # hundreds of small files; no power is cut here


def begun(source: Source, folder: Path, *, rng: random.Random) -> History:
    history = History(source, folder, rng)
    many = {"num_files": 30, "num_rows": 6} if isinstance(source, ImageFolders) else {"num_files": 4, "num_rows": 40}
    history.begin(**many)
    return history


def chosen(rng: random.Random, *, source: Source) -> dict[str, Any]:
    """Parameters at random."""
    changes: dict[str, Any] = {name: rng.choice(values) for name, values in ALL.items()}
    if isinstance(source, Table):
        jitter = {"name": "jitter", "probability": 0.8, "arguments": {"share": 0.05}}
        changes["augment.transforms"] = [jitter]
    return changes


def fresh(root: Path, *, history: History, changes: dict[str, Any]) -> Outcome:
    """What a workspace without a past makes of the source."""
    shutil.rmtree(root, ignore_errors=True)
    write_params(root, source=history.source.params(history.folder), changes=changes)
    return run(root)


def follow(history: History, *, tmp_path: Path, changes: dict[str, Any], num_runs: int, num_edits: int = 1) -> None:
    """Run and compare, so many times, with so many edits before each; rows that stay must not change sides."""
    root = tmp_path / "followed"
    before: dict[tuple[str, ...], str] = {}
    for number in range(num_runs):
        for _ in range(num_edits if number else 0):
            history.edit()
        write_params(root, source=history.source.params(history.folder), changes=changes)
        outcome = run(root)
        told = f"{changes} after {history.log}"
        assert not outcome.difference(fresh(tmp_path / "fresh", history=history, changes=changes)), told
        if not outcome.error and changes["split.strategy"] != "stratified_exact":
            after = splits(root)
            assert [key for key in before.keys() & after if before[key] != after[key]] == [], told
            before = after


def test_a_workspace_with_a_past_holds_what_a_fresh_one_makes(tmp_path: Path) -> None:
    history = begun(SOURCES["packed"], tmp_path / "source", rng=random.Random(1))
    changes = {"split.strategy": "hash", "clean.near.policy": "group", "augment.copies_per_sample": 1}
    follow(history, tmp_path=tmp_path, changes=changes, num_runs=2, num_edits=5)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", SOURCES)
def test_it_does_so_under_any_parameters(kind: str, seed: int, tmp_path: Path) -> None:
    rng = random.Random(f"{kind} {seed}")
    history = begun(SOURCES[kind], tmp_path / "source", rng=rng)
    follow(history, tmp_path=tmp_path, changes=chosen(rng, source=history.source), num_runs=7)


def run_apart(root: Path, started: Any) -> None:
    """In a process of its own: say that it begins, and run."""
    for (module, name), value in SMALL.items():
        setattr(module, name, value)
    started.set()
    run(root)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_killed_anywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    rng, spawning = random.Random(5), multiprocessing.get_context("spawn")
    history = begun(SOURCES["packed"], tmp_path / "source", rng=rng)
    changes = {"split.strategy": "hash", "augment.copies_per_sample": 1}
    root = tmp_path / "killed"
    write_params(root, source=history.source.params(history.folder), changes=changes)
    run(root)
    num_killed = 0
    for _ in range(5):
        history.edit()
        started = spawning.Event()
        process = spawning.Process(target=run_apart, args=(root, started))
        process.start()
        assert started.wait(timeout=60)
        process.join(timeout=rng.uniform(0, 2))
        with contextlib.suppress(ValueError):
            process.kill()
        process.join()
        num_killed += process.exitcode != 0
        assert not run(root).difference(fresh(tmp_path / "fresh", history=history, changes=changes)), history.log
    assert num_killed >= 2


@contextlib.contextmanager
def disk(folder: Path, *, size_mib: int) -> Iterator[Path]:
    """A file system of this size, where the test may mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


@pytest.mark.slow
def test_a_full_disk_is_one_clear_error_in_every_stage_and_leaves_what_was_there(tmp_path: Path) -> None:
    history = begun(SOURCES["packed"], tmp_path / "source", rng=random.Random(2))
    changes = {"split.strategy": "hash", "augment.copies_per_sample": 1, "synthesize.method": "pca"}
    with disk(tmp_path / "disk", size_mib=64) as folder:
        root, ballast = folder / "work", folder / "ballast"
        write_params(root, source=history.source.params(history.folder), changes=changes)
        before = run(root)
        for _ in range(5):
            history.edit()
        for stage in DATA_STAGES:
            fill(ballast)
            with pytest.raises(StageError, match=rf"^{stage.name}: .*No space left on device.*what was there before"):
                execute(stage, root=root, pipeline=PIPELINE, settings=SETTINGS)
            held = collect(stage, root=root)
            assert held == {name: before.outputs[name] for name in held}
            assert held
            ballast.unlink()
            execute(stage, root=root, pipeline=PIPELINE, settings=SETTINGS)
        outputs = {name: held for stage in DATA_STAGES for name, held in collect(stage, root=root).items()}
        assert not Outcome(outputs, "").difference(fresh(tmp_path / "fresh", history=history, changes=changes))
