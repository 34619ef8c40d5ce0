"""The two web pages: MLflow's UI and Prefect's server, on this machine only."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from datamill.errors import StageError
from datamill.settings import STATE, Settings
from datamill.tracking import redact, tracking_uri

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0


def serve(*, root: Path, mlflow_port: int, prefect_port: int) -> None:
    """Start both, print their addresses once they answer, and stop both at Ctrl-C.

    Raises:
        StageError: One does not start; names its log file.
    """
    signal.signal(signal.SIGTERM, _interrupt)  # a service manager's stop is a Ctrl-C
    uri = tracking_uri(root=root, settings=Settings.from_environment())
    logs = root.resolve() / STATE / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    prefect = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(prefect_port)]
    running = {f"Prefect  http://{HOST}:{prefect_port}": _start(prefect, log=logs / "prefect.log", uri=uri)}
    pages = {f"http://{HOST}:{prefect_port}/api/health": logs / "prefect.log"}
    if uri.startswith("http"):
        print(f"MLflow   {redact(uri)} (already served there)", flush=True)
    else:
        mlflow = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(mlflow_port)]
        running[f"MLflow   http://{HOST}:{mlflow_port}"] = _start(mlflow, log=logs / "mlflow.log", uri=uri)
        pages[f"http://{HOST}:{mlflow_port}/health"] = logs / "mlflow.log"
    try:
        for (name, process), (page, log) in zip(running.items(), pages.items(), strict=True):
            _wait(page, process=process, log=log)
            print(name, flush=True)
        print("stop both with Ctrl-C", flush=True)
        while all(process.poll() is None for process in running.values()):
            time.sleep(0.5)
        raise StageError(f"a server stopped by itself; see {logs}")
    except KeyboardInterrupt:
        print("stopped", flush=True)
    finally:
        for process in running.values():
            _stop(process)


def _start(command: list[str], *, log: Path, uri: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_BACKEND_STORE_URI": uri,  # as an argument, every user of the machine could read its password
    }
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and the processes it started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_TIMEOUT_S)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _wait(page: str, *, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(page, timeout=2):  # noqa: S310 - our own http address
            return
        time.sleep(0.3)
    raise StageError(f"{page} does not answer; is the port taken? The server's own words are in {log}")
