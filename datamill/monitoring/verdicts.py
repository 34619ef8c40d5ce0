"""Judged windows on disk: one folder each below ``reports/windows``.

Layout of a window's folder::

    verdict.json           what was found, when, about which model
    labels.json            the same of labels that came later, once there were enough
    report.html            the same for people, self-contained
    observations.parquet   sample_id, source, label, time, predicted class and confidence of every sample
    answers.parquet        what labels that come later are held against; for as long as they may come
    rejects.parquet        items that could not become samples
    sample/                inputs and answers of a few samples, as a reference folder; of the newest windows only
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from datamill import files
from datamill.drift.verdict import Estimate, Verdict
from datamill.errors import DataError

WINDOWS = "reports/windows"
VERDICT, LABELS, REPORT, OBSERVATIONS, REJECTS, SAMPLE = (
    "verdict.json", "labels.json", "report.html", "observations.parquet", "rejects.parquet", "sample",
)  # fmt: skip
About = Literal["items", "labels"]


@dataclass(frozen=True)
class Judged:
    """A judged window, or the labels of one that were judged later.

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
        about: Whether the verdict is about its items, or about labels of them that came later.
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
    about: About = "items"

    @property
    def name(self) -> str:
        """What the verdict is called among all."""
        return self.window if self.about == "items" else f"{self.window} (labels)"

    @property
    def num_rejects(self) -> int:
        """Items that could not become samples."""
        return sum(self.rejects.values())


def window_folder(root: Path, window: str) -> Path:
    """Where a window's files are."""
    return root / WINDOWS / window


def write_verdict(path: Path, judged: Judged) -> None:
    """Write a verdict as JSON; numbers that JSON does not have become null."""
    content = {**asdict(judged), "judged_at": judged.judged_at.isoformat()}
    content["is_drift"], content["is_at_risk"] = judged.verdict.is_drift, judged.verdict.is_at_risk
    files.write_json(path, _plain(content))


def read_verdict(folder: Path, *, name: str = VERDICT) -> Judged:
    """A judged window, or with the name ``LABELS`` what its labels told later.

    Raises:
        DataError: The file is missing or damaged.
    """
    path = folder / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        outcomes = [_numbers(one) for one in content["verdict"]["outcomes"]]
        content["verdict"] |= {"outcomes": outcomes}
        known = {name: content[name] for name in Judged.__dataclass_fields__ if name in content}
        return TypeAdapter(Judged).validate_python(known)
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


def measured(root: Path, windows: Iterable[Judged]) -> dict[int, Estimate]:
    """True performance by the number of those windows whose labels are known."""
    found: dict[int, Estimate] = {}
    for one in windows:
        performance = one.verdict.performance
        if (window_folder(root, one.window) / LABELS).is_file():
            performance = read_verdict(window_folder(root, one.window), name=LABELS).verdict.performance
        if performance is not None and performance.is_measured:
            found[one.number] = performance
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(outcome: dict[str, Any]) -> dict[str, Any]:
    return outcome | {name: math.nan for name in ("statistic", "effect") if outcome[name] is None}
