"""The record of judged windows, which digests are made of."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from datamill.alerts.alert import Evidence, Reading, Record, Severity
from datamill.alerts.episodes import Change, Event


class Told(Record):
    """What a window did to one episode."""

    event: Event
    severity: Severity
    topic: str
    fingerprint: str
    evidence: tuple[Evidence, ...] = ()


class Window(Record):
    """One judged window, or labels of one that were judged later."""

    window: str
    model: str
    at: datetime
    num_samples: int
    is_drift: bool
    changes: tuple[Told, ...]
    links: Mapping[str, str]
    is_whole: bool = True


def window_of(reading: Reading, changes: Iterable[Change], *, now: datetime) -> Window:
    """A window, and what it changed."""
    told = [
        Told(
            event=change.event,
            severity=change.episode.severity,
            topic=change.episode.topic,
            fingerprint=change.episode.fingerprint,
            evidence=change.alert.evidence[:1] if change.alert else (),
        )
        for change in changes
    ]
    return Window(
        window=reading.window,
        model=reading.model,
        at=now,
        num_samples=reading.num_samples,
        is_drift=reading.is_drift,
        changes=tuple(told),
        links=dict(reading.links),
        is_whole=reading.is_whole,
    )
