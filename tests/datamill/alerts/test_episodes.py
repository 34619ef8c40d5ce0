import dataclasses
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamill.alerts.episodes import State, step
from tests.verdicts import AT_RISK, CALM, HOUR, MOVED, START, outcome, reading, verdict


def play(windows, *, cooldown=HOUR, calm_windows=2, state=None):
    """Events by window for (verdict, hours since start[, model]) each; and the last state."""
    state = state or State()
    told = []
    for number, (seen, hours, *model) in enumerate(windows):
        read = reading(seen, window=f"w{number}", **({"model": model[0]} if model else {}))
        state, changes = step(state, read, now=START + hours * HOUR, cooldown=cooldown, calm_windows=calm_windows)
        told.append([(change.event, change.episode.topic) for change in changes])
    return told, state


def test_an_alert_is_raised_once_and_counted_within_the_cooldown():
    told, state = play([(MOVED, 0), (MOVED, 0.25), (MOVED, 0.5)])
    assert told == [[("raised", "input")], [("counted", "input")], [("counted", "input")]]
    (episode,) = state.episodes.values()
    assert (episode.num_windows, episode.num_counted) == (3, 2)


def test_after_the_cooldown_it_is_told_again_with_what_was_counted():
    state = play([(MOVED, 0), (MOVED, 0.5)])[1]
    state, (change,) = step(state, reading(MOVED, window="w2"), now=START + HOUR, cooldown=HOUR, calm_windows=2)
    assert (change.event, change.episode.num_counted, change.episode.num_windows) == ("repeated", 1, 3)
    (episode,) = state.episodes.values()
    assert (episode.num_counted, episode.sent_at) == (0, START + HOUR)


def test_recovery_is_told_once_after_enough_calm_windows_in_a_row():
    told, state = play([(MOVED, 0), (CALM, 1), (MOVED, 1.5), (CALM, 2), (CALM, 3), (CALM, 4)])
    assert told[1] == []
    assert told[3:] == [[], [("recovered", "input")], []]
    assert state.episodes == {}


def test_what_comes_back_after_its_recovery_is_raised_at_once():
    told, _ = play([(AT_RISK, 0), (CALM, 0.1), (CALM, 0.2), (AT_RISK, 0.3)])
    assert ("recovered", "performance-at-risk") in told[2]
    assert ("raised", "performance-at-risk") in told[3]


def test_a_notice_does_not_hold_back_the_page():
    told, _ = play([(MOVED, 0), (AT_RISK, 0.1)])
    assert told[1] == [("raised", "performance-at-risk"), ("counted", "input"), ("raised", "prediction")]


def test_a_window_that_cannot_be_judged_is_no_recovery():
    unknown = verdict(outcome(is_drift=False), is_at_risk=None)
    empty = verdict(is_at_risk=None, num_samples=0)
    told, state = play([(AT_RISK, 0), (unknown, 1), (empty, 2), (unknown, 3)])
    assert [topic for window in told[1:] for _, topic in window] == ["input"]
    assert "performance-at-risk" in {episode.topic for episode in state.episodes.values()}


def test_alerts_of_a_model_that_is_no_longer_watched_are_closed():
    told, state = play([(AT_RISK, 0, "champion-1"), (MOVED, 1, "champion-2")])
    assert told[1] == [
        ("raised", "input"),
        ("replaced", "performance-at-risk"),
        ("replaced", "input"),
        ("replaced", "prediction"),
    ]
    assert [episode.model for episode in state.episodes.values()] == ["champion-2"]


def test_a_clock_that_jumps_back_restarts_the_cooldown_and_sends_nothing_twice():
    told, _ = play([(MOVED, 1000), (MOVED, 0), (MOVED, 0.5), (MOVED, 1.0)])
    assert [event for window in told for event, _ in window] == ["raised", "counted", "counted", "repeated"]


SUBJECTS = ("a", "b", "c")
windows = st.lists(
    st.tuples(
        st.sets(st.sampled_from(SUBJECTS)),  # features that moved
        st.sampled_from([True, False, None]),  # at risk, or unknown
        st.floats(-48, 48),  # hours since the window before; negative where the clock jumps back
    ),
    max_size=40,
)


def seen_of(moved, is_at_risk):
    return verdict(
        *(outcome(subject=subject, is_drift=subject in moved) for subject in SUBJECTS), is_at_risk=is_at_risk
    )


@given(windows=windows, cooldown_h=st.floats(0, 24), calm_windows=st.integers(1, 4))
def test_no_alert_is_lost_and_none_told_twice_however_the_clock_jumps(windows, cooldown_h, calm_windows):
    state, hours = State(), 0.0
    told_at: dict[str, float] = {}  # topics that are open, and when they were last told of
    calm: dict[str, int] = {}
    for number, (moved, is_at_risk, elapsed) in enumerate(windows):
        hours += elapsed
        read = reading(seen_of(moved, is_at_risk), window=f"w{number}")
        now = START + hours * HOUR
        state, changes = step(state, read, now=now, cooldown=timedelta(hours=cooldown_h), calm_windows=calm_windows)
        events = {change.episode.topic: change.event for change in changes}
        assert len(events) == len(changes)  # at most one word about each
        for topic, is_seen, is_judged in (
            ("input", bool(moved), True),
            ("performance-at-risk", is_at_risk is True, is_at_risk is not None),
        ):
            event = events.get(topic)
            if is_seen:
                calm[topic] = 0
                assert event == "raised" if topic not in told_at else event in {"counted", "repeated"}
                if event != "raised":  # a time in the future counts as now
                    since_h = hours - min(told_at[topic], hours)
                    assert (
                        event == ("repeated" if since_h >= cooldown_h else "counted")
                        or abs(since_h - cooldown_h) < 1e-6
                    )
                told_at[topic] = min(told_at[topic], hours) if event == "counted" else hours
            elif is_judged and topic in told_at:
                calm[topic] += 1
                assert event == ("recovered" if calm[topic] == calm_windows else None)
                if event:
                    del told_at[topic]
            else:
                assert event is None
    assert {episode.topic for episode in state.episodes.values()} == set(told_at)


@given(windows=windows)
def test_the_state_survives_json(windows):
    state, hours = State(), 0.0
    for number, (moved, is_at_risk, elapsed) in enumerate(windows):
        hours += elapsed
        read = reading(seen_of(moved, is_at_risk), window=f"w{number}")
        state, _ = step(state, read, now=START + hours * HOUR, cooldown=HOUR, calm_windows=2)
    assert State.model_validate_json(state.model_dump_json()) == state


@pytest.mark.parametrize("hours", [0, 0.5, 100])
def test_equal_windows_give_equal_changes(hours):
    state = play([(AT_RISK, 0)])[1]
    one, other = (
        step(state, reading(AT_RISK, window="w1"), now=START + hours * HOUR, cooldown=HOUR, calm_windows=2)
        for _ in range(2)
    )
    assert one == other


def measured(*, is_at_risk):
    """A reading of labels that came later, of which the performance is known."""
    seen = verdict(outcome("label", "", is_drift=False), is_at_risk=is_at_risk)
    performance = dataclasses.replace(seen.performance, is_measured=True)
    whole = reading(dataclasses.replace(seen, performance=performance), window="w0 (labels)")
    return dataclasses.replace(whole, is_whole=False)


def follow(readings):
    """Events by reading, an hour apart."""
    state, told = State(), []
    for number, read in enumerate(readings):
        state, changes = step(state, read, now=START + number * HOUR, cooldown=100 * HOUR, calm_windows=2)
        told.append([(change.event, change.episode.topic) for change in changes])
    return told


def test_what_labels_have_shown_is_over_when_labels_show_it_and_not_when_estimates_do():
    calm = reading(CALM, window="w1")
    told = follow([measured(is_at_risk=True), calm, calm, calm, measured(is_at_risk=False), measured(is_at_risk=False)])
    assert told == [
        [("raised", "performance-at-risk")], [], [], [], [], [("recovered", "performance-at-risk")]
    ]  # fmt: skip


def test_labels_can_end_what_was_estimated_and_confirm_it_under_the_same_fingerprint():
    estimated = reading(verdict(is_at_risk=True), window="w1")
    assert follow([estimated, measured(is_at_risk=True)])[1] == [("counted", "performance-at-risk")]
    over = follow([estimated, measured(is_at_risk=False), measured(is_at_risk=False)])
    assert over[2] == [("recovered", "performance-at-risk")]


def test_labels_say_nothing_of_the_quality_of_the_data():
    broken = reading(verdict(outcome("quality", "", detector="reject_share")), window="w1")
    assert follow([broken, *[measured(is_at_risk=False)] * 3])[1:] == [[], [], []]
