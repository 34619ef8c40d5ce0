"""Whether drift is reason to train again, and what stands against it. Pure; the clock comes in."""

import hashlib
import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from datamill.retraining.params import RetrainParams

if TYPE_CHECKING:
    from datamill.drift import Verdict

WINDOWS_KEPT = 1_000
REQUESTS_KEPT = 1_000
MAX_ATTEMPTS = 3  # to get one request answered

Result = Literal["not needed", "refused", "requested", "trained", "failed"]


class Request(BaseModel):
    """A training that was asked for.

    Attributes:
        id: 32 hexadecimal digits.
        at: When.
        reasons: What asked for it.
        num_new: New samples since the request before.
        window: The window that asked.
        is_sent: Whether whoever trains has been told.
        attempts: How often it was asked for again, because nobody took it up or the training died.
        ended: ``pending`` until a training begins after it was sent; then ``started``, ``finished`` or ``failed``;
            ``expired`` where none began in time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    at: datetime
    reasons: tuple[str, ...]
    num_new: int
    window: str = ""
    is_sent: bool = False
    attempts: int = 0
    ended: Literal["pending", "started", "finished", "failed", "expired"] = "pending"

    @property
    def event_id(self) -> str:
        """Idempotency key of this attempt."""
        return hashlib.sha256(f"{self.id}\n{self.attempts}".encode()).hexdigest()[:32]


class State(BaseModel):
    """What is remembered between windows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_new: int = 0
    windows: tuple[str, ...] = ()
    requests: tuple[Request, ...] = ()


@dataclass(frozen=True)
class Decision:
    """What became of one window.

    Attributes:
        result: ``not needed``, ``refused``, ``requested`` (somebody else trains), ``trained`` or ``failed``.
        reasons: Why: what asked for it, or every guard that stands against it.
        request: The request, where there is one.
    """

    result: Result
    reasons: tuple[str, ...]
    request: Request | None = None


def causes(verdict: "Verdict", *, params: RetrainParams) -> tuple[str, ...]:
    """What in ``verdict`` asks for a training; empty where nothing does."""
    found = ["performance is at risk"] if verdict.is_at_risk and params.at_risk else []
    for outcome in verdict.outcomes:
        threshold = params.thresholds.get(outcome.effect_name, 0.0)
        is_large = threshold == 0 or abs(outcome.effect) >= threshold
        if outcome.is_drift and outcome.kind in params.kinds and is_large:
            size = (
                f"{outcome.effect_name} {outcome.effect:.3g}" if math.isfinite(outcome.effect) else outcome.effect_name
            )
            found.append(
                " ".join([outcome.kind, outcome.detector, *([outcome.subject] if outcome.subject else []), size])
            )
    return tuple(found)


def decide(
    state: State,
    *,
    verdict: "Verdict",
    num_new: int,
    window: str,
    now: datetime,
    is_training: bool,
    params: RetrainParams,
) -> tuple[Decision, State]:
    """Whether to ask for a training now, and the state after the window. Pure.

    A clock that jumped back shortens no guard, and lengthens none by more than itself: what was asked for in its future
    counts as asked for now.

    Args:
        state: Before the window.
        verdict: Of the window.
        num_new: Samples of the window.
        window: The window's id; one that comes again is not counted again, and asks once. Empty is always another.
        now: Time of judging.
        is_training: Whether a training is at work in the workspace.
        params: The guards.
    """
    state = _aged(_counted(state, num_new=num_new, window=window), now=now, params=params)
    wanted = causes(verdict, params=params) if params.is_enabled else ()
    if not wanted:
        why = "nothing moved that asks for a training" if params.is_enabled else "retraining is switched off"
        return Decision("not needed", (why,)), state
    refusals = guards(state, verdict=verdict, now=now, is_training=is_training, params=params)
    if window and any(one.window == window for one in state.requests):
        refusals = (f"window {window} has asked already", *refusals)
    if refusals:
        return Decision("refused", refusals), state
    key = hashlib.sha256(f"{window}\n{now.isoformat()}\n{len(state.requests)}".encode()).hexdigest()[:32]
    request = Request(id=key, at=now, reasons=wanted, num_new=state.num_new, window=window)
    after = state.model_copy(update={"num_new": 0, "requests": (*state.requests, request)[-REQUESTS_KEPT:]})
    return Decision("requested", wanted, request), after


def revive(state: State, *, now: datetime, is_training: bool, params: RetrainParams) -> State:
    """The state with requests that go unanswered as pending and unsent again, ``MAX_ATTEMPTS`` in all. Pure.

    Unanswered are a request whose training died, and one that no training took up in time.
    """
    requests = [_revived(one, now=now, is_training=is_training, params=params) for one in state.requests]
    return state.model_copy(update={"requests": tuple(requests)})


def guards(
    state: State, *, verdict: "Verdict", now: datetime, is_training: bool, params: RetrainParams
) -> tuple[str, ...]:
    """Every reason against a training now; empty where there is none."""
    asked = [request for request in state.requests if request.ended != "expired"]
    refusals = []
    if is_training:
        refusals.append("a training is at work")
    if asked and asked[-1].ended == "pending":
        refusals.append(f"the training asked for at {asked[-1].at:%Y-%m-%d %H:%M} UTC has not begun")
    since = now - asked[-1].at if asked else None
    if since is not None and since < timedelta(hours=params.cooldown_h):
        refusals.append(
            f"cool-down: the latest was asked for {_hours(since)} h ago, at least {params.cooldown_h:g} h ask"
        )
    if state.num_new < params.min_new_samples:
        refusals.append(f"new data: {state.num_new} samples since the latest, at least {params.min_new_samples} ask")
    spent = sum(now - request.at < timedelta(days=params.period_days) for request in asked)
    if spent >= params.max_trainings:
        refusals.append(f"budget: {spent} of {params.max_trainings} within {params.period_days:g} days are spent")
    broken = sorted(
        {one.detector for one in verdict.outcomes if one.kind == "quality" and one.is_drift} & {*params.refuse_on}
    )
    if broken:
        refusals.append(f"data quality: {', '.join(broken)} failed; mend the data first")
    return tuple(refusals)


def _revived(request: Request, *, now: datetime, is_training: bool, params: RetrainParams) -> Request:
    if is_training or not (request.ended == "started" or _is_late(request, now=now, params=params)):
        return request
    if request.attempts + 1 >= MAX_ATTEMPTS:
        return request.model_copy(update={"ended": "failed" if request.ended == "started" else "expired"})
    again = {"ended": "pending", "is_sent": False, "attempts": request.attempts + 1, "at": now}
    return request.model_copy(update=again)


def _is_late(request: Request, *, now: datetime, params: RetrainParams) -> bool:
    return request.ended == "pending" and now - request.at > timedelta(hours=params.start_within_h)


def _counted(state: State, *, num_new: int, window: str) -> State:
    if window and window in state.windows:
        return state
    windows = (*state.windows, window)[-WINDOWS_KEPT:] if window else state.windows
    return state.model_copy(update={"num_new": state.num_new + num_new, "windows": windows})


def _aged(state: State, *, now: datetime, params: RetrainParams) -> State:
    """The state with requests of the future at ``now``, and those that nobody took up as expired."""
    requests = []
    for request in state.requests:
        aged = request.model_copy(update={"at": min(request.at, now)})
        is_late = _is_late(aged, now=now, params=params)
        requests.append(aged.model_copy(update={"ended": "expired"}) if is_late else aged)
    return state.model_copy(update={"requests": tuple(requests)})


def _hours(time: timedelta) -> str:
    return f"{time / timedelta(hours=1):.3g}"
