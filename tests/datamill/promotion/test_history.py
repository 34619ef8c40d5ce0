"""The history of decisions."""

import json
from datetime import UTC, datetime

import pytest

from datamill.errors import DataError
from datamill.promotion import history
from datamill.promotion.reasons import Reason

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def append(root, action, to, *, came_from=None):
    reasons = [Reason("headline", True, "accuracy 0.9", "any", {"challenger": 0.9})]
    return history.append(
        root,
        action=action,
        who="Ada",
        now=NOW,
        came_from=came_from,
        to=to,
        because="so",
        reasons=reasons,
        evidence="e" * 64,
    )


@pytest.fixture
def root(tmp_path):
    for action, to in [("promoted", "a"), ("refused", "x"), ("promoted", "b"), ("forced", "c")]:
        append(tmp_path, action, to)
    return tmp_path


def lines(root):
    return (root / history.HISTORY).read_text().splitlines()


def rewrite(root, edited):
    (root / history.HISTORY).write_text("\n".join(edited) + "\n")


def test_an_entry_says_who_when_from_what_to_what_and_why(tmp_path):
    entry = append(tmp_path, "promoted", "b", came_from="a")
    assert history.read(tmp_path) == [entry]
    assert {key: entry[key] for key in ("number", "time", "who", "action", "from", "to", "because")} == {
        "number": 1,
        "time": "2026-01-02T03:04:05Z",
        "who": "Ada",
        "action": "promoted",
        "from": "a",
        "to": "b",
        "because": "so",
    }
    (reason,) = entry["reasons"]
    assert reason["numbers"] == {"challenger": 0.9}


def test_appending_leaves_the_lines_before_as_they_are(root):
    before = lines(root)
    append(root, "refused", "y")
    assert lines(root)[:4] == before
    assert [entry["number"] for entry in history.read(root)] == [1, 2, 3, 4, 5]


def edit(line):
    return json.dumps(json.loads(line) | {"who": "Eve"})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda old: [old[0], edit(old[1]), *old[2:]], "line 2 was edited: its seal does not fit"),
        (lambda old: [*old[:3], edit(old[3])], "line 4 was edited: its seal does not fit"),
        (lambda old: [old[0], *old[2:]], "line 2 does not follow the line before"),
        (lambda old: old[1:], "line 1 does not follow the line before"),
        (lambda old: [old[0], old[2], old[1], old[3]], "line 2 does not follow the line before"),
        (lambda old: [*old, old[3]], "line 5 does not follow the line before"),
        (lambda old: [*old[:3], old[3][:50]], "line 4 is no sealed entry"),
        (lambda old: [*old, ""], "line 5 is no sealed entry"),
        (lambda old: ["[1]", *old], "line 1 is no sealed entry"),
        (lambda old: old[:3], "its end is missing: 3 lines are left, and there were more"),
        (lambda old: [], "line 1 is no sealed entry"),
    ],
)
def test_any_change_by_hand_is_reported_and_nothing_is_appended(root, change, fault):
    rewrite(root, change(lines(root)))
    edited = lines(root)
    with pytest.raises(DataError, match=fault):
        append(root, "promoted", "z")
    assert lines(root) == edited


def test_a_history_that_is_gone_is_missed_until_its_head_is_moved_away_too(root):
    (root / history.HISTORY).unlink()
    with pytest.raises(DataError, match=r"move it and \.datamill/promotion\.head away to begin a new one"):
        history.read(root)
    (root / history.HEAD).unlink()
    assert history.read(root) == []


def test_words_may_hold_line_ends_of_any_kind(root):
    append(root, "promoted", "line\nend\u2028\x85\r")
    assert history.champion(history.read(root)) == "line\nend\u2028\x85\r"


def test_the_champion_is_the_last_one_that_was_not_refused(root):
    assert history.champion([]) is None
    append(root, "refused", "y")
    assert history.champion(history.read(root)) == "c"


def test_who_was_champion_when_a_new_history_began_is_in_the_line(tmp_path):
    append(tmp_path, "promoted", "b", came_from="a")
    assert history.lineup(history.read(tmp_path)) == ["a", "b"]


def test_going_back_takes_the_later_champions_off_the_line(root):
    assert history.lineup(history.read(root)) == ["a", "b", "c"]
    append(root, "rolled back", "b")
    assert history.lineup(history.read(root)) == ["a", "b"]
    append(root, "promoted", "d")
    assert history.lineup(history.read(root)) == ["a", "b", "d"]
    append(root, "rolled back", "c")  # is kept, but off the line
    assert history.lineup(history.read(root)) == ["a", "b", "d", "c"]
