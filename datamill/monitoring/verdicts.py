"""Judged windows on disk: one folder each below ``reports/windows``.

Layout of a window's folder::

    verdict.json           what was found, when, about which model
    report.html            the same for people, self-contained
    observations.parquet   sample_id, source, label, time, predicted class and confidence of every sample
    rejects.parquet        items that could not become samples
    sample/                inputs and answers of a few samples, as a reference folder; of the newest windows only
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from datamill import files
from datamill.drift.verdict import Verdict
from datamill.errors import DataError

WINDOWS = "reports/windows"
VERDICT, REPORT, OBSERVATIONS, REJECTS, SAMPLE = (
    "verdict.json", "report.html", "observations.parquet", "rejects.parquet", "sample",
)  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """A judged window.

    Attributes:
        window: Name of its folder: its number in six digits.
        number: Counts from 1 in the workspace.
        judged_at: When, in UTC.
        model: Name of the model.
        source: Where the items came from, without secrets.
        verdict: What was found.
        rejects: Number of rejects by reason.
        num_waiting: Files that were too young or damaged and wait for the next window.
        has_more: Whether the window was full, and items were left for the next.
    """

    window: str
    number: int
    judged_at: datetime
    model: str
    source: str
    verdict: Verdict
    rejects: Mapping[str, int] = field(default_factory=dict)
    num_waiting: int = 0
    has_more: bool = False

    @property
    def num_rejects(self) -> int:
        """Items that could not become samples."""
        return sum(self.rejects.values())


def window_folder(root: Path, window: str) -> Path:
    """Where a window's files are."""
    return root / WINDOWS / window


def write_verdict(folder: Path, judged: Judged) -> None:
    """Write ``verdict.json``; numbers that JSON does not have become null."""
    content = {**asdict(judged), "judged_at": judged.judged_at.isoformat()}
    content["is_drift"], content["is_at_risk"] = judged.verdict.is_drift, judged.verdict.is_at_risk
    files.write_json(folder / VERDICT, _plain(content))


def read_verdict(folder: Path) -> Judged:
    """A judged window.

    Raises:
        DataError: The file is missing or damaged.
    """
    path = folder / VERDICT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        outcomes = [_numbers(one) for one in content["verdict"]["outcomes"]]
        content["verdict"] |= {"outcomes": outcomes}
        return TypeAdapter(Judged).validate_python({name: content[name] for name in Judged.__dataclass_fields__})
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: there is no such window, or it was deleted") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}); the window's report may still tell") from error


def recent(root: Path, *, count: int) -> list[Judged]:
    """The newest judged windows, oldest first; damaged ones are left out."""
    found: list[Judged] = []
    for folder in sorted((root / WINDOWS).glob("[0-9]*"), reverse=True):
        if len(found) == count:
            break
        try:
            found.append(read_verdict(folder))
        except DataError:
            continue
    return found[::-1]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(outcome: dict[str, Any]) -> dict[str, Any]:
    return outcome | {name: math.nan for name in ("statistic", "effect") if outcome[name] is None}
