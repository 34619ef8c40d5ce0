"""Champion and challenger after a training flow and on the command line: who decides, and who is told."""

import getpass
import subprocess
import uuid
from datetime import datetime
from pathlib import Path

from prefect.runtime import flow_run

from datamill.errors import DatamillError, ParamsError
from datamill.promotion import champions, history, promoting
from datamill.promotion.params import SECTION, PromoteParams, read_policy
from datamill.promotion.promoting import Author
from datamill.promotion.reasons import Decision
from datamill.settings import STATE
from datamill.tracking import Session
from datamill.watchfile import WATCH_FILE
from flows import events

CHANGED = "datamill.champion.changed"


def challenge(root: Path, *, now: datetime) -> Decision | None:
    """Judge the model that training has made, once, record the decision, and let it take effect.

    A model that a killed flow has left behind is judged by the next one.

    Args:
        root: The workspace.
        now: When, in UTC.

    Returns:
        The decision; ``None`` where ``watch.yaml`` wants none after training, or the model was judged before.

    Raises:
        DatamillError: See ``promoting.promote``.
    """
    policy = read_policy(root)
    if policy is None or not policy.after_training:
        return None
    if champions.trained(root) in {entry["to"] for entry in history.read(root)}:
        announce(root)
        return None
    outcome = promoting.promote(root, policy=policy, author=author(root), now=now)
    announce(root)
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
        raise ParamsError(f"{root / WATCH_FILE} has no section {SECTION!r}, which says what a challenger must show")
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


def announce(root: Path) -> None:
    """Tell a Prefect server, where there is one, of every change of champion it has not been told of.

    A server that does not answer is told the next time; what counts is the history.
    """
    noted = root / STATE / "promotion.announced"
    entries = history.read(root)
    if not noted.exists():  # in a clone, what others decided long ago is no news
        noted.write_text(entries[-1]["previous"] if entries else history.BEGINNING, encoding="utf-8")
    try:
        for entry in history.after(entries, seal=noted.read_text(encoding="utf-8")):
            if events.has_server() and entry["action"] != "refused" and entry["from"] != entry["to"]:
                _emit(root, entry)
            noted.write_text(entry["seal"], encoding="utf-8")
    except Exception as error:  # noqa: BLE001 - whatever a sick server raises, the champion has changed
        reason = str(error) if isinstance(error, DatamillError) else type(error).__name__
        print(f"promote: the Prefect server was not told yet ({reason}); tried again the next time", flush=True)


def _emit(root: Path, entry: history.Entry) -> None:
    events.emit(
        CHANGED,
        root=root,
        event_id=entry["seal"][:32],
        labels={"action": entry["action"], "model": entry["to"]},
        payload={key: entry[key] for key in ("number", "time", "who", "action", "from", "to", "because", "seal")},
        at=datetime.fromisoformat(entry["time"]),
    )


def headline(decision: Decision) -> str:
    """The reasons that decided, in one line: those that refuse and what they need, or all where none does."""
    refusing = [f"{one.check}: {one.found} (needed: {one.needed})" for one in decision.reasons if not one.passes]
    spoken = ("champion", "headline")  # what was found names itself
    passed = [one.found if one.check in spoken else f"{one.check} {one.found}" for one in decision.reasons]
    return "; ".join(refusing or passed)
