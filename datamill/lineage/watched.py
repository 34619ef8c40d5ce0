"""What became of a watched window and of an alert, read from the files that watching leaves behind."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from datamill.errors import DataError
from datamill.lineage.trail import Chapter, Trail
from datamill.settings import STATE
from datamill.stage import Stage

WINDOWS, VERDICT, LABELS = "reports/windows", "verdict.json", "labels.json"
ALERTS = f"{STATE}/watch/alerts.db"
MAX_LISTED = 5


def trace_window(text: str, *, stages: Sequence[Stage], root: Path) -> Trail:
    """What was found about a watched window, and which alerts it is part of."""
    folders = sorted(path.parent for path in (root / WINDOWS).glob(f"*/{VERDICT}"))
    fitting = [folder for folder in folders if folder.name == text or folder.name.lstrip("0") == text]
    if not fitting:
        names = ", ".join(folder.name for folder in folders[-MAX_LISTED:]) or "none"
        raise DataError(f"no window is called {text!r} below {root / WINDOWS}; the latest there: {names}")
    return Trail(f"window {fitting[0].name}", tuple(_window_chapters(fitting[0], root=root)))


def _window_chapters(folder: Path, *, root: Path) -> Iterator[Chapter]:
    verdict = json.loads((folder / VERDICT).read_text(encoding="utf-8"))
    place = folder.relative_to(root).as_posix()
    told = ("judged_at", "source", "model", "is_drift", "is_at_risk", "rejects", "num_waiting")
    facts = {name: verdict[name] for name in told if name in verdict}
    found = verdict.get("verdict", {})
    yield Chapter(
        "window", place, facts | {"samples": found.get("num_samples"), "reference": found.get("num_reference")}
    )
    yield from _found_chapters(found, place=place)
    if (folder / LABELS).is_file():
        later = json.loads((folder / LABELS).read_text(encoding="utf-8"))
        facts = {name: later[name] for name in ("judged_at", "is_drift", "is_at_risk")}
        yield Chapter("labels", place, facts | {"labels": later["verdict"]["num_samples"]})
        yield from _found_chapters(later["verdict"], place=place)
    for body, change in _told(root):
        if _folder_name(body) == folder.name:
            yield _alert_chapter(body, change)


def _found_chapters(found: dict[str, Any], *, place: str) -> Iterator[Chapter]:
    if found.get("performance"):
        yield Chapter("performance", place, found["performance"])
    for outcome in found.get("outcomes", ()):
        if outcome["is_drift"]:
            names = ("detector", "subject", "effect_name", "effect", "p_value")
            yield Chapter(f"{outcome['kind']} drift", place, {name: outcome[name] for name in names})


def trace_alert(text: str, *, stages: Sequence[Stage], root: Path) -> Trail:
    """Every window that raised, repeated or ended an alert, the latest with what was found there."""
    if not (root / ALERTS).is_file():
        raise DataError(f"{root / ALERTS} is missing: nothing was watched here yet, so there are no alerts")
    told = [(body, change) for body, change in _told(root) if change["fingerprint"].startswith(text)]
    fingerprints = sorted({change["fingerprint"] for _, change in told})
    if len(fingerprints) != 1:
        known = fingerprints or sorted({change["fingerprint"] for _, change in _told(root)})
        listed = ", ".join(known[:MAX_LISTED]) or "none"
        raise DataError(f"{len(fingerprints)} alerts have a fingerprint that begins with {text!r}; there are {listed}")
    chapters = [_alert_chapter(body, change) for body, change in told]
    folder = root / WINDOWS / _folder_name(told[-1][0])
    if (folder / VERDICT).is_file():
        chapters += [chapter for chapter in _window_chapters(folder, root=root) if chapter.stage != "alert"]
    return Trail(f"alert {fingerprints[0]}", tuple(chapters))


def _alert_chapter(body: dict[str, Any], change: dict[str, Any]) -> Chapter:
    facts = {name: change[name] for name in ("event", "severity", "topic", "fingerprint")}
    return Chapter(
        "alert", f"window {body['window']}", {**facts, "at": body["at"], "model": body["model"], **body["links"]}
    )


def _folder_name(body: dict[str, Any]) -> str:
    """Folder of a window on record, also of one whose labels were judged later."""
    return str(body["window"]).partition(" ")[0]


def _told(root: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each window on record with each change of an alert in it, oldest first; read only."""
    path = root / ALERTS
    if not path.is_file():
        return
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            bodies = [json.loads(row[0]) for row in database.execute("SELECT body FROM windows ORDER BY number")]
    except (sqlite3.Error, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    for body in bodies:
        for change in body["changes"]:
            yield body, change
