"""Two flow runs of a real workspace, compared by every name they have, with artifacts out of DVC's cache and MLflow."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from datamill import dvcfile
from datamill.lineage import versions
from datamill.lineage.explaining import explain
from datamill.lineage.runs import find_run, records
from tasks import PIPELINE
from tests.pipeline.conftest import make_workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(root: Path, *words: str) -> str:
    environment = {
        **os.environ,
        "DATAMILL_TRACKING": "on",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def commit(root: Path, message: str) -> None:
    run(root, "git", "add", "-A")
    run(root, "git", "-c", "user.name=n", "-c", "user.email=n@example.org", "commit", "--quiet", "-m", message)


def test_two_flow_runs_are_compared_by_every_name_they_have(tmp_path):
    root = make_workspace(tmp_path / "project", example="breast-cancer")
    run(root, sys.executable, "-m", "flows.cli", "run", "--target", "evaluate")
    commit(root, "the first run")
    digests = versions.digests(dvcfile.read_lock(root))
    assert {path for path, digest in digests.items() if versions.digest_of(root / path) != digest} == set()

    run(root, sys.executable, "-m", "flows.cli", "run", "--target", "evaluate", "--set", "train.epochs=1")
    commit(root, "the second run")
    second, first = (folder.name for folder in records(root))
    kept = (root / "mlartifacts").glob("*/artifacts/lineage/run.json")
    (mlflow_run,) = (path.parents[2].name for path in kept if f'"key": "{first}"' in path.read_text())
    shutil.rmtree(root / "data")  # all of it is in the cache
    for before, after in ((first, second), ("HEAD~1", "HEAD"), (mlflow_run, second[:12])):
        runs = [find_run(text, stages=PIPELINE, root=root) for text in (before, after)]
        found = explain(*runs, metric="accuracy", stages=PIPELINE)
        assert [one.cause.title for one in found.ranked] == ["train.epochs 2 -> 1"]
        assert found.followed == ()

    shutil.rmtree(root / ".datamill/runs" / first)  # as on another machine: MLflow still has it
    assert find_run(mlflow_run, stages=PIPELINE, root=root).key == first
    assert "train.epochs 2 -> 1" in run(root, sys.executable, "-m", "flows.cli", "why", first, second)
