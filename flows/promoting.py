"""Champion and challenger after a training flow and on the command line: who decides, and who is told."""

import getpass
import subprocess
import uuid
from datetime import datetime
from pathlib import Path

from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL

from datamill.errors import ParamsError
from datamill.promotion import promoting
from datamill.promotion.decision import Decision
from datamill.promotion.params import WATCH_FILE, PromoteParams, read_policy
from datamill.promotion.promoting import Author, Outcome
from datamill.tracking import Session

CHANGED = "datamill.champion.changed"


def challenge(root: Path, *, now: datetime) -> Decision | None:
    """Judge the model that the training flow has just made, record the decision, and let it take effect.

    Args:
        root: The workspace.
        now: When, in UTC.

    Returns:
        The decision; ``None`` where ``watch.yaml`` is absent or wants none after training.

    Raises:
        DatamillError: See ``promoting.promote``.
    """
    policy = read_policy(root)
    if policy is None or not policy.after_training:
        return None
    outcome = promoting.promote(root, policy=policy, author=author(root), now=now)
    announce(root, outcome=outcome)
    verdict = "is champion" if outcome.decision.promotes else "stays a challenger"
    print(f"promote: {outcome.challenger} {verdict}: {headline(outcome.decision)}", flush=True)
    return outcome.decision


def require_policy(root: Path) -> PromoteParams:
    """What a challenger must show in this workspace.

    Raises:
        ParamsError: Nobody has said it, or it is wrong.
    """
    policy = read_policy(root)
    if policy is None:
        raise ParamsError(f"{root / WATCH_FILE} is missing; its section 'promote' says what a challenger must show")
    return policy


def author(root: Path) -> Author:
    """The flow run when there is one, else the person, as Git or the system knows them."""
    run_id, name = flow_run.get_id(), flow_run.get_name()
    if run_id:
        return Author(f"flow run {name}", Session(str(run_id), str(name)))
    command = ["git", "-C", str(root), "config", "user.name"]
    try:
        known = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        known = ""
    return Author(known or getpass.getuser(), Session(f"promote-{uuid.uuid4().hex[:12]}", "promote"))


def announce(root: Path, *, outcome: Outcome) -> None:
    """Tell Prefect of a new champion, where a server or a flow run is there to hear it."""
    if not outcome.is_changed or not (PREFECT_API_URL.value() or flow_run.get_id()):
        return
    assert outcome.entry is not None
    payload = {key: outcome.entry[key] for key in ("number", "time", "who", "action", "from", "to", "because")}
    resource = {"prefect.resource.id": f"datamill.workspace.{root.resolve().name}"}
    emit_event(event=CHANGED, resource=resource, payload=payload)


def headline(decision: Decision) -> str:
    """The reasons that decided, in one line: those that refuse, or all where none does."""
    refusing = [reason for reason in decision.reasons if not reason.passes]
    return "; ".join(f"{one.check}: {one.found}" for one in refusing or decision.reasons)
