"""Alerts and requests through a real Prefect server, which is killed and started again."""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock, MattermostWebhook
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from flows.alerting import announce, deliver_waiting, send_digest
from flows.retraining import consider, resume
from tests.datamill.retraining.test_guards import retrain_params
from tests.verdicts import AT_RISK, CALM, HOUR, MOVED, alert_params, http_server

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(600)]

START = datetime.now(UTC) - 12 * HOUR  # a server forgets events that happened more than a week ago
EVENTS = {"kind": "prefect-event", "sends": "all", "digest": False}


class Server:
    """A Prefect server on 127.0.0.1 that can be killed and started again on the same data."""

    def __init__(self, home):
        self.home = home
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        environment = os.environ | {"PREFECT_HOME": str(self.home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=2).close()
                return
            except OSError:
                assert time.monotonic() < deadline, (self.home / "server.log").read_text()[-3000:]
                time.sleep(0.3)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def events(self, root):
        """(name, payload) of what the server has stored about a workspace, oldest first."""
        wanted = {
            "filter": {
                "resource": {"id": [f"datamill.workspace.{root.name}"]},
                "occurred": {"since": (START - HOUR).isoformat(), "until": (START + 24 * HOUR).isoformat()},
                "order": "ASC",
            },
            "limit": 50,
        }
        with get_client(sync_client=True) as client:
            found = client._client.post("/events/filter", json=wanted).raise_for_status().json()["events"]
        return [(one["event"], one["payload"]) for one in found]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("prefect"))
    server.start()
    with temporary_settings({PREFECT_API_URL: server.url, PREFECT_HOME: server.home}):
        yield server
    server.kill()


def configure(folder: Path, channels, **changes):
    """A workspace with these channels."""
    folder.mkdir(exist_ok=True)
    alerts = alert_params(channels, first_retry_s=0, budget_s=40, timeout_s=20, **changes).model_dump(mode="json")
    retrain = retrain_params(cooldown_h=0, max_trainings=100).model_dump(mode="json")
    (folder / "watch.yaml").write_text(yaml.safe_dump({"alerts": alerts, "retrain": retrain}))
    return folder


def tell(root, seen, number):
    announce(root, verdict=seen, window=f"w{number}", model="champion-1", links={}, now=START + number * HOUR)


def test_alerts_and_recoveries_are_events_with_labels_to_match_on(server, tmp_path):
    root = configure(tmp_path / "roses", {"events": EVENTS})
    tell(root, MOVED, 0)
    tell(root, CALM, 1)
    tell(root, CALM, 2)
    told = server.events(root)
    assert [name for name, _ in told] == ["datamill.alert.raised", "datamill.alert.recovered"]
    assert told[0][1]["topic"] == "input"
    assert told[0][1]["evidence"][0]["subject"] == "age"


def test_a_server_killed_at_any_point_loses_no_event_and_keeps_none_twice(server, tmp_path):
    root = configure(tmp_path / "tulips", {"events": EVENTS})
    for number in range(3):
        with killed_after(server, seconds=number * 0.7):
            tell(root, AT_RISK if number % 2 == 0 else CALM, number)
        deliver_waiting(root, now=START + number * HOUR)
    told = [payload for _, payload in server.events(root)]
    assert len({payload["id"] for payload in told}) == len(told)
    assert [(payload["event"], payload["topic"]) for payload in told] == [
        (event, topic) for event in ("raised", "repeated") for topic in ("performance-at-risk", "input", "prediction")
    ]


@contextmanager
def killed_after(server, *, seconds):
    """The server dies while the block runs, and is back when it ends."""
    timer = threading.Timer(seconds, server.kill)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        server.start()


def test_a_request_for_a_training_is_one_event_though_the_server_was_down(server, tmp_path):
    root = configure(tmp_path / "lilies", {})
    server.kill()
    decision = consider(root, verdict=AT_RISK, num_new=100, now=START, window="w0")
    assert "not told yet, tried again" in decision.reasons[-1]
    server.start()
    assert resume(root).result == "requested"
    assert resume(root) is None
    ((name, payload),) = server.events(root)
    assert name == "datamill.retrain.requested"
    assert payload["reasons"] == ["performance is at risk", "prediction ks wasserstein 0.5"]
    assert payload["root"] == str(root)


def test_notification_blocks_deliver_what_they_are_told_and_keep_their_secrets(server, tmp_path, capfd, caplog):
    caplog.set_level("DEBUG")
    blocks = {
        "chat": {"kind": "prefect-block", "sends": "pages", "digest": True, "block": "mattermost-webhook/ops"},
        "hook": {"kind": "prefect-block", "sends": "pages", "digest": False, "block": "custom-webhook/ops"},
        "gone": {"kind": "prefect-block", "sends": "pages", "digest": False, "block": "slack-webhook/gone"},
    }
    root = configure(tmp_path / "daisies", blocks)
    with http_server() as hook:
        port = int(hook.url.split("/")[2].partition(":")[2])
        MattermostWebhook(hostname="127.0.0.1", port=port, token="s3cr3ttoken").save("ops", overwrite=True)
        CustomWebhookNotificationBlock(
            name="ops", url=hook.url, json_data={"title": "{{subject}}", "told": "{{body}}"}
        ).save("ops", overwrite=True)
        tell(root, AT_RISK, 0)
        bodies = [body for _, body in hook.requests]
        (custom,) = [body for body in bodies if "told" in body]
        (chat,) = [body for body in bodies if "told" not in body]
        assert custom["title"] == "daisies: performance at risk"
        assert "accuracy estimated at 0.81" in custom["told"]
        assert "accuracy estimated at 0.81" in chat["text"]
        hook.answers = [500, 500]
        tell(root, AT_RISK, 1)
        deliver_waiting(root, now=START + 2 * HOUR)
        assert len(hook.requests) == 4
    shown = capfd.readouterr()
    assert "channel gone: 1 messages wait (ValueError)" in shown.err
    assert "s3cr3t" not in shown.out + shown.err
    assert "s3cr3t" not in caplog.text
    assert b"s3cr3t" not in (root / ".datamill/watch/alerts.db").read_bytes()


def test_the_digest_is_a_flow(server, tmp_path):
    root = configure(
        tmp_path / "asters", {"log": {"kind": "jsonl", "sends": "nothing", "digest": True, "path": "log.jsonl"}}
    )
    tell(root, MOVED, 0)
    assert send_digest(root=str(root)) is True
    assert send_digest(root=str(root)) is True  # the alert is still open
    assert len((root / "log.jsonl").read_text().splitlines()) == 2
