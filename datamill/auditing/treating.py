"""What happens to samples whose label is doubtful, and the list of the worst for people to look at."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill import files, ledger
from datamill.auditing.judging import Judgement
from datamill.auditing.roster import Roster
from datamill.derived import iter_chosen
from datamill.splitting import SPLITS

Policy = Literal["off", "flag", "drop", "relabel", "down_weight"]

FLAG, TREAT = 1, 2  # what happens to a sample: nothing (0), a flag, the policy
TOLD = ("label", "suggestion", "quality")
SUSPECT_COLUMNS = ["sample_id", "source", "split", "label", "suggestion", "quality", "action"]


def choose_actions(judgement: Judgement, *, is_train: NDArray[np.bool_], max_share: float) -> NDArray[np.int8]:
    """What happens to each sample, shape ``(N,)``: ``TREAT`` the worst training issues, ``FLAG`` the others.

    Args:
        judgement: The verdicts.
        is_train: Whether each sample teaches, shape ``(N,)``; the others are only ever flagged.
        max_share: Share of the training samples to act on at most.
    """
    actions = np.where(judgement.is_issue, np.int8(FLAG), np.int8(0))
    candidates = np.flatnonzero(judgement.is_issue & is_train)
    worst = candidates[np.argsort(judgement.quality[candidates], kind="stable")]
    actions[worst[: int(max_share * int(is_train.sum()))]] = TREAT
    return actions


def iter_audited(
    assignments: Path,
    *,
    roster: Roster,
    judgement: Judgement,
    actions: NDArray[np.int8],
    policy: Policy,
    classes: Sequence[str],
) -> Iterator[tuple[slice, pa.Table]]:
    """The samples with split, label, suggestion, quality, action and a sentence for the ledger, and their rows.

    Args:
        assignments: Ledger whose survivors the roster was read from.
        roster: The samples.
        judgement: What the audit thinks of them.
        actions: What happens to them (``choose_actions``).
        policy: Name of the action ``TREAT``.
        classes: Class names by number.
    """
    names = pa.array([*classes, ""], pa.string())  # of -1, too
    stop = 0
    for survivors in ledger.iter_survivors(assignments):
        start, stop = stop, stop + survivors.num_rows
        rows = slice(start, stop)
        quality = judgement.quality[rows]
        columns = {
            "sample_id": survivors["sample_id"],
            "split": pa.array(SPLITS).take(pa.array(roster.splits[rows])),
            "label": names.take(pa.array(roster.labels[rows])),
            "suggestion": names.take(pa.array(judgement.suggestion[rows] % len(names))),
            "quality": pa.array(quality, pa.float32(), mask=np.isnan(quality)),
            "action": pa.array(["", "flag", policy]).take(pa.array(actions[rows])),
        }
        yield rows, pa.table({**columns, "detail": _details(columns, doubtful=np.flatnonzero(actions[rows]))})


def _details(columns: Mapping[str, pa.Array], *, doubtful: NDArray[np.int64]) -> pa.Array:
    """A sentence about each doubtful row, "" for the others."""
    told = zip(*(columns[name].take(pa.array(doubtful)).to_pylist() for name in TOLD), strict=True)
    sentences = [f"labelled {label!r}, looks like {other!r}, quality {quality:.4f}" for label, other, quality in told]
    places = np.zeros(len(columns["label"]), np.int64)
    places[doubtful] = 1 + np.arange(len(doubtful))
    return pa.array(["", *sentences], pa.string()).take(pa.array(places))


def is_suspect(judgement: Judgement, *, actions: NDArray[np.int8], limit: int) -> NDArray[np.bool_]:
    """The samples something was said about, but for those that ``limit`` others are worse than, shape ``(N,)``."""
    is_worst = actions > 0
    quality = judgement.quality[is_worst]
    if len(quality) > limit:
        is_worst &= judgement.quality <= np.partition(quality, limit - 1)[limit - 1]
    return is_worst


def write_suspects(path: Path, *, suspects: pa.Table, samples: Path, limit: int) -> None:
    """Write suspects as CSV, worst label first, at most ``limit``.

    Args:
        path: The CSV file.
        suspects: ``sample_id`` and what ``tabulate`` says.
        samples: Parts folder that knows their ``source``.
        limit: Most rows (count).
    """
    worst = suspects.sort_by([("quality", "ascending"), ("sample_id", "ascending")]).slice(0, limit)
    source_of: dict[str, str] = {}
    for table in iter_chosen(samples, wanted=worst["sample_id"].to_pylist(), columns=["sample_id", "source"]):
        source_of |= dict(zip(table["sample_id"].to_pylist(), table["source"].to_pylist(), strict=True))
    with files.atomic_write(path) as partial_path, partial_path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SUSPECT_COLUMNS)
        for row in worst.to_pylist():
            row["source"], row["quality"] = source_of[row["sample_id"]], f"{row['quality']:.6f}"
            writer.writerow([row[name] for name in SUSPECT_COLUMNS])
