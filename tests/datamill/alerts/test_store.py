import sqlite3

import pytest

from datamill.alerts.episodes import State
from datamill.alerts.store import Store, severities_of
from datamill.errors import StageError
from tests.verdicts import AT_RISK, CALM, HOUR, MOVED, START, alert_params, reading

CONSOLE = {"kind": "console", "sends": "all", "digest": True}
PAGER = {"kind": "console", "sends": "pages", "digest": False}
PARAMS = alert_params({"all": CONSOLE, "pager": PAGER})


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    store.begin_channels(PARAMS.channels)
    return store


def record(store, seen, number, *, hours=None, params=PARAMS):
    now = START + (number if hours is None else hours) * HOUR
    return store.record(reading(seen, window=f"w{number}"), params=params, now=now)


def drained(store, channel):
    """Titles of what the channel gets, from where it stands."""
    titles = []
    while delivery := store.next_for(channel, severities=severities_of(PARAMS)[channel]):
        titles.append(delivery.message.title)
        store.succeed(channel, number=delivery.number)
    return titles


def test_messages_wait_in_order_for_each_channel_that_wants_them(store):
    record(store, MOVED, 0)
    record(store, AT_RISK, 1, hours=0.5)
    assert drained(store, "all") == [
        "flowers: input drift",
        "flowers: performance at risk",
        "flowers: prediction drift",
    ]
    assert drained(store, "pager") == ["flowers: performance at risk"]
    assert drained(store, "all") == []


def test_a_window_that_was_recorded_changes_nothing_even_much_later(store):
    assert len(record(store, AT_RISK, 0)) == 3
    assert record(store, AT_RISK, 0, hours=100) == ()
    assert record(store, CALM, 0, hours=100) == ()
    assert len(drained(store, "all")) == 3


def test_all_of_it_survives_a_new_process(tmp_path, store):
    record(store, AT_RISK, 0)
    again = Store(tmp_path)
    again.begin_channels(PARAMS.channels)
    assert len(again.open_episodes().episodes) == 3
    assert len(drained(again, "all")) == 3
    assert [window.window for window in again.windows_since(None)] == ["w0"]


def test_an_error_in_the_middle_changes_nothing(store, monkeypatch):
    monkeypatch.setattr("datamill.alerts.store._prune", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        record(store, AT_RISK, 0)
    assert store.open_episodes() == State()
    assert store.windows_since(None) == []
    assert drained(store, "all") == []


def test_a_new_channel_is_not_told_what_was_told_before(store):
    record(store, MOVED, 0)
    store.begin_channels(["late"])
    assert store.next_for("late", severities=("notice",)) is None
    record(store, AT_RISK, 1)
    assert store.next_for("late", severities=("page",)).message.severity == "page"


def test_a_channel_that_comes_to_want_more_is_not_told_the_past(store):
    record(store, MOVED, 0)
    assert store.next_for("pager", severities=("page",)) is None
    assert store.next_for("pager", severities=("page", "notice")) is None
    record(store, AT_RISK, 1)
    assert store.next_for("pager", severities=("page", "notice")).message.event == "raised"


def test_attempts_are_counted_before_they_end_and_forgotten_after_success(store):
    record(store, MOVED, 0)
    store.begin_attempt("all")
    store.fail("all", error="HTTP status 500", not_before=START + HOUR)
    delivery = store.next_for("all", severities=("notice",))
    assert (delivery.attempts, delivery.not_before) == (1, START + HOUR)
    (behind,) = store.waiting({"all": ("notice",), "pager": ("page",)})
    assert (behind.channel, behind.num_messages, behind.error) == ("all", 1, "HTTP status 500")
    store.succeed("all", number=delivery.number)
    record(store, AT_RISK, 1)
    delivery = store.next_for("all", severities=("notice",))
    assert (delivery.attempts, delivery.not_before) == (0, None)


def test_what_is_delivered_is_forgotten_in_time_and_what_waits_is_not(store):
    record(store, MOVED, 0)
    drained(store, "all")
    record(store, AT_RISK, 1)
    drained(store, "all")
    record(store, CALM, 40 * 24)
    with sqlite3.connect(store.folder / "alerts.db") as database:
        kept = [row[0] for row in database.execute("SELECT number FROM messages ORDER BY number")]
    database.close()
    assert kept == [2, 3, 4]  # from the page on, which the pager has not got
    assert drained(store, "pager") == ["flowers: performance at risk"]


def test_numbers_are_never_used_twice(store):
    for number in range(3):
        record(store, MOVED if number % 2 == 0 else CALM, number * 40 * 24, params=alert_params({}, calm_windows=1))
    store.begin_channels(["late"])
    record(store, AT_RISK, 3 * 40 * 24)
    assert store.next_for("late", severities=("page",)) is not None


def test_windows_of_a_digest_are_told_once(store):
    record(store, MOVED, 0)
    with store.digesting() as (windows, state, messages):
        assert [window.window for window in windows] == ["w0"]
        assert len(state.episodes) == 1
    assert messages == []
    record(store, CALM, 1)
    assert [window.window for window in store.windows_since(None)] == ["w1"]
    assert [window.window for window in store.windows_since(START)] == ["w0", "w1"]
    assert [window.window for window in store.windows_since(START + HOUR)] == ["w1"]


def test_a_digest_that_fails_is_told_the_next_time(store):
    record(store, MOVED, 0)
    with pytest.raises(RuntimeError), store.digesting():
        raise RuntimeError
    assert [window.window for window in store.windows_since(None)] == ["w0"]


def test_a_damaged_store_is_one_clear_error(tmp_path):
    (tmp_path / ".datamill/watch").mkdir(parents=True)
    (tmp_path / ".datamill/watch/alerts.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(
        StageError, match=r"alerts\.db: file is not a database; alerts cannot be kept\. If the file is damaged"
    ):
        Store(tmp_path)


def test_a_store_of_another_version_is_refused(tmp_path, store):
    with sqlite3.connect(store.folder / "alerts.db") as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(StageError, match="is of version 9, this datamill writes version 1"):
        Store(tmp_path)
