"""What comes of judged candidates: parts of the admitted ones, the ledger of all, numbers and a sheet."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill import ledger, parts, sheets
from datamill.derived import read_in_order
from datamill.generators.synthesis import Candidates, RealClass
from datamill.modalities import modality_of
from datamill.samples import Dataset

NUM_SHOWN = {"image": 6, "tabular": 2}  # real and synthetic pictures of each class on the sheet, by width
MAX_CLASSES_SHOWN = 20
REAL_COLOUR, KEPT_COLOUR, REJECTED_COLOUR = "#868e96", "#2b8a3e", "#c92a2a"


def report(
    judged: Sequence[Candidates], *, skipped: Mapping[str, int], real: Mapping[str, RealClass]
) -> dict[str, Any]:
    """Numbers for the stage's metrics: all candidates, then class by class."""
    reasons = Counter(reason for one in judged for reason in one.verdict.reasons)
    classes: dict[str, Any] = {
        label: {"train_rows": rows, "skipped": "class_too_small"} for label, rows in skipped.items()
    }
    for one in judged:
        classes[one.label] = {
            "train_rows": len(real[one.label].ids),
            "candidates": one.table.num_rows,
            "admitted": one.verdict.reasons.count(""),
            "density": round(one.verdict.density, 4),
            "coverage": round(one.verdict.coverage, 4),
            "expected_coverage": round(one.verdict.expected_coverage, 4),
        }
    return {
        "candidates": sum(reasons.values()),
        "admitted": reasons.pop("", 0),
        "reasons": dict(sorted(reasons.items())),
        "classes": classes,
    }


def write_admitted(folder: Path, *, judged: Sequence[Candidates], dataset: Dataset) -> None:
    """Write the admitted samples as parts."""
    with parts.PartsWriter(folder, dataset=dataset) as writer:
        for one in judged:
            writer.write(one.admitted)


def write_admissions(path: Path, *, judged: Sequence[Candidates]) -> None:
    """Write the ledger of all candidates, with the class and the nearest training sample of each."""
    reasons = [reason for one in judged for reason in one.verdict.reasons]
    tables = [one.table.select(["sample_id", "label", "parents"]) for one in judged]
    rows = [row for table in tables for row in table.to_pylist()]
    ledger.write(
        path,
        sample_ids=[row["sample_id"] for row in rows],
        fates=["dropped" if reason else "kept" for reason in reasons],
        reasons=reasons,
        details=[detail for one in judged for detail in one.verdict.details],
        extra={
            "label": pa.array([row["label"] for row in rows], pa.string()),
            "nearest": pa.array([row["parents"][0] for row in rows], pa.string()),
        },
    )


def check_admissions(folder: Path, ledger_path: Path) -> None:
    """Assert that the parts hold exactly the candidates the ledger admits."""
    written = parts.read_table(folder, columns=["sample_id"])["sample_id"].to_pylist()
    assert written == ledger.survivors(ledger_path), f"{folder} and {ledger_path} differ about who was admitted"


def write_sheet(
    path: Path,
    *,
    judged: Sequence[Candidates],
    real: Mapping[str, RealClass],
    folder: Path,
    repairs: Path,
    dataset: Dataset,
    method: str,
) -> None:
    """Draw the first classes, a row each: real samples, then synthetic ones with the gate's verdict.

    With nothing generated, the picture says so.

    Args:
        path: The PNG file.
        judged: Candidates of each class.
        real: Training samples of each class.
        folder: Parts folder with their payload.
        repairs: Parts folder of repaired payloads.
        dataset: What the payload is.
        method: Name of the generator.
    """
    view, num_shown = modality_of(dataset), NUM_SHOWN[dataset.modality]
    pictures: list[NDArray[np.uint8]] = []
    titles: list[str] = []
    colours: list[str] = []
    shown = judged[:MAX_CLASSES_SHOWN]
    wanted = [real[one.label].ids[:num_shown] for one in shown]
    table = read_in_order(folder, wanted=[key for ids in wanted for key in ids], repairs=repairs)
    starts = itertools.accumulate(map(len, wanted), initial=0)
    for one, ids, start in zip(shown, wanted, starts, strict=False):
        originals = table.slice(start, len(ids))
        verdicts = [reason or "admitted" for reason in one.verdict.reasons[:num_shown]]
        for some, names in ((originals, ["real"] * originals.num_rows), (one.table.slice(0, num_shown), verdicts)):
            missing = num_shown - some.num_rows
            pictures += view.pictures(some, dataset=dataset) + [np.full((8, 8, 3), 255, np.uint8)] * missing
            titles += [f"{one.label}\n{name.replace('_', ' ')}" for name in names] + [""] * missing
            colours += [_colour(name) for name in names] + ["#ffffff"] * missing
    sheets.write_sheet(path, pictures, titles, 2 * num_shown, _heading(judged, method=method), colours=colours)


def _heading(judged: Sequence[Candidates], *, method: str) -> str:
    if method == "off":
        return "No synthetic samples\nsynthesize.method is off"
    admitted = sum(one.verdict.reasons.count("") for one in judged)
    total = sum(one.table.num_rows for one in judged)
    return f"Synthetic samples by {method}: {admitted} of {total} candidates admitted\neach class: real, then synthetic"


def _colour(name: str) -> str:
    return {"real": REAL_COLOUR, "admitted": KEPT_COLOUR}.get(name, REJECTED_COLOUR)
