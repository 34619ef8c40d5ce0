import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from datamill.lineage import emitting
from datamill.lineage.emitting import Address, Teller
from datamill.tracking import Session
from tasks import PIPELINE
from tests.lineages import write_workspace

SPLIT = next(stage for stage in PIPELINE if stage.name == "split")


@contextmanager
def endpoint(*, status=201, delay_s=0.0, location=None):
    """A server that answers every event alike; yields its address and what it got."""
    got = []
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, self.headers.get("Authorization"), json.loads(body)))
            ended.wait(delay_s)
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def teller(root, **variables):
    return Teller(SPLIT, root=root, session=Session("flow-1", "x"), variables=variables)


def lines(root):
    path = root / emitting.FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def root(tmp_path):
    return write_workspace(tmp_path / "ws")


def test_without_an_address_events_go_to_the_workspaces_file(root):
    one = teller(root)
    one.start()
    one.complete()
    assert [event["eventType"] for event in lines(root)] == ["START", "COMPLETE"]
    assert len({event["run"]["runId"] for event in lines(root)}) == 1


def test_a_failure_and_an_interruption_have_names_of_their_own(root):
    for error in (ValueError("broken"), KeyboardInterrupt()):
        one = teller(root)
        one.fail(error)
    assert [event["eventType"] for event in lines(root)] == ["FAIL", "ABORT"]


def test_events_reach_an_endpoint_in_order_with_the_key_and_leave_no_file(root, capsys):
    with endpoint() as (url, got):
        one = teller(root, OPENLINEAGE_URL=url, OPENLINEAGE_API_KEY="s3cret", OPENLINEAGE_NAMESPACE="shop")
        one.start()
        one.complete()
    assert [(path, key, event["eventType"]) for path, key, event in got] == [
        ("/api/v1/lineage", "Bearer s3cret", "START"),
        ("/api/v1/lineage", "Bearer s3cret", "COMPLETE"),
    ]
    assert got[0][2]["job"]["namespace"] == "shop"
    assert lines(root) == []
    assert "s3cret" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("status", [401, 500])
def test_an_endpoint_that_refuses_is_told_once_and_loses_nothing(root, capsys, status):
    with endpoint(status=status) as (url, _):
        one = teller(root, OPENLINEAGE_URL=url, OPENLINEAGE_API_KEY="s3cret")
        one.start()
        one.complete()
    assert [event["eventType"] for event in lines(root)] == ["START", "COMPLETE"]
    told = capsys.readouterr().err
    assert told.count("warning: OpenLineage at") == 1
    assert f"{status}" in told
    assert "s3cret" not in told


def test_an_endpoint_that_hangs_costs_a_stage_seconds_and_loses_nothing(root, monkeypatch, capsys):
    monkeypatch.setattr(emitting, "PATIENCE_S", 0.5)
    with endpoint(delay_s=30) as (url, _):
        one = teller(root, OPENLINEAGE_URL=url)
        one.start()
        start = time.monotonic()
        one.complete()
        assert time.monotonic() - start < 5
    assert [event["eventType"] for event in lines(root)] == ["START", "COMPLETE"]
    assert "no answer within 0.5 s" in capsys.readouterr().err


def test_an_address_where_nobody_listens_loses_nothing_and_shows_no_password(root, capsys):
    one = teller(root, OPENLINEAGE_URL="http://me:hidden@127.0.0.1:9")
    one.start()
    one.complete()
    assert len(lines(root)) == 2
    assert "hidden" not in capsys.readouterr().err


def test_a_redirect_is_not_followed_because_the_key_is_for_one_host(root):
    with endpoint() as (elsewhere, stolen), endpoint(status=307, location=elsewhere) as (url, _):
        one = teller(root, OPENLINEAGE_URL=url, OPENLINEAGE_API_KEY="s3cret")
        one.complete()
    assert stolen == []
    assert len(lines(root)) == 1


def test_an_address_of_another_kind_is_told_and_opens_nothing(root, capsys):
    one = teller(root, OPENLINEAGE_URL="file:///etc")
    one.complete()
    assert "OPENLINEAGE_URL must begin with http" in capsys.readouterr().err
    assert len(lines(root)) == 1


def test_disabled_sends_nothing_anywhere(root):
    one = teller(root, OPENLINEAGE_DISABLED="true")
    one.start()
    one.complete()
    assert lines(root) == []


def test_a_damaged_workspace_stops_no_stage(root, capsys):
    (root / "dvc.lock").write_text("stages: [")
    one = teller(root)
    one.start()
    one.complete()
    assert "warning: OpenLineage" in capsys.readouterr().err


def test_a_large_file_is_put_aside(root, monkeypatch):
    monkeypatch.setattr(emitting, "MAX_FILE_BYTES", 10)
    for number in range(3):
        emitting.append(root / emitting.FILE, [{"number": number}])
    assert lines(root) == [{"number": 2}]
    assert json.loads((root / f"{emitting.FILE}.1").read_text()) == {"number": 1}


def test_the_key_is_in_no_representation():
    address = Address.from_environment({"OPENLINEAGE_URL": "http://host/", "OPENLINEAGE_API_KEY": "s3cret"})
    assert address.url == "http://host/api/v1/lineage"
    assert "s3cret" not in repr(address)
