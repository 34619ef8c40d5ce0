"""One summary of many windows: what moved, what was counted, what is open and what is over."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from datamill.alerts.episodes import State
from datamill.alerts.messages import Message, message_id, told, topic_name
from datamill.alerts.store import Waiting
from datamill.alerts.windows import Told, Window
from datamill.errors import ParamsError

MAX_LINES = 30  # of one section
AGO = re.compile(r"(\d+(?:\.\d+)?)([hd])")


def summarise(windows: Sequence[Window], *, state: State, waiting: Sequence[Waiting]) -> str:
    """The digest as plain text; the sections that have nothing to say are left out.

    Args:
        windows: Windows it is about, in the order of judging.
        state: Episodes that are open now.
        waiting: Channels that are behind.
    """
    sections = [
        [_counts(windows)],
        _section("Open", [_open(state, key) for key in state.episodes]),
        _section("Moved", _moved(windows)),
        _section("Over", _over(windows)),
        _section("Not delivered", [f"{one.channel}: {one.num_messages} messages wait, {one.error}" for one in waiting]),
    ]
    return "\n".join(line for section in sections for line in section)


def is_quiet(windows: Sequence[Window], *, state: State, waiting: Sequence[Waiting]) -> bool:
    """Whether there is nothing to say: nothing moved, is open or is over, and every channel has everything."""
    return not (state.episodes or waiting or any(window.changes for window in windows))


def message_of(text: str, *, workspace: str, windows: Sequence[Window], now: datetime) -> Message:
    """The digest as a message."""
    return Message(
        id=message_id(workspace, "digest", now.isoformat()),
        event="digest",
        severity="digest",
        at=now,
        workspace=workspace,
        title=f"{workspace}: digest of {_plural(len(windows), 'window')}",
        text=text,
        num_windows=len(windows),
    )


def since_time(text: str, *, now: datetime) -> datetime:
    """The time that ``text`` names: ISO 8601, UTC where it names no zone, or hours or days ago (36h, 7d).

    Raises:
        ParamsError: It names none.
    """
    if match := AGO.fullmatch(text.strip()):
        return now - timedelta(**{{"h": "hours", "d": "days"}[match[2]]: min(float(match[1]), 1e6)})
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ParamsError(
            f"--since is {text!r}; use a time as 2026-03-01T08:00, or how long ago as 36h or 7d"
        ) from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _counts(windows: Sequence[Window]) -> str:
    whole = [window for window in windows if window.is_whole]
    late = len(windows) - len(whole)
    labels = f" Labels of {_plural(late, 'earlier window')} were judged." if late else ""
    if not whole:
        return f"No window was judged.{labels}"
    samples = sum(window.num_samples for window in whole)
    drifted = sum(window.is_drift for window in whole)
    span = f"from {whole[0].window} to {whole[-1].window}" if len(whole) > 1 else whole[0].window
    judged = f"{_plural(len(whole), 'window')} of {_plural(samples, 'sample')} judged ({span})"
    return f"{judged}; in {drifted} of them something moved.{labels}"


def _section(title: str, lines: list[str]) -> list[str]:
    if not lines:
        return []
    more = [f"- and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
    return ["", f"{title}:", *(f"- {line}" for line in lines[:MAX_LINES]), *more]


def _open(state: State, key: str) -> str:
    one = state.episodes[key]
    return (
        f"{one.severity}: {topic_name(one.topic)} since {one.opened_in}, seen in {_plural(one.num_windows, 'window')}, "
        f"{one.num_calm} calm since ({one.model})"
    )


def _moved(windows: Sequence[Window]) -> list[str]:
    """A line for each alert that was seen: how often, how often untold, and what moved most the latest time."""
    seen = [
        change for window in windows for change in window.changes if change.event in {"raised", "counted", "repeated"}
    ]
    latest: dict[str, Told] = {change.fingerprint: change for change in seen}
    total = Counter(change.fingerprint for change in seen)
    counted = Counter(change.fingerprint for change in seen if change.event == "counted")
    return [
        f"{one.severity}: {topic_name(one.topic)} in {_plural(total[key], 'window')}, {counted[key]} of them within "
        "the cool-down" + (f"; {told(one.evidence[0])}" if one.evidence else "")
        for key, one in latest.items()
    ]


def _over(windows: Sequence[Window]) -> list[str]:
    return [
        f"{change.severity}: {topic_name(change.topic)}, {change.event} in {window.window}"
        for window in windows
        for change in window.changes
        if change.event in {"recovered", "replaced"}
    ]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
