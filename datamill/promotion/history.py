"""Every decision ever made, one JSON line each, each sealed together with all before it: an edit does not go unnoticed.

A line holds ``number``, ``time``, ``who``, ``action``, ``from``, ``to``, ``because``, ``reasons``, ``evidence`` and, to
chain it, ``previous`` (the seal of the line before) and ``seal`` (the SHA-256 of everything else in the line).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from datamill import files
from datamill.errors import DataError
from datamill.promotion.evidence import digest
from datamill.promotion.reasons import Reason
from datamill.settings import STATE

HISTORY = "reports/promotions.jsonl"
HEAD = f"{STATE}/promotion.head"  # the last seal: without it, nobody would miss the last lines
BEGINNING = "0" * 64  # what the first line names as the seal before it

Action = Literal["promoted", "forced", "refused", "rolled back"]
Entry = dict[str, Any]


def append(
    root: Path,
    *,
    action: Action,
    who: str,
    now: datetime,
    came_from: str | None,
    to: str,
    because: str,
    reasons: Sequence[Reason],
    evidence: str,
) -> Entry:
    """Add a decision to the history and return it as it stands there.

    Args:
        root: The workspace.
        action: What was decided.
        who: The person or flow run that decided.
        now: When, in UTC.
        came_from: Version of the champion until now; ``None`` when there is none.
        to: Version that was judged, or gone back to.
        because: A person's own words; empty when there are none.
        reasons: What every check found.
        evidence: Digest of the evidence.

    Raises:
        DataError: The history was changed by hand.
    """
    entries = read(root)
    entry: Entry = {
        "number": len(entries) + 1,
        "time": now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "who": who,
        "action": action,
        "from": came_from,
        "to": to,
        "because": because,
        "reasons": [asdict(reason) for reason in reasons],
        "evidence": evidence,
        "previous": entries[-1]["seal"] if entries else BEGINNING,
    }
    entry["seal"] = digest(entry)
    lines = [*_lines(root), json.dumps(entry, ensure_ascii=False, allow_nan=False)]
    with files.atomic_write(root / HISTORY) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with files.atomic_write(root / HEAD) as partial:
        partial.write_text(entry["seal"], encoding="utf-8")
    return entry


def read(root: Path) -> list[Entry]:
    """Every decision, oldest first; none before the first one.

    Raises:
        DataError: A line was changed, added, removed or torn; names the first one.
    """
    entries: list[Entry] = []
    for number, line in enumerate(_lines(root), start=1):
        fault = _fault(line, number=number, previous=entries[-1]["seal"] if entries else BEGINNING)
        if fault:
            raise _distrust(root, fault=f"line {number} {fault}")
        entries.append(json.loads(line))
    head = root / HEAD
    if head.exists() and head.read_text(encoding="utf-8") not in {entry["seal"] for entry in entries}:
        raise _distrust(root, fault=f"its end is missing: {len(entries)} lines are left, and there were more")
    return entries


def champion(entries: Sequence[Mapping[str, Any]]) -> str | None:
    """Version of the champion after these decisions; ``None`` when none was promoted."""
    return next(reversed(lineup(entries)), None)


def lineup(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Champions that lead up to the present one, which is the last; going back takes those after it off."""
    line = [entry["from"] for entry in entries[:1] if entry["from"]]  # champion when this history began
    for entry in entries:
        if entry["action"] == "rolled back" and entry["to"] in line:
            line = line[: len(line) - line[::-1].index(entry["to"])]
        elif entry["action"] != "refused" and line[-1:] != [entry["to"]]:
            line.append(entry["to"])
    return line


def after(entries: Sequence[Entry], *, seal: str) -> list[Entry]:
    """The entries after the one with this seal; all where none has it."""
    seals = [entry["seal"] for entry in entries]
    return list(entries[seals.index(seal) + 1 :] if seal in seals else entries)


def _lines(root: Path) -> list[str]:
    path = root / HISTORY
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return text.removesuffix("\n").split("\n") if text else []


def _distrust(root: Path, *, fault: str) -> DataError:
    return DataError(
        f"{root / HISTORY}: {fault}, so the history cannot be trusted; restore it with `git checkout {HISTORY}`, or "
        f"from the tags of the model in MLflow; or move it and {HEAD} away to begin a new one"
    )


def _fault(line: str, *, number: int, previous: str) -> str:
    try:
        entry = dict(json.loads(line))
        seal = entry.pop("seal")
    except (ValueError, TypeError, KeyError):
        return "is no sealed entry"
    if seal != digest(entry):
        return "was edited: its seal does not fit"
    if entry.get("previous") != previous or entry.get("number") != number:
        return "does not follow the line before: lines were removed, added or exchanged"
    return ""
