import json
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.alerts.channels import DeliveryError
from datamill.alerts.channels.building import build
from datamill.alerts.channels.jsonl import JsonLines
from datamill.alerts.delivery import deliver, pause, tell_waiting
from datamill.alerts.store import Store, Waiting
from tests.verdicts import AT_RISK, CALM, HOUR, MOVED, START, alert_params, http_server, reading

ALL = {"kind": "console", "sends": "all", "digest": True}
MINUTE = timedelta(minutes=1)


class Recorder:
    """Takes messages, or does with them what ``faults`` say, one for each attempt."""

    def __init__(self, *faults):
        self.taken, self.attempts = [], []
        self.faults = list(faults)

    def send(self, message, *, attempt):
        self.attempts.append(attempt)
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        if fault is not None:
            fault.wait(10)
        self.taken.append(message.title.removeprefix("flowers: "))


class Workspace:
    """A store, its channels, and a clock in minutes."""

    def __init__(self, root, *channels, **changes):
        self.root = root
        self.params = alert_params(dict.fromkeys(channels, ALL), **changes)
        self.store = Store(root)
        self.store.begin_channels(self.params.channels)
        self.num_windows = 0

    def see(self, seen):
        read = reading(seen, window=f"w{self.num_windows}")
        self.store.record(read, params=self.params, now=START + self.num_windows * HOUR)
        self.num_windows += 1

    def deliver(self, minutes=0.0, **channels):
        return deliver(self.store, channels=channels, params=self.params, now=START + minutes * MINUTE)


def test_every_channel_gets_every_message_once_and_in_order(tmp_path):
    workspace, one, two = Workspace(tmp_path, "one", "two"), Recorder(), Recorder()
    workspace.see(AT_RISK)
    for _ in range(3):
        assert workspace.deliver(one=one, two=two) == []
    assert one.taken == two.taken == ["performance at risk", "input drift", "prediction drift"]


def test_a_channel_that_fails_is_tried_again_later_and_later_and_gets_all_in_order(tmp_path):
    workspace = Workspace(tmp_path, "one")
    channel = Recorder(DeliveryError("HTTP status 500"), DeliveryError("HTTP status 500"))
    workspace.see(AT_RISK)
    attempts = {}
    for minutes in (0, 0.5, 1, 2, 2.5, 3):
        workspace.deliver(minutes, one=channel)
        attempts[minutes] = len(channel.attempts)
    assert attempts == {0: 1, 0.5: 1, 1: 2, 2: 2, 2.5: 2, 3: 5}
    assert channel.attempts == [1, 2, 3, 1, 1]
    assert channel.taken == ["performance at risk", "input drift", "prediction drift"]


def test_pauses_double_up_to_the_longest():
    params = alert_params()
    assert [pause(n, params=params) / MINUTE for n in (1, 2, 3, 6, 7, 1000)] == [1, 2, 4, 32, 60, 60]


def test_a_clock_that_jumps_back_does_not_hold_a_message_back(tmp_path):
    workspace, channel = Workspace(tmp_path, "one"), Recorder(DeliveryError("down"))
    workspace.see(MOVED)
    workspace.deliver(100_000, one=channel)
    workspace.deliver(0, one=channel)
    assert channel.taken == ["input drift"]


def test_one_channel_that_is_down_costs_the_others_nothing(tmp_path):
    workspace, good, bad = Workspace(tmp_path, "good", "bad"), Recorder(), Recorder(DeliveryError("HTTP status 503"))
    workspace.see(AT_RISK)
    assert workspace.deliver(good=good, bad=bad) == [Waiting("bad", 3, "HTTP status 503")]
    assert len(good.taken) == 3


def test_a_channel_that_hangs_is_left_to_itself_when_the_budget_is_spent(tmp_path):
    hanging = threading.Event()
    workspace = Workspace(tmp_path, "good", "bad", budget_s=0.5)
    good, bad = Recorder(), Recorder(hanging)
    workspace.see(AT_RISK)
    start = time.monotonic()
    (behind,) = workspace.deliver(good=good, bad=bad)
    assert time.monotonic() - start < 5
    assert (behind.channel, behind.num_messages) == ("bad", 3)
    assert len(good.taken) == 3
    hanging.set()


def test_a_verdict_waits_for_a_server_that_does_not_answer_no_longer_than_the_budget(tmp_path, monkeypatch):
    hook_params = {
        "kind": "webhook",
        "sends": "all",
        "digest": False,
        "url_variable": "OPS_HOOK",
        "token_variable": None,
    }
    params = alert_params({"hook": hook_params}, budget_s=0.5, timeout_s=30)
    store = Store(tmp_path)
    store.begin_channels(params.channels)
    store.record(reading(AT_RISK, window="w0"), params=params, now=START)
    with http_server(answers=[0]) as hook:
        monkeypatch.setenv("OPS_HOOK", hook.url)
        start = time.monotonic()
        deliver(store, channels=build(params, root=tmp_path), params=params, now=START)
        assert time.monotonic() - start < 5


def test_a_server_that_is_down_then_returns_500_then_recovers_gets_all_once_and_in_order(tmp_path, monkeypatch):
    hook_params = {
        "kind": "webhook",
        "sends": "all",
        "digest": False,
        "url_variable": "OPS_HOOK",
        "token_variable": None,
    }
    params = alert_params({"hook": hook_params}, first_retry_s=0)
    store = Store(tmp_path)
    store.begin_channels(params.channels)
    channels = build(params, root=tmp_path)

    def work(seen, number):
        store.record(reading(seen, window=f"w{number}"), params=params, now=START + number * HOUR)
        return deliver(store, channels=channels, params=params, now=START + number * HOUR)

    with http_server() as hook:
        port = int(hook.url.split("/")[2].partition(":")[2])
        monkeypatch.setenv("OPS_HOOK", hook.url)
    assert work(AT_RISK, 0)[0].error == "no answer (ConnectionRefusedError)"
    with http_server(answers=[500, 500], port=port) as hook:
        assert work(CALM, 1)[0].error == "HTTP status 500"
        assert work(CALM, 2)[0].error == "HTTP status 500"
        assert work(CALM, 3) == []
        assert hook.titles == [
            "flowers: performance at risk",
            "flowers: input drift",
            "flowers: prediction drift",
            "flowers: performance at risk (recovered)",
            "flowers: input drift (recovered)",
            "flowers: prediction drift (recovered)",
        ]
        assert len({headers["Idempotency-Key"] for headers, _ in hook.requests}) == 6


def test_while_another_process_delivers_this_one_waits_and_sends_nothing_twice(tmp_path):
    workspace, channel = Workspace(tmp_path, "one", budget_s=0.3), Recorder()
    workspace.see(MOVED)
    with FileLock(workspace.store.folder / "channel-one.lock"):
        assert workspace.deliver(one=channel) == [Waiting("one", 1, "")]
        assert channel.attempts == []
    assert workspace.deliver(one=channel) == []
    assert channel.taken == ["input drift"]


def test_the_words_of_a_library_are_not_kept_because_they_may_hold_a_secret(tmp_path, capsys):
    workspace, channel = Workspace(tmp_path, "one"), Recorder(ValueError("https://hooks.example.org/s3cr3t is down"))
    workspace.see(MOVED)
    waiting = workspace.deliver(one=channel)
    assert waiting == [Waiting("one", 1, "ValueError")]
    tell_waiting(waiting)
    assert capsys.readouterr().err == "  warning: channel one: 1 messages wait (ValueError) and are tried again later\n"
    assert b"s3cr3t" not in (workspace.store.folder / "alerts.db").read_bytes()


class Unreliable:
    """A channel that fails before, or dies after, a message is taken."""

    def __init__(self, channel, fates):
        self.channel, self.fates = channel, list(fates)

    def send(self, message, *, attempt):
        fate = self.fates.pop(0) if self.fates else "taken"
        if fate == "failed":
            raise DeliveryError("HTTP status 500")
        self.channel.send(message, attempt=attempt)
        if fate == "died":
            raise SystemExit  # ends the thread as a kill ends the process: nothing is remembered


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@settings(max_examples=12, deadline=None)
@given(
    windows=st.lists(st.sampled_from([AT_RISK, MOVED, CALM]), min_size=1, max_size=3),
    fates=st.lists(st.sampled_from(["taken", "failed", "died"]), max_size=8),
)
def test_whatever_fails_or_dies_a_file_holds_every_message_once_and_in_order(windows, fates):
    with tempfile.TemporaryDirectory() as name:
        workspace = Workspace(Path(name), "clean", "log", first_retry_s=0)
        clean, log = JsonLines(Path(name) / "clean.jsonl"), JsonLines(Path(name) / "log.jsonl")
        unreliable = Unreliable(log, fates)
        for seen in windows:
            workspace.see(seen)
            workspace.deliver(clean=clean, log=unreliable)
        while workspace.store.waiting({"log": ("page", "notice")}):
            workspace.deliver(log=unreliable)
        paths = [Path(name) / f"{one}.jsonl" for one in ("clean", "log")]
        expected, found = (path.read_text().splitlines() if path.exists() else [] for path in paths)
        assert found == expected
        assert len({json.loads(line)["id"] for line in found}) == len(found)


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_channel_out_of_the_file_is_left_alone_and_goes_on_where_it_was(tmp_path, name):
    workspace, channel = Workspace(tmp_path, "one", "two"), Recorder()
    workspace.see(MOVED)
    workspace.params = alert_params({})
    workspace.deliver(**{name: channel})
    assert channel.taken == []
    workspace.params = alert_params({name: ALL})
    workspace.deliver(**{name: channel})
    assert channel.taken == ["input drift"]
