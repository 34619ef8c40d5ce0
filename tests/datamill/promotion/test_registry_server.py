"""The registry behind a real MLflow server that goes away and comes back."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import mlflow
import numpy as np
import onnxruntime
import pytest

from datamill.promotion import history
from tests.datamill.promotion.test_promoting import GOOD, WORSE, promote, rollback

pytestmark = [
    pytest.mark.services,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
]


class MlflowServer:
    """``mlflow server`` on SQLite, artifacts through the server, on a free port of this machine."""

    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._folder = folder

    def start(self):
        store, artifacts = f"sqlite:///{self._folder}/server.db", str(self._folder / "artifacts")
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--backend-store-uri", store, "--artifacts-destination", artifacts, "--workers", "1"]
        log = (self._folder / "server.log").open("ab")
        self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        log.close()
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            with suppress(OSError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                return
            time.sleep(0.3)
        raise AssertionError((self._folder / "server.log").read_text()[-2000:])

    def kill(self):
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=30)


@pytest.fixture
def server(tmp_path):
    server = MlflowServer(tmp_path)
    server.start()
    yield server
    server.kill()


def test_a_server_that_was_killed_in_between_knows_everything_in_the_end(server, tmp_path, monkeypatch):
    monkeypatch.setenv("DATAMILL_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a busy machine is no dead server
    root = tmp_path / "flowers"
    first = promote(root, bias=WORSE).challenger
    server.kill()
    second = promote(root, bias=GOOD).challenger
    server.start()
    rollback(root)
    client = mlflow.MlflowClient(server.uri)
    found = {one.tags["datamill.version"]: one for one in client.search_model_versions("name = 'flowers'")}
    assert set(found) == {first, second}
    model = client.get_registered_model("flowers")
    assert {alias: str(number) for alias, number in model.aliases.items()} == {"champion": str(found[first].version)}
    assert model.tags["datamill.history"] == history.read(root)[-1]["seal"]
    told = {key for one in found.values() for key in one.tags if key.startswith("datamill.decision.")}
    assert told == {f"datamill.decision.00000{number}" for number in (1, 2, 3)}
    assert list((root / ".datamill/spool").iterdir()) == []
    local = mlflow.artifacts.download_artifacts("models:/flowers@champion", dst_path=str(tmp_path / "there"))
    example = np.load(root / "models/champion/example.npy")
    answers = [
        onnxruntime.InferenceSession(path).run(["probabilities"], {"input": example})[0]
        for path in (f"{local}/model.onnx", root / "models/champion/model.onnx")
    ]
    assert np.array_equal(*answers)
