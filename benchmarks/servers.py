"""The servers of a deployment as a benchmark meets them: deployed to, asked, and told by."""

import base64
import json
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.deployments import services as deployment
from tests.deployments.services import ROOT, Services

SICK_S = 120.0  # for a server that has just come back
DEAD_AFTER_S, HEARTBEAT_S = 90, 30  # deployments/automations.yaml says 600, for heartbeats that come every 180
WEBHOOK = "LOOP_WEBHOOK"  # names the web server's address in the worker's environment


class Inbox:
    """A web server that keeps what it is sent.

    Attributes:
        url: Its address.
        arrived: Every message with the time (monotonic, seconds) when it came.
    """

    def __init__(self) -> None:
        """Listen; ``close`` ends it."""
        self.arrived: list[tuple[float, dict[str, Any]]] = []
        self._server = ThreadingHTTPServer((deployment.HOST, 0), self._receiver())
        self.url = f"http://{deployment.HOST}:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of(self, workspace: str) -> list[tuple[float, dict[str, Any]]]:
        return [(at, message) for at, message in self.arrived if message["workspace"] == workspace]

    def _receiver(self) -> type[BaseHTTPRequestHandler]:
        arrived = self.arrived

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                arrived.append((time.monotonic(), json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: Any) -> None: ...

        return Receiver


def deploy(services: Services) -> None:
    """Everything of `deployments/`, as its README says; schedules rest, and the dead are noticed sooner."""
    readme = (ROOT / "deployments/README.md").read_text()
    (script,) = re.findall(r"```sh\n([^`]*prefect work-pool create.*?)```", readme, flags=re.DOTALL)
    automations = services.folder / "automations.yaml"
    text = (ROOT / "deployments/automations.yaml").read_text()
    automations.write_text(text.replace("within: 600", f"within: {DEAD_AFTER_S}"))
    script = script.replace(":4200", f":{services.ports['prefect']}")
    script = script.replace("deployments/automations.yaml", str(automations))
    services.shell(script, PREFECT_PASSWORD=services.passwords["prefect"])
    for one in ask(services, "/deployments/filter"):
        ask(services, f"/deployments/{one['id']}/pause_deployment")


def start_worker(services: Services, root: Path, *, inbox: Inbox) -> None:
    """A worker that serves ``root``."""
    told = {WEBHOOK: inbox.url, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S)}
    services.start_worker(workspace=root, **told)


def ask(services: Services, path: str, **question: Any) -> Any:
    """What Prefect answers, with patience for a server that has just come back."""
    deadline = time.monotonic() + SICK_S
    while True:
        try:
            return services.ask_prefect(path, **question)
        except OSError as error:
            is_wrong = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if is_wrong or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def start_deployment(services: Services, name: str) -> None:
    (known,) = ask(services, "/deployments/filter", deployments={"name": {"any_": [name]}})
    key = f"loop-{time.monotonic_ns()}"  # an answer that is lost starts no second run
    ask(services, f"/deployments/{known['id']}/create_flow_run", idempotency_key=key)


def events(services: Services, workspace: str, *, since: datetime) -> list[dict[str, Any]]:
    """Alerts that Prefect has as events."""
    wanted = {
        "event": {"name": ["datamill.alert.raised"]},
        "resource": {"id": [f"datamill.workspace.{workspace}"]},
        "occurred": {"since": (since - timedelta(hours=1)).isoformat()},
    }
    return [one["payload"] for one in ask(services, "/events/filter", filter=wanted)["events"]]


def trainings(services: Services, *, since: datetime) -> list[dict[str, Any]]:
    """Flow runs that an automation started, less those that died."""
    wanted = {"start_time": {"after_": since.isoformat()}, "state": {"type": {"not_any_": ["CRASHED"]}}}
    runs = ask(services, "/flow_runs/filter", flow_runs=wanted, flows={"name": {"any_": ["train-model"]}})
    return [run for run in runs if (run["created_by"] or {}).get("type") == "AUTOMATION"]


def at_work(services: Services) -> bool:
    """Whether a flow runs; one that is left behind would hold the place of the next loop's."""
    return bool(ask(services, "/flow_runs/filter", flow_runs={"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}))


def model_versions(services: Services, name: str) -> list[dict[str, Any]]:
    """What MLflow's registry has of a model; nothing while it does not answer."""
    query = urllib.parse.urlencode({"filter": f"name='{name}'"})
    credentials = base64.b64encode(f"admin:{services.passwords['mlflow']}".encode()).decode()
    url = f"{services.mlflow_url}/api/2.0/mlflow/model-versions/search?{query}"
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {credentials}"})  # noqa: S310 - our own
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            found: list[dict[str, Any]] = json.load(answer).get("model_versions", [])
            return found
    except OSError:
        return []
