"""Requests for a training on disk, and the mark of a training at work, which no dead process leaves behind."""

import contextlib
import fcntl
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from pydantic import ValidationError

from datamill import files
from datamill.errors import StageError
from datamill.retraining.guards import Decision, Request, State, decide, revive
from datamill.retraining.params import RetrainParams
from datamill.settings import STATE

if TYPE_CHECKING:
    from datamill.drift import Verdict

FOLDER = f"{STATE}/watch"
STATE_FILE, LOCK_FILE = "retraining.json", "retraining.lock"
TRAINING_LOCK = f"{STATE}/training.lock"


def consider(
    root: Path, *, verdict: "Verdict", num_new: int, window: str, now: datetime, params: RetrainParams
) -> Decision:
    """``decide`` with the state on disk; a request is on disk, unsent, when it is returned.

    Raises:
        StageError: The state is damaged.
    """
    with _locked(root):
        decision, state = decide(
            _load(root),
            verdict=verdict,
            num_new=num_new,
            window=window,
            now=now,
            is_training=is_training(root),
            params=params,
        )
        _save(root, state)
    return decision


def unanswered(root: Path, *, now: datetime, params: RetrainParams, is_direct: bool = False) -> Request | None:
    """A request to tell whoever trains of, again or for the first time: they were not told, or the training died.

    Args:
        root: The workspace.
        now: Decides whether one was not taken up in time.
        params: How long that is.
        is_direct: The caller trains itself, so nobody else will take up what was told.
    """
    with _locked(root):
        before = _load(root)
        is_busy = is_training(root)
        state = revive(before, now=now, is_training=is_busy, params=params)
        if state != before:
            _save(root, state)
        is_waiting = is_direct and not is_busy
        return next((one for one in state.requests if one.ended == "pending" and (is_waiting or not one.is_sent)), None)


def mark_sent(root: Path, request: Request) -> None:
    """Remember that whoever trains has been told."""
    with _locked(root):
        _update(root, {request.id}, is_sent=True)


@contextlib.contextmanager
def training(root: Path) -> Iterator[None]:
    """The workspace counts as training while the block runs or until the process dies; requests are answered by it."""
    (root / STATE).mkdir(exist_ok=True)
    with (root / TRAINING_LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # the system lets go of it, however the process ends
        with _locked(root):
            open_ = [
                one
                for one in _load(root).requests
                if one.ended == "started" or (one.ended == "pending" and one.is_sent)
            ]
            taken = {one.id for one in open_}
            _update(root, taken, ended="started")
        try:
            yield
        except BaseException:
            with _locked(root):
                _update(root, taken, ended="failed")
            raise
        with _locked(root):
            _update(root, taken, ended="finished")


def is_training(root: Path) -> bool:
    """Whether a training is at work in the workspace."""
    (root / STATE).mkdir(exist_ok=True)
    with (root / TRAINING_LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK_FILE):
        yield


def _load(root: Path) -> State:
    path = root / FOLDER / STATE_FILE
    try:
        return State.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return State()
    except ValidationError as error:
        raise StageError(f"{path} is damaged; move it away, and cool-down and budget begin anew") from error


def _save(root: Path, state: State) -> None:
    files.write_json(root / FOLDER / STATE_FILE, state.model_dump(mode="json"))


def _update(root: Path, ids: set[str], **changes: object) -> None:
    if ids:
        state = _load(root)
        requests = tuple(one.model_copy(update=changes) if one.id in ids else one for one in state.requests)
        _save(root, state.model_copy(update={"requests": requests}))
