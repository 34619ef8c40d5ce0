"""Promotes and rolls back in a workspace, one at a time; what was decided is on record before it takes effect.

A kill after the record and before the change is made good by the next call: the history is what holds.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from datamill import config
from datamill.errors import ParamsError, StageError
from datamill.promotion import champions, history
from datamill.promotion.evidence import digest
from datamill.promotion.judging import judge
from datamill.promotion.params import PromoteParams
from datamill.promotion.reasons import Decision, Reason
from datamill.promotion.telling import tell
from datamill.settings import STATE
from datamill.tracking import Session

LOCK_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Author:
    """Who decides, and for whose run.

    Attributes:
        who: The person, or the flow run.
        session: Ties the record in MLflow to the run that trained the model.
    """

    who: str
    session: Session


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        decision: What the evidence says.
        champion: Version of the champion until now; ``None`` when there was none.
        challenger: Version that was judged, or gone back to.
        entry: The line of the history; ``None`` when nothing was recorded.
    """

    decision: Decision
    champion: str | None
    challenger: str
    entry: history.Entry | None


def promote(
    root: Path,
    *,
    policy: PromoteParams,
    author: Author,
    now: datetime,
    is_forced: bool = False,
    because: str = "",
    is_dry: bool = False,
) -> Outcome:
    """Judge the workspace's trained model, record the decision, and make it champion where it is good enough.

    Args:
        root: The workspace.
        policy: What the challenger must show.
        author: Who decides.
        now: When, in UTC.
        is_forced: Promote whatever the evidence says; needs ``because``.
        because: A person's own words.
        is_dry: Only judge; nothing is recorded or changed.

    Raises:
        ParamsError: Forced without a reason.
        StageError: There is no trained model, or its parts do not belong together.
        DataError: The history was changed by hand, or a champion's files are damaged.
    """
    if is_forced and not because.strip():
        raise ParamsError("promoting whatever the evidence says needs a reason: add --because TEXT")
    with _alone(root):
        entries = _recover(root)
        champion = history.champion(entries) or champions.current(root)
        folder, version = champions.stage_candidate(root)
        try:
            decision, evidence = judge(root, folder=folder, version=version, entries=entries, policy=policy)
            if is_dry:
                return Outcome(decision, champion, version, None)
            action: history.Action = "promoted" if decision.promotes else "refused"
            if is_forced and not decision.promotes:
                action, decision = "forced", _forced(decision, who=author.who, because=because)
            if decision.promotes:
                made = {"run": author.session.key, "run_name": author.session.name, "evidence": evidence}
                folder = champions.admit(folder, version=version, root=root, card=made)
            entry = history.append(
                root,
                action=action,
                who=author.who,
                now=now,
                came_from=champion,
                to=version,
                because=because,
                reasons=decision.reasons,
                evidence=digest(evidence),
            )
            if decision.promotes:
                champions.switch(root, version=version)
                _prune(root, keep=policy.keep)
            params = config.flatten(policy.model_dump(mode="json"))
            alias = "challenger" if version != champion else ""
            tell(root, session=author.session, home=folder, evidence=evidence, params=params, alias=alias)
            return Outcome(decision, champion, version, entry)
        finally:
            champions.discard_candidate(root)


def rollback(root: Path, *, to: str | None, because: str, author: Author, now: datetime) -> Outcome:
    """Make an earlier champion the champion again, byte for byte; needs neither MLflow nor the pipeline's outputs.

    Args:
        root: The workspace.
        to: Version, or its beginning; the champion before the present one by default.
        because: A person's own words.
        author: Who decides.
        now: When, in UTC.

    Raises:
        ParamsError: No reason was given, or ``to`` names no version, or several.
        StageError: There is no earlier champion.
        DataError: The history was changed by hand, or the version's files are gone or damaged.
    """
    if not because.strip():
        raise ParamsError("rolling back needs a reason: add --because TEXT")
    with _alone(root):
        entries = _recover(root)
        champion = history.champion(entries) or champions.current(root)
        version = _earlier(entries, root=root) if to is None else _named(to, root=root)
        champions.verify(root, version=version)
        home = root / champions.CHAMPIONS / version
        evidence = champions.read_card(home)["evidence"]
        reason = Reason("person", True, f"{author.who} goes back to {version}: {because}", "a person's reason")
        entry = history.append(
            root,
            action="rolled back",
            who=author.who,
            now=now,
            came_from=champion,
            to=version,
            because=because,
            reasons=[reason],
            evidence=digest(evidence),
        )
        champions.switch(root, version=version)
        tell(root, session=author.session, home=home, evidence=evidence, params={}, alias="")
        return Outcome(Decision(True, (reason,)), champion, version, entry)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Nobody else promotes or rolls back in this workspace until the block ends."""
    (root / STATE).mkdir(exist_ok=True)
    try:
        with FileLock(root / STATE / "promotion.lock", timeout=LOCK_TIMEOUT_S):
            yield
    except Timeout as error:
        raise StageError(
            f"another process has been promoting in {root} for {LOCK_TIMEOUT_S:.0f} s; see what it does"
        ) from error


def _recover(root: Path) -> list[history.Entry]:
    """The history, after a change of champion that a kill has cut off was finished."""
    entries = history.read(root)
    version = history.champion(entries)
    if version is not None and version != champions.current(root) and champions.is_intact(root, version=version):
        print(f"promote: the last change was cut off; {version} is champion now", flush=True)
        champions.switch(root, version=version)
    return entries


def _forced(decision: Decision, *, who: str, because: str) -> Decision:
    told = Reason("person", True, f"forced by {who}: {because}", "a person's reason")
    return Decision(True, (*decision.reasons, told))


def _prune(root: Path, *, keep: int) -> None:
    changes = [entry for entry in history.read(root) if entry["action"] != "refused"]
    order = [version for entry in changes for version in (entry["from"], entry["to"]) if version]
    champions.prune(root, order=order, keep=keep)


def _earlier(entries: Sequence[history.Entry], *, root: Path) -> str:
    line = history.lineup(entries)
    if len(line) < 2:
        raise StageError(f"there is no champion before the present one; name one with --to, of: {_kept(root)}")
    return line[-2]


def _named(prefix: str, *, root: Path) -> str:
    found = [version for version in champions.kept(root) if version.startswith(prefix)]
    if len(found) != 1:
        raise ParamsError(f"--to {prefix!r} names {len(found)} champions; kept are: {_kept(root)}")
    return found[0]


def _kept(root: Path) -> str:
    return ", ".join(champions.kept(root)) or "none"
