"""A real process, killed at random points; what reaches the channels is what reaches them without."""

import itertools
import json
import os
import random
import subprocess
import sys
import time

import pytest

from tests.datamill.alerts.announcing import work
from tests.verdicts import http_server


def ids(path):
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def run_and_kill(root, *, num_windows, num_kills, rng):
    """Processes until one ends by itself; returns how many were killed."""
    killed = 0
    while True:
        command = [sys.executable, "-m", "tests.datamill.alerts.announcing", str(root), str(num_windows)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)
        with process, process.stdout:
            assert process.stdout.readline() == b"ready\n"
            if killed < num_kills:
                time.sleep(rng.uniform(0, 0.4))
                process.kill()
            if process.wait(120) == 0:
                return killed
            killed += 1


@pytest.mark.parametrize(
    ("num_windows", "num_kills"), [(15, 3), pytest.param(200, 40, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_kills_at_random_points_lose_no_message_and_repeat_none_but_the_one_being_sent(
    tmp_path, monkeypatch, num_windows, num_kills
):
    with http_server() as undisturbed:
        monkeypatch.setenv("OPS_HOOK", undisturbed.url)
        work(tmp_path / "undisturbed", num_windows=num_windows)
    expected = ids(tmp_path / "undisturbed/alerts.jsonl")
    assert len(expected) == len(set(expected)) >= num_windows
    with http_server() as hook:
        monkeypatch.setenv("OPS_HOOK", hook.url)
        killed = run_and_kill(tmp_path / "killed", num_windows=num_windows, num_kills=num_kills, rng=random.Random(7))
    assert killed > 0
    assert ids(tmp_path / "killed/alerts.jsonl") == expected
    keys = [headers["Idempotency-Key"] for headers, _ in hook.requests]
    assert [key for key, _ in itertools.groupby(keys)] == expected
    assert len(keys) - len(expected) <= killed
