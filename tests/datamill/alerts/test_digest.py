from datetime import UTC, datetime

import pytest

from datamill.alerts.digest import is_quiet, message_of, since_time, summarise
from datamill.alerts.episodes import State
from datamill.alerts.store import Store, Waiting
from datamill.errors import ParamsError
from tests.verdicts import AT_RISK, CALM, HOUR, MOVED, START, alert_params, reading


def seen(tmp_path, *verdicts):
    """What a digest is made of, after windows half an hour apart."""
    store = Store(tmp_path)
    for number, one in enumerate(verdicts):
        store.record(reading(one, window=f"w{number}"), params=alert_params(), now=START + number * HOUR / 2)
    return store.windows_since(None), store.open_episodes()


def test_a_digest_tells_windows_notices_repeats_open_alerts_and_recoveries(tmp_path):
    windows, state = seen(tmp_path, MOVED, MOVED, MOVED, AT_RISK, MOVED, MOVED, MOVED)
    text = summarise(windows, state=state, waiting=[Waiting("ops", 2, "HTTP status 500")])
    cooldown, size = "them within the cool-down", "wasserstein 0.5, p 1e-06"
    assert text.splitlines() == [
        "7 windows of 700 samples judged (from w0 to w6); in 7 of them something moved.",
        "",
        "Open:",
        "- notice: input drift since w0, seen in 7 windows, 0 calm since (champion-1)",
        "",
        "Moved:",
        f"- notice: input drift in 7 windows, 3 of {cooldown}; input ks of age: {size}",
        f"- page: performance at risk in 1 window, 0 of {cooldown}; input ks of age: {size}",
        f"- notice: prediction drift in 1 window, 0 of {cooldown}; prediction ks: {size}",
        "",
        "Over:",
        "- page: performance at risk, recovered in w5",
        "- notice: prediction drift, recovered in w5",
        "",
        "Not delivered:",
        "- ops: 2 messages wait, HTTP status 500",
    ]


def test_labels_of_earlier_windows_are_counted_apart(tmp_path):
    windows, state = seen(tmp_path, CALM, CALM)
    late = windows[0].model_copy(update={"window": "w0 (labels)", "is_whole": False})
    assert summarise([*windows, late], state=state, waiting=[]).splitlines()[0] == (
        "2 windows of 200 samples judged (from w0 to w1); in 0 of them something moved. "
        "Labels of 1 earlier window were judged."
    )
    alone = summarise([late], state=State(), waiting=[])
    assert alone == "No window was judged. Labels of 1 earlier window were judged."


def test_a_digest_of_nothing_says_so_and_is_quiet():
    assert summarise([], state=State(), waiting=[]) == "No window was judged."
    assert is_quiet([], state=State(), waiting=[])


def test_calm_windows_are_quiet_and_anything_else_is_not(tmp_path):
    windows, state = seen(tmp_path / "calm", CALM, CALM)
    assert is_quiet(windows, state=state, waiting=[])
    assert not is_quiet(windows, state=state, waiting=[Waiting("ops", 1, "")])
    windows, state = seen(tmp_path / "moved", MOVED, CALM, CALM)
    assert state == State()
    assert not is_quiet(windows, state=state, waiting=[])


def test_the_message_of_a_digest_is_for_channels_that_want_digests(tmp_path):
    windows, _ = seen(tmp_path, CALM)
    message = message_of("text", workspace="flowers", windows=windows, now=START)
    assert (message.event, message.severity, message.title) == ("digest", "digest", "flowers: digest of 1 window")


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T08:00", START),
        ("2026-03-01T09:00+01:00", START),
        ("36h", datetime(2026, 2, 27, 20, tzinfo=UTC)),
        ("1.5d", datetime(2026, 2, 27, 20, tzinfo=UTC)),
    ],
)
def test_since_is_a_time_or_how_long_ago(text, time):
    assert since_time(text, now=START) == time


@pytest.mark.parametrize("text", ["yesterday", "36", "-1d", ""])
def test_a_since_that_names_no_time_says_what_does(text):
    with pytest.raises(ParamsError, match="use a time as 2026-03-01T08:00, or how long ago as 36h or 7d"):
        since_time(text, now=START)
