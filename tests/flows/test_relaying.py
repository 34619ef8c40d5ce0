import time

import pytest

from flows import relaying
from flows.relaying import Relay


@pytest.fixture
def answers(monkeypatch):
    """What the server does at each attempt: an error, or an answer."""
    monkeypatch.setenv("DATAMILL_TRACKING", "on")
    monkeypatch.setattr(relaying, "INTERVAL_S", 0.01)
    monkeypatch.setattr(relaying, "RETRY_INTERVAL_S", 0.02)
    told: list[Exception | None] = []
    attempts: list[int] = []

    def pump(self):
        attempts.append(len(attempts))
        if told and (error := told.pop(0)):
            raise error
        return 0

    monkeypatch.setattr(Relay, "pump", pump)
    told.append(None)
    return told, attempts


def wait_for(attempts, count):
    deadline = time.monotonic() + 10
    while len(attempts) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_that_comes_back_while_the_flow_runs_is_sent_to_and_its_absence_is_told_once(
    answers, tmp_path, capsys
):
    told, attempts = answers
    told[:] = [ConnectionError("gone"), ConnectionError("gone"), None, None]
    with relaying.relaying(tmp_path):
        wait_for(attempts, 5)
    assert capsys.readouterr().err.count("does not answer") == 1


def test_a_server_that_goes_away_again_is_told_again(answers, tmp_path, capsys):
    told, attempts = answers
    told[:] = [ConnectionError("gone"), None, ConnectionError("gone"), None]
    with relaying.relaying(tmp_path):
        wait_for(attempts, 5)
    assert capsys.readouterr().err.count("does not answer") == 2


def test_what_is_left_is_sent_at_the_end_even_after_a_failure(answers, tmp_path, monkeypatch):
    monkeypatch.setattr(relaying, "RETRY_INTERVAL_S", 60.0)
    told, attempts = answers
    told[:] = [ConnectionError("gone")]
    start = time.monotonic()
    with relaying.relaying(tmp_path):
        wait_for(attempts, 1)
    assert len(attempts) == 2
    assert time.monotonic() - start < 10
