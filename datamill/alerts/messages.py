"""What people and programs are told: a title, a text, and the facts behind them."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from datamill.alerts.alert import AT_RISK, Alert, Evidence, Performance, Reading, Record
from datamill.alerts.episodes import Change, Episode

LINK_NAMES = {"report": "Report", "mlflow": "MLflow run"}
NAMES = {
    AT_RISK: "performance at risk",
    "input": "input drift",
    "embedding": "embedding drift",
    "prediction": "prediction drift",
    "label": "label drift",
    "concept": "concept drift",
    "performance": "performance moved",
}


class Message(Record):
    """One thing to tell, the same to every channel.

    Attributes:
        id: Idempotency key, 32 hexadecimal digits: a receiver that sees it again can forget it.
        event: What it tells of.
        severity: Decides which channels get it.
        at: When it was written.
        title: One line.
        text: Plain text, a few lines.
    """

    id: str
    event: Literal["raised", "repeated", "recovered", "replaced", "digest"]
    severity: Literal["page", "notice", "digest"]
    at: datetime
    workspace: str
    title: str
    text: str
    model: str = ""
    window: str = ""
    topic: str = ""
    fingerprint: str = ""
    num_windows: int = 0
    num_counted: int = 0
    evidence: tuple[Evidence, ...] = ()
    performance: Performance | None = None
    links: Mapping[str, str] = {}


def message_of(change: Change, *, reading: Reading, now: datetime) -> Message:
    """What is told of a change."""
    episode, alert = change.episode, change.alert
    return Message.model_validate(
        {
            "id": message_id(episode.fingerprint, change.event, reading.window, now.isoformat()),
            "event": change.event,
            "severity": episode.severity,
            "at": now,
            "workspace": reading.workspace,
            "title": _title(change, reading=reading),
            "text": _text(change, reading=reading),
            "model": episode.model,
            "window": reading.window,
            "topic": episode.topic,
            "fingerprint": episode.fingerprint,
            "num_windows": episode.num_windows,
            "num_counted": episode.num_counted,
            "evidence": alert.evidence if alert else (),
            "performance": alert.performance if alert else None,
            "links": dict(reading.links),
        }
    )


def message_id(*parts: str) -> str:
    """An id that stands for these texts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def topic_name(topic: str) -> str:
    """A topic in words."""
    return NAMES.get(topic) or topic.replace("quality/", "data quality: ")


def told(evidence: Evidence) -> str:
    """One outcome in words: ``input ks of age: wasserstein 0.42, p 1.2e-09``."""
    what = " ".join([evidence.kind, evidence.detector, *(["of", evidence.subject] if evidence.subject else [])])
    effect = f"{evidence.effect_name} {_number(evidence.effect)}"
    return f"{what}: {effect}" + (f", p {evidence.p_value:.2g}" if evidence.p_value is not None else "")


def _title(change: Change, *, reading: Reading) -> str:
    ends = {"raised": "", "repeated": " (goes on)", "recovered": " (recovered)", "replaced": " (model replaced)"}
    return f"{reading.workspace}: {topic_name(change.episode.topic)}{ends[change.event]}"


def _text(change: Change, *, reading: Reading) -> str:
    lines = [f"Model {change.episode.model}, window {reading.window}, {reading.num_samples} samples."]
    lines += _findings(change.alert) if change.alert else [_ending(change, reading=reading)]
    if change.event == "repeated":
        lines.append(_history(change.episode))
    lines += [f"{LINK_NAMES.get(name, name)}: {target}" for name, target in reading.links.items()]
    return "\n".join([*lines, f"Alert {change.episode.fingerprint}"])


def _findings(alert: Alert) -> list[str]:
    lines = [_estimate(alert.performance)] if alert.performance else []
    if not alert.num_moved:
        return [*lines, f"None of {alert.num_tested} tests and checks moved."]
    rest = alert.num_moved - len(alert.evidence)
    more = [f"- and {rest} more, in the report"] if rest else []
    head = f"{alert.num_moved} of {alert.num_tested} tests and checks moved:"
    return [*lines, head, *(f"- {told(one)}" for one in alert.evidence), *more]


def _estimate(performance: Performance) -> str:
    how = "measured" if performance.is_measured else "estimated"
    between = f"{_number(performance.low)} to {_number(performance.high)}"
    before = _number(performance.reference)
    return f"{performance.metric} {how} at {_number(performance.estimated)} ({between}); on the reference {before}."


def _ending(change: Change, *, reading: Reading) -> str:
    episode = change.episode
    seen = f"It was seen in {episode.num_windows} windows, from {episode.opened_in} to {episode.last_in}."
    if change.event == "replaced":
        return f"Closed, because {reading.model} is watched now. {seen}"
    return f"Calm for {episode.num_calm} windows. {seen}"


def _history(episode: Episode) -> str:
    return (
        f"Seen in {episode.num_windows} windows since {episode.opened_in}; "
        f"{episode.num_counted} of them were counted and not sent since the last message."
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
