"""Trains again when drift asks for it and no guard stands against it: by an event, or here where there is no server."""

from datetime import UTC, datetime
from pathlib import Path

from datamill.drift import Verdict
from datamill.errors import DatamillError
from datamill.retraining import Decision, Request, RetrainParams, requests
from datamill.retraining.including import include
from datamill.watchfile import load_section
from flows import events

EVENT = "datamill.retrain.requested"


def consider(root: Path, *, verdict: Verdict, num_new: int, now: datetime, window: str = "") -> Decision:
    """Ask for a training where ``verdict`` is reason to and the guards allow it.

    With a Prefect server the event ``datamill.retrain.requested`` is emitted, and an automation starts the training;
    without one it is done here. A request that could not be told is kept and told by ``resume``.

    Args:
        root: The workspace.
        verdict: Of the window.
        num_new: Samples of the window; they add up until a training is asked for.
        now: Time of judging, with its zone.
        window: The window's id: one that was counted before is not counted twice.

    Returns:
        What was decided, and every reason.

    Raises:
        ParamsError: ``watch.yaml`` is wrong.
        StageError: The state is damaged.
    """
    root = root.resolve()
    now = now.astimezone(UTC)
    resume(root, now=now)
    params = load_section(root, "retrain", RetrainParams)
    decision = requests.consider(root, verdict=verdict, num_new=num_new, window=window, now=now, params=params)
    return _answer(root, decision.request, params=params) if decision.request else decision


def resume(root: Path, *, now: datetime | None = None) -> Decision | None:
    """Tell of a request that goes unanswered: nobody could be told, nobody took it up, or the training died.

    Returns:
        What became of it; ``None`` where there is none.
    """
    root = root.resolve()
    params = load_section(root, "retrain", RetrainParams)
    request = requests.unanswered(root, now=now or datetime.now(UTC), params=params, is_direct=not events.has_server())
    return _answer(root, request, params=params) if request else None


def _answer(root: Path, request: Request, *, params: RetrainParams) -> Decision:
    """The new data included and somebody told, or the training done."""
    try:
        if params.include is not None:
            copies = include(root, params.include)
            print(f"retrain: {len(copies)} new files go to {params.include.into}", flush=True)
        if events.has_server():
            _emit(root, request)
            requests.mark_sent(root, request)
            return Decision("requested", request.reasons, request)
    except Exception as error:  # noqa: BLE001 - whatever a sick server raises, the request is kept
        reason = str(error) if isinstance(error, DatamillError) else type(error).__name__
        return Decision("requested", (*request.reasons, f"not told yet, tried again: {reason}"), request)
    requests.mark_sent(root, request)
    return _train(root, request)


def _emit(root: Path, request: Request) -> None:
    events.emit(
        EVENT,
        root=root,
        event_id=request.event_id,
        labels={"request": request.id},
        payload={"root": str(root), **request.model_dump(mode="json", exclude={"is_sent", "attempts", "ended"})},
        at=request.at,
    )


def _train(root: Path, request: Request) -> Decision:
    from flows.training import train_model  # the flow that trains need not be there to judge

    try:
        train_model(root=str(root))
    except DatamillError as error:
        return Decision("failed", (str(error),), request)
    return Decision("trained", request.reasons, request)
