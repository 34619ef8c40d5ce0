import json
import time
import urllib.request

import numpy as np
import pytest

from benchmarks.loop import Found, figures_of, tally, write_rows
from benchmarks.servers import Inbox

STEPS = {"alert": 9.0, "retrain": 30.0, "decision": 80.0, "challenger": 81.0}


def missed(found: Found) -> list[str]:
    return [figure.name for figure in figures_of(found) if not figure.holds]


def test_an_alert_that_a_channel_lacks_is_lost_and_one_that_came_again_was_sent_twice():
    told = {"log": ["1 input", "1 label"], "web server": ["1 input", "1 input"], "Prefect": []}
    assert tally({"1 input", "1 label"}, told) == (3, 1)
    assert tally({"1 input"}, {"log": ["1 input"]}) == (0, 0)


def test_a_whole_loop_holds_every_bar():
    assert missed(Found("", STEPS, alerts=5, retrains=1)) == []
    assert missed(Found("worker", STEPS, alerts=5, retrains=1, kills=2)) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"seconds": STEPS | {"alert": 20.5}}, "drop to alert s (and 2 s to settle)"),
        ({"seconds": {"alert": 9.0}}, "steps"),
        ({"alerts": 0}, "alerts"),
        ({"lost": 1}, "alerts lost"),
        ({"twice": 1}, "alerts sent twice"),
        ({"retrains": 0}, "retrains off one"),
        ({"retrains": 2}, "retrains off one"),
    ],
)
def test_each_fault_misses_its_bar(changes, name):
    assert missed(Found(**{"victim": "", "seconds": STEPS, "alerts": 5, "retrains": 1} | changes)) == [name]


def test_a_service_that_was_not_killed_twice_proves_nothing():
    assert missed(Found("worker", STEPS, alerts=5, retrains=1, kills=1)) == ["worker killed: times"]


def test_the_web_server_keeps_what_it_is_sent_apart_by_workspace():
    inbox = Inbox()
    try:
        for workspace in ("a", "b"):
            body = json.dumps({"workspace": workspace}).encode()
            urllib.request.urlopen(urllib.request.Request(inbox.url, data=body), timeout=10).close()
        ((at, message),) = inbox.of("b")
    finally:
        inbox.close()
    assert message == {"workspace": "b"}
    assert 0 <= time.monotonic() - at < 10


def test_a_moved_batch_lies_elsewhere_with_the_same_classes(tmp_path):
    for name, shift in (("first", 0.0), ("moved", 3.0)):
        write_rows(tmp_path / name, count=200, seed=1, shift=shift)
    first, moved = (np.genfromtxt(tmp_path / name, delimiter=",", skip_header=1)[:, :3] for name in ("first", "moved"))
    np.testing.assert_allclose((moved - first).mean(axis=0), [3.0, 0.0, 3.0], atol=1e-5)
    assert (tmp_path / "moved").read_text().count("yes") == 100
