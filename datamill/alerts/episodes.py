"""From one window to the next: which alerts are new, which go on, which are over. Pure; the clock comes in."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from datamill.alerts.alert import AT_RISK, Alert, Reading, Record, Severity

Event = Literal["raised", "counted", "repeated", "recovered", "replaced"]


class Episode(Record):
    """An alert that is open.

    Attributes:
        opened_at: When it was first seen.
        opened_in: Window it was first seen in.
        last_in: Window it was last seen in.
        sent_at: When it was last told of.
        num_windows: Windows it was seen in.
        num_counted: How many of these were counted and not sent, since it was last told of.
        num_calm: Windows in a row, up to the latest, that were judged and showed nothing.
        is_measured: Whether labels have shown it; only labels can then tell that it is over.
    """

    topic: str
    severity: Severity
    fingerprint: str
    model: str
    opened_at: datetime
    opened_in: str
    last_in: str
    sent_at: datetime
    num_windows: int = 1
    num_counted: int = 0
    num_calm: int = 0
    is_measured: bool = False


class State(Record):
    """All that is remembered from window to window: open episodes, by fingerprint."""

    episodes: dict[str, Episode] = Field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """What a window did to one episode.

    Attributes:
        event: ``raised`` (new), ``counted`` (within the cool-down), ``repeated`` (after it), ``recovered`` (calm for
            long enough) or ``replaced`` (another model is watched now). All but ``counted`` are told of.
        episode: As it was when the event is told: ``num_counted`` includes what was counted before it.
        alert: What was seen; ``None`` where the episode ended.
    """

    event: Event
    episode: Episode
    alert: Alert | None = None

    @property
    def is_told(self) -> bool:
        """Whether somebody is told of it."""
        return self.event != "counted"


def step(
    state: State, reading: Reading, *, now: datetime, cooldown: timedelta, calm_windows: int
) -> tuple[State, tuple[Change, ...]]:
    """The state after a window, and what changed.

    A clock that jumped back restarts the cool-down of what was told of in its future: nothing is sent twice for it, and
    nothing is held back for longer than one cool-down.

    Args:
        state: Before the window.
        reading: The window.
        now: Time of judging.
        cooldown: Time after a message within which the same alert is counted and not sent.
        calm_windows: Windows in a row without an alert after which it has recovered; at least 1.
    """
    seen = {alert.fingerprint: alert for alert in reading.alerts}
    changes = [
        _see(state.episodes.get(key), alert, reading=reading, now=now, cooldown=cooldown) for key, alert in seen.items()
    ]
    after = {change.episode.fingerprint: _told(change, now=now) for change in changes}
    for key, episode in state.episodes.items():
        if key in seen:
            continue
        rested, event = _rest(episode, reading=reading, calm_windows=calm_windows)
        if event is None:
            after[key] = rested
        else:
            changes.append(Change(event, rested))
    return State(episodes=after), tuple(changes)


def _see(episode: Episode | None, alert: Alert, *, reading: Reading, now: datetime, cooldown: timedelta) -> Change:
    is_measured = alert.topic == AT_RISK and reading.is_measured
    if episode is None:
        opened = Episode(
            topic=alert.topic,
            severity=alert.severity,
            fingerprint=alert.fingerprint,
            model=reading.model,
            opened_at=now,
            opened_in=reading.window,
            last_in=reading.window,
            sent_at=now,
            is_measured=is_measured,
        )
        return Change("raised", opened, alert)
    sent_at = min(episode.sent_at, now)
    seen = {
        "last_in": reading.window,
        "sent_at": sent_at,
        "num_windows": episode.num_windows + 1,
        "num_calm": 0,
        "is_measured": is_measured or episode.is_measured,
    }
    if now - sent_at >= cooldown:
        return Change("repeated", episode.model_copy(update=seen), alert)
    return Change("counted", episode.model_copy(update={**seen, "num_counted": episode.num_counted + 1}), alert)


def _told(change: Change, *, now: datetime) -> Episode:
    """The episode once the change was told of."""
    return change.episode.model_copy(update={"sent_at": now, "num_counted": 0}) if change.is_told else change.episode


def _rest(episode: Episode, *, reading: Reading, calm_windows: int) -> tuple[Episode, Event | None]:
    """An episode that a window did not show, and how it ended if it did."""
    if episode.model != reading.model:
        return episode, "replaced"
    if not reading.is_judged(episode.topic) or (episode.is_measured and not reading.is_measured):
        return episode, None
    rested = episode.model_copy(update={"num_calm": episode.num_calm + 1})
    return rested, "recovered" if rested.num_calm >= calm_windows else None
