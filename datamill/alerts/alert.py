"""What a verdict gives reason to say: alerts by topic, each with its evidence."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:  # the digest needs no detector, and they take a second to load
    from datamill.drift import Estimate, Outcome, Verdict

AT_RISK = "performance-at-risk"
QUALITY = "quality/"  # begins the topic of a check of quality
MAX_EVIDENCE = 10  # outcomes named in one message; the report has them all

Severity = Literal["page", "notice"]


class Record(BaseModel):
    """Something kept as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Evidence(Record):
    """One outcome that moved; numbers that are not finite are ``None``."""

    kind: str
    detector: str
    subject: str
    effect: float | None
    effect_name: str
    p_value: float | None


class Performance(Record):
    """How good the model is on the window."""

    metric: str
    reference: float | None
    estimated: float | None
    low: float | None
    high: float | None
    is_measured: bool


class Alert(Record):
    """One thing that is wrong with one window.

    Attributes:
        topic: What it is about. Features and classes that moved are evidence and no topic: which of many features
            cross a threshold changes from window to window by chance, and must not look like a new alert each time.
        severity: Pages wake somebody, notices wait for the digest.
        fingerprint: Equal for the same topic, model and workspace, whatever the window.
        evidence: What moved, largest effect first; at most ``MAX_EVIDENCE``.
        num_moved: Outcomes that moved.
        num_tested: Outcomes there are.
        performance: The estimate; only where performance is at risk.
    """

    topic: str
    severity: Severity
    fingerprint: str
    evidence: tuple[Evidence, ...]
    num_moved: int
    num_tested: int
    performance: Performance | None = None


@dataclass(frozen=True)
class Reading:
    """One window as alerts see it.

    Attributes:
        workspace: Name of the workspace's folder.
        model: Which model was watched.
        window: The window's id.
        links: Where the report and the MLflow run are, by name.
        num_samples: Samples in the window.
        is_drift: Whether anything moved.
        alerts: What is wrong, one per topic.
        judged: Topics that could be judged. One that could not has neither come nor gone.
        is_measured: Whether the performance is known from labels; what is estimated says nothing of it then.
        is_whole: Whether the window was judged as a whole, and not by labels alone that came later.
    """

    workspace: str
    model: str
    window: str
    links: Mapping[str, str]
    num_samples: int
    is_drift: bool
    alerts: tuple[Alert, ...]
    judged: frozenset[str]
    is_measured: bool = False
    is_whole: bool = True

    def is_judged(self, topic: str) -> bool:
        """Whether ``topic`` could be judged; a check of quality that finds nothing may say nothing."""
        is_silent = self.is_whole and topic.startswith(QUALITY) and self.num_samples > 0 and bool(self.judged)
        return topic in self.judged or is_silent


def read_verdict(
    verdict: "Verdict", *, workspace: str, model: str, window: str, links: Mapping[str, str], is_whole: bool = True
) -> Reading:
    """What ``verdict`` gives reason to say.

    Only performance at risk is a page; whatever else moved is a notice. Quality is a topic for each check, because a
    missing column and a class never seen before are different faults.

    Args:
        verdict: Of the window.
        workspace: Name of the workspace's folder.
        model: Which model was watched.
        window: The window's id.
        links: Where the report and the MLflow run are, by name.
        is_whole: Whether it is about the window as a whole, and not about labels alone that came later.
    """
    outcomes: dict[str, list[Outcome]] = {}
    if verdict.performance is not None:  # first, because channels deliver in order and pages are in a hurry
        outcomes[AT_RISK] = list(verdict.outcomes)
    for outcome in verdict.outcomes:
        outcomes.setdefault(topic_of(outcome), []).append(outcome)
    alerts = []
    for topic, tested in outcomes.items():
        moved = [outcome for outcome in tested if outcome.is_drift]
        if verdict.is_at_risk if topic == AT_RISK else moved:
            alerts.append(
                Alert(
                    topic=topic,
                    severity="page" if topic == AT_RISK else "notice",
                    fingerprint=fingerprint(workspace=workspace, model=model, topic=topic),
                    evidence=tuple(_evidence(outcome) for outcome in _largest_first(moved)[:MAX_EVIDENCE]),
                    num_moved=len(moved),
                    num_tested=len(tested),
                    performance=_performance(verdict.performance) if topic == AT_RISK else None,
                )
            )
    return Reading(
        workspace=workspace,
        model=model,
        window=window,
        links=links,
        num_samples=verdict.num_samples,
        is_drift=verdict.is_drift,
        alerts=tuple(alerts),
        judged=frozenset(outcomes),
        is_measured=verdict.performance is not None and verdict.performance.is_measured,
        is_whole=is_whole,
    )


def topic_of(outcome: "Outcome") -> str:
    """What a notice about ``outcome`` is about."""
    return QUALITY + outcome.detector if outcome.kind == "quality" else outcome.kind


def fingerprint(*, workspace: str, model: str, topic: str) -> str:
    """Identity of an alert over windows: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps([workspace, model, topic]).encode()).hexdigest()[:16]


def _largest_first(outcomes: "list[Outcome]") -> "list[Outcome]":
    """By size of the effect; among different measures of size, which cannot be compared, by name of the measure."""
    return sorted(outcomes, key=lambda one: (one.effect_name, -abs(_finite(one.effect) or 0.0), one.kind, one.subject))


def _evidence(outcome: "Outcome") -> Evidence:
    return Evidence(
        kind=outcome.kind,
        detector=outcome.detector,
        subject=outcome.subject,
        effect=_finite(outcome.effect),
        effect_name=outcome.effect_name,
        p_value=_finite(outcome.p_value),
    )


def _performance(estimate: "Estimate | None") -> Performance | None:
    if estimate is None:
        return None
    return Performance(
        metric=estimate.metric,
        reference=_finite(estimate.reference),
        estimated=_finite(estimate.estimated),
        low=_finite(estimate.low),
        high=_finite(estimate.high),
        is_measured=estimate.is_measured,
    )


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
