"""What a flow run leaves for later: its record, and why its number is not the champion's, or that of the run before."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from datamill.errors import DataError, DatamillError
from datamill.lineage import recording
from datamill.lineage.pruning import prune
from datamill.lineage.runs import CHAMPION, Run, find_run, open_record, records
from datamill.tracking import Session, Tracker
from tasks import PIPELINE

MEASURED = "evaluate"


def keep_record(root: Path, *, session: Session, statuses: Mapping[str, str], tracker: Tracker) -> None:
    """Put the run on record, here and in MLflow; a full disk is told and stops nothing."""
    try:
        folder = recording.record(root, session=session, statuses=statuses, stages=PIPELINE, now=datetime.now(UTC))
    except OSError as error:
        print(f"  warning: this run is not on record: {error}", file=sys.stderr, flush=True)
        return
    tracker.log_record(folder)
    try:
        prune(root, keep=tracker.settings.keep_runs)
    except (DatamillError, OSError) as error:
        print(f"  warning: old runs stay on record: {error}", file=sys.stderr, flush=True)


def tell_why(root: Path, *, session: Session, statuses: Mapping[str, str]) -> None:
    """A Prefect artifact that explains the run's accuracy, since the champion, or else since the run before it.

    Without an earlier run, or a measured number, there is nothing to tell.
    """
    if statuses.get(MEASURED) not in {"executed", "cached"}:
        return
    try:
        before = _earlier(root, session=session)
        if before is not None:
            after = open_record(root / recording.FOLDER / session.key, root=root)
            _tell(before, after)
    except (DatamillError, OSError) as error:
        print(f"  why it changed is not told: {error}", file=sys.stderr, flush=True)


def _tell(before: Run, after: Run) -> None:
    description = f"What changed since {before.name}"
    create_markdown_artifact(key="datamill-why", markdown=_why(before, after), description=description)


def _why(before: Run, after: Run) -> str:
    if before.lock and before.lock == after.lock:  # most scheduled runs: nothing is read or imported for those
        return f"Nothing changed since {before.name}: source, parameters, code and every result are the same."
    from datamill.lineage import telling
    from datamill.lineage.explaining import DEFAULT_METRIC, explain

    return telling.to_markdown(explain(before, after, metric=DEFAULT_METRIC, stages=PIPELINE))


def _earlier(root: Path, *, session: Session) -> Run | None:
    try:
        return find_run(CHAMPION, stages=PIPELINE, root=root)
    except DataError:  # none yet, or one that came from elsewhere
        folders = [folder for folder in records(root) if folder.name != session.key]
        return open_record(folders[0], root=root) if folders else None
