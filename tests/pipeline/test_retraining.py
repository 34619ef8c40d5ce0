"""Drift trains again without a server: new data joins, and a training that is killed is done after all, once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from datamill.retraining.requests import is_training
from flows.workspace import create_workspace
from tests.datamill.retraining.test_guards import retrain_params
from tests.pipeline.test_own_data import point_at, write_shapes

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(1500)]

CODE = """
import sys
from pathlib import Path
from flows.retraining import consider, resume
from tests.verdicts import AT_RISK, START
root = Path(sys.argv[2])
decision = (
    consider(root, verdict=AT_RISK, num_new=100, now=START, window="w0") if sys.argv[1] == "consider" else resume(root)
)
print("result:", decision.result if decision else None)
"""


def start(verb: str, root: Path) -> subprocess.Popen[str]:
    environment = os.environ | {
        "PREFECT_HOME": str(root.parent / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DATAMILL_DEVICE": "cpu",
    }
    return subprocess.Popen(
        [sys.executable, "-c", CODE, verb, str(root)], stdout=subprocess.PIPE, text=True, env=environment
    )


def kill(process: subprocess.Popen[str]) -> None:
    """End the process and all it started, without a word of warning."""
    for member in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        member.send_signal(signal.SIGKILL)
    process.communicate()


def samples(root: Path) -> int:
    return int(json.loads((root / "reports/ingest.json").read_text())["num_samples"])


def test_a_training_that_is_killed_is_done_after_all_with_the_new_data_and_once(tmp_path):
    root = tmp_path / "shapes"
    create_workspace(root, example=None)
    write_shapes(root / "images")
    write_shapes(root / "incoming", num_per_class=30)
    for path in (root / "incoming").rglob("*"):
        os.utime(path, (time.time() - 60,) * 2)
    source = "  source:\n    kind: image_folder\n    path: images\n    group_from: none\n"
    point_at(root, source, "preprocess.image.height=24", "preprocess.image.width=24")
    params = retrain_params(include={"watched": "incoming", "into": "images"}).model_dump(mode="json")
    (root / "watch.yaml").write_text(yaml.safe_dump({"retrain": params}))

    first = start("consider", root)
    deadline = time.monotonic() + 300
    while not (root / "reports/ingest.json").exists():
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert is_training(root)
    kill(first)
    assert not is_training(root)
    assert samples(root) > 3 * (40 + 30) - 10  # the new ones are among them

    second = start("resume", root)
    assert "result: trained" in second.communicate(timeout=900)[0]
    assert (root / "models/export/model.onnx").exists()
    third = start("resume", root)
    assert "result: None" in third.communicate(timeout=120)[0]
