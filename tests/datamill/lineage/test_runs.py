import json
import shutil
import subprocess
from datetime import UTC, datetime

import pytest
import yaml

from datamill import catalog
from datamill.errors import DataError
from datamill.lineage import recording, versions
from datamill.lineage.explaining import explain
from datamill.lineage.runs import find_run, open_version, records
from datamill.settings import Settings
from datamill.tracking import Session
from tasks import PIPELINE
from tests.lineages import split_of, write_workspace

TEST_ROWS = [row for row in range(64) if split_of(row) == "test"]
STATUSES = {stage.name: "executed" for stage in PIPELINE}
IN_GIT = ("reports/evaluate.json",)


def git(root, *words):
    command = ["git", "-c", "user.name=n", "-c", "user.email=n@example.org", *words]
    subprocess.run(command, cwd=root, check=True, capture_output=True)


def store(root):
    """What DVC does after a run: put every output into the cache, and its digest into the lock file."""
    stages = {}
    for stage in PIPELINE:
        outs = []
        for artifact in (*stage.outputs.values(), stage.metrics):
            path = root / artifact.path
            if path.exists():
                digest = versions.digest_of(path)
                outs.append({"path": artifact.path, "md5": digest, "size": versions.size_of(path)})
                if not artifact.in_git:
                    _cache(root, path, digest)
        params = yaml.safe_load((root / "params.yaml").read_text())[stage.name]
        stages[stage.name] = {"cmd": f"python -m tasks {stage.name}", "params": {"params.yaml": {stage.name: params}}}
        stages[stage.name]["outs"] = outs
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def _cache(root, path, digest):
    target = root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        shutil.copyfile(path, target)
        return
    members = [(one.relative_to(path).as_posix(), one) for one in sorted(path.rglob("*")) if one.is_file()]
    for _, one in members:
        _cache(root, one, versions.digest_of(one))
    target.write_text(json.dumps([{"md5": versions.digest_of(one), "relpath": name} for name, one in members]))


def run_again(root, **changes):
    """The workspace after another run."""
    for name in ("data", "reports", "params.yaml"):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_workspace(root, **changes)
    store(root)


def record(root, key, *, hour):
    now = datetime(2026, 3, 1, hour, tzinfo=UTC)
    return recording.record(root, session=Session(key, "train ws"), statuses=STATUSES, stages=PIPELINE, now=now)


def find(text, root):
    return find_run(text, stages=PIPELINE, root=root, settings=Settings())


@pytest.fixture
def root(tmp_path):
    """A workspace with two runs on record and in Git, of which the second is what lies there."""
    root = write_workspace(tmp_path / "ws")
    git(root, "init", "--quiet")
    (root / ".gitignore").write_text("/data\n/.dvc\n/.datamill\n")
    store(root)
    record(root, "aaaa-first", hour=9)
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "-m", "the first run")
    run_again(root, wrong=TEST_ROWS[:6], drop=[0], params={"train": {"epochs": 3}})
    record(root, "abcd-second", hour=10)
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "-m", "the second run")
    return root


@pytest.mark.parametrize(("before", "after"), [("aaaa", "abcd"), ("HEAD~1", "HEAD"), ("aaaa-first", "workspace")])
def test_a_run_is_found_by_every_name_and_read_without_checking_out(root, before, after):
    found = explain(find(before, root), find(after, root), metric="accuracy", stages=PIPELINE)
    assert (found.value_a, found.value_b) == (1.0, 0.75)
    assert found.ranked[0].cause.title == "train.epochs 30 -> 3"
    assert found.sizes["in the source"] == (64, 63)
    assert not (root / "data").joinpath("ingest/samples").is_symlink()


def test_names_say_which_run_it_was(root):
    assert find("aaaa", root).name == "train ws of 2026-03-01 09:00 (aaaa-fir)"
    assert find("HEAD~1", root).name.endswith("(the first run)")


def test_outputs_in_git_are_read_from_the_record_or_from_the_commit(root):
    for text in ("aaaa", "HEAD~1"):
        assert json.loads(find(text, root).open("reports/evaluate.json").read_text())["accuracy"] == 1.0


def test_bytes_that_are_gone_say_what_brings_them_back(root):
    shutil.rmtree(root / ".dvc/cache")
    with pytest.raises(DataError, match=r"`dvc fetch --all-commits data/ingest/samples` brings it back if it was"):
        find("aaaa", root).open(catalog.INGEST_SAMPLES.path)


def test_without_a_cache_the_workspace_serves_where_its_bytes_are_the_same(root):
    shutil.rmtree(root / ".dvc/cache")
    assert find("abcd", root).open(catalog.SHARD_LEDGER.path) == root / catalog.SHARD_LEDGER.path


def test_what_a_run_never_made_is_said(root):
    with pytest.raises(
        DataError, match=r"train ws of .* has no models/train/best.safetensors: its dvc.lock does not name"
    ):
        find("aaaa", root).open(catalog.TRAIN_BEST.path)


def test_an_unknown_run_lists_what_was_searched(root):
    with pytest.raises(DataError, match=r"no run is called 'zzz': searched runs on record \(abcd-second, aaaa-first\)"):
        find("zzz", root)


def test_a_beginning_that_fits_two_runs_asks_for_more(root):
    record(root, "abcd-third", hour=11)
    with pytest.raises(DataError, match=r"2 runs on record begin with 'abcd': abcd-third, abcd-second"):
        find("abcd", root)


def test_a_commit_before_any_run_is_no_run(tmp_path):
    root = write_workspace(tmp_path / "ws")
    git(root, "init", "--quiet")
    git(root, "add", "params.yaml")
    git(root, "commit", "--quiet", "-m", "begin")
    with pytest.raises(DataError, match=r"has no dvc.lock; nothing was run and committed there"):
        find("HEAD", root)


def test_the_champion_is_the_run_its_lock_file_came_from(root):
    with pytest.raises(DataError, match="there is no champion yet"):
        find("champion", root)
    kept = root / "models/champions/0123456789ab"
    kept.mkdir(parents=True)
    for name in ("dvc.lock", "params.yaml"):
        shutil.copyfile(root / ".datamill/runs/aaaa-first" / name, kept / name)
    (root / "models/champion").symlink_to("champions/0123456789ab")
    assert find("champion", root).key == find("0123456", root).key == "aaaa-first"
    shutil.rmtree(root / ".datamill/runs/aaaa-first")
    champion = open_version(kept, stages=PIPELINE, root=root)
    assert (champion.key, champion.name) == ("", "model 0123456789ab")
    assert champion.params["train"]["epochs"] == 30
    assert champion.open(catalog.SHARD_LEDGER.path).is_file()


def test_a_damaged_record_says_how_to_forget_it(root):
    (root / ".datamill/runs/aaaa-first/run.json").write_text("{")
    with pytest.raises(DataError, match=r"aaaa-first/run.json is damaged; remove .*aaaa-first to forget that run"):
        find("abcd", root)


def test_the_latest_record_comes_first(root):
    assert [folder.name for folder in records(root)] == ["abcd-second", "aaaa-first"]


def test_a_record_holds_who_when_from_which_commit_and_with_which_libraries(root):
    about = json.loads((root / ".datamill/runs/abcd-second/run.json").read_text())
    assert about["ended_at"] == "2026-03-01T10:00:00+00:00"
    assert len(about["revision"]) == 40
    assert about["statuses"]["train"] == "executed"
    assert {"python", "numpy", "torch"} <= set(about["versions"])
