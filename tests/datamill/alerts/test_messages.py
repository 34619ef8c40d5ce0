from datamill.alerts.episodes import State, step
from datamill.alerts.messages import Message, message_of
from tests.verdicts import AT_RISK, CALM, HOUR, MOVED, START, outcome, reading, verdict


def messages(*seen):
    """What is told of windows an hour apart."""
    state, told = State(), []
    for number, one in enumerate(seen):
        read, now = reading(one, window=f"w{number}"), START + number * HOUR
        state, changes = step(state, read, now=now, cooldown=HOUR, calm_windows=1)
        told += [message_of(change, reading=read, now=now) for change in changes if change.is_told]
    return told


def test_a_page_says_how_good_the_model_is_what_moved_and_where_to_look():
    page = next(message for message in messages(AT_RISK) if message.severity == "page")
    assert page.title == "flowers: performance at risk"
    assert page.text.splitlines() == [
        "Model champion-1, window w0, 100 samples.",
        "accuracy estimated at 0.81 (0.78 to 0.84); on the reference 0.94.",
        "2 of 2 tests and checks moved:",
        "- input ks of age: wasserstein 0.5, p 1e-06",
        "- prediction ks: wasserstein 0.5, p 1e-06",
        "Report: reports/w0.html",
        f"Alert {page.fingerprint}",
    ]


def test_a_repetition_says_how_often_it_was_seen_and_a_recovery_what_is_over():
    raised, repeated, recovered = messages(MOVED, MOVED, CALM)
    assert [raised.title, repeated.title, recovered.title] == [
        "flowers: input drift",
        "flowers: input drift (goes on)",
        "flowers: input drift (recovered)",
    ]
    assert "Seen in 2 windows since w0; 0 of them were counted" in repeated.text
    assert "Calm for 1 windows. It was seen in 2 windows, from w0 to w1." in recovered.text


def test_many_outcomes_are_counted_and_not_listed():
    (message,) = messages(verdict(*(outcome(subject=f"f{n}") for n in range(64))))
    assert "64 of 64 tests and checks moved:" in message.text
    assert "- and 54 more, in the report" in message.text
    assert len(message.text) < 1500


def test_every_message_has_an_id_of_its_own_and_survives_json():
    told = messages(AT_RISK, AT_RISK, CALM, AT_RISK)
    assert len(told) == 12
    assert len({message.id for message in told}) == 12
    assert all(len(message.id) == 32 for message in told)
    assert [Message.model_validate_json(message.model_dump_json()) for message in told] == told
