"""What an evaluation leaves behind: tables of predictions, slices and bins, and the sheet of mistakes."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill import files, parts, sheets
from datamill.evaluation.calibration import Bin
from datamill.evaluation.comparison import DIGITS
from datamill.evaluation.metrics import Predictions
from datamill.evaluation.prediction import as_predictions
from datamill.evaluation.slices import Slice
from datamill.shards.native import Shard

COLUMNS = 8  # pictures in a row of the sheet, where they are small


def write_predictions(
    path: Path, *, shards: Mapping[str, Shard], probabilities: Mapping[str, NDArray[np.float32]]
) -> None:
    """Write each sample's split, label, prediction and probabilities, splits one after the other, rows in order."""
    tables = []
    for name, found in probabilities.items():
        shard, predictions = shards[name], as_predictions(shards[name], probabilities=found)
        classes = np.array(shard.classes, dtype=object)
        columns = {
            "sample_id": pa.array(shard.ids(), pa.string()),
            "split": pa.array([name] * shard.num_rows, pa.string()),
            "label": pa.array(classes[predictions.label], pa.string()),
            "predicted": pa.array(classes[predictions.predicted], pa.string()),
            "confidence": pa.array(predictions.confidence.astype(np.float32)),
            "probabilities": pa.array(list(found), pa.list_(pa.float32())),
        }
        tables.append(pa.table(columns))
    parts.write_parquet(pa.concat_tables(tables), path)


def write_confusion(path: Path, *, predictions: Predictions, classes: Sequence[str]) -> None:
    """Write true and predicted class, one row per sample: what DVC's confusion plot counts."""
    pairs = zip(predictions.label.tolist(), predictions.predicted.tolist(), strict=True)
    _write_csv(path, header=["actual", "predicted"], rows=[[classes[a], classes[p]] for a, p in pairs])


def write_rows(path: Path, rows: Sequence[Bin] | Sequence[Slice]) -> None:
    """Write one line per bin or slice, columns named after the fields."""
    assert rows, f"{path.name}: a test split with samples has at least one bin and one slice"
    header = [field.name for field in fields(rows[0])]
    _write_csv(path, header=header, rows=[list(_rounded(row).values()) for row in rows])


def read_confusion(path: Path, *, classes: Sequence[str]) -> NDArray[np.int64]:
    """Test samples by true class (row) and predicted class (column), shape ``(K, K)``."""
    number = {name: index for index, name in enumerate(classes)}
    counts_KK = np.zeros((len(classes), len(classes)), np.int64)
    for row in _read_csv(path):
        counts_KK[number[row["actual"]], number[row["predicted"]]] += 1
    return counts_KK


def read_bins(path: Path) -> list[Bin]:
    """The reliability bins of a ``calibration.csv``."""
    return [Bin(float(row["confidence"]), float(row["accuracy"]), int(row["count"])) for row in _read_csv(path)]


def read_slices(path: Path) -> list[Slice]:
    """The slices of a ``slices.csv``."""
    return [
        Slice(
            row["property"],
            row["value"],
            int(row["count"]),
            *(float(row[name]) for name in ("accuracy", "low", "high")),
        )
        for row in _read_csv(path)
    ]


def confident_mistakes(predictions: Predictions, *, count: int) -> NDArray[np.int64]:
    """Rows of the ``count`` wrong predictions with the highest confidence, highest first."""
    order = np.argsort(-predictions.confidence, kind="stable")
    return order[~predictions.is_correct[order]][:count]


def write_mistakes(
    path: Path,
    *,
    predictions: Predictions,
    rows: NDArray[np.int64],
    pictures: Sequence[NDArray[np.uint8]],
    classes: Sequence[str],
) -> None:
    """Write the pictures of some wrong predictions as one sheet; with none, the sheet says so."""
    num_wrong = int((~predictions.is_correct).sum())
    titles = [
        f"is {classes[predictions.label[row]]}\nsaid {classes[predictions.predicted[row]]}\n"
        f"{predictions.confidence[row]:.0%} sure"
        for row in rows
    ]
    heading = f"{num_wrong} of {predictions.num_samples} test samples are predicted wrongly"
    if not num_wrong:
        heading = f"No mistakes among {predictions.num_samples} test samples"
    elif len(rows):
        heading += f"\nthe {len(rows)} most confident of them" if len(rows) < num_wrong else "\nmost confident first"
    sheets.write_sheet(path, pictures, titles, sheets.columns_for(pictures, most=COLUMNS), heading)


def compare_note(compared: Mapping[str, Any]) -> dict[str, str]:
    """That the network is not surely better than the baseline, where it is not; said before it is used."""
    beside, difference = compared["baseline"], compared["baseline"]["difference"]["accuracy"]
    if difference.get("low", difference["value"]) > 0:
        return {}
    ends = f" ({difference['low']:+.4f} to {difference['high']:+.4f})" if "low" in difference else ""
    told = f"accuracy {compared['accuracy']:.4f} against {beside['accuracy']:.4f}, {difference['value']:+.4f}{ends}"
    return {"baseline": f"the network is not surely better than the baseline, a logistic regression: {told}"}


def as_metrics(worst: Slice | None) -> dict[str, Any]:
    """The worst slice for the stage's metrics; empty when no slice is large enough."""
    return {} if worst is None else _rounded(worst)


def notes(predictions: Predictions, *, classes: Sequence[str]) -> dict[str, str]:
    """What a reader of the metrics must know: metrics left out, classes without test samples."""
    found = np.unique(predictions.label)
    missing = [name for number, name in enumerate(classes) if number not in found]
    remarks = {}
    if missing:
        more = ", ..." if len(missing) > 5 else ""
        remarks["classes"] = (
            f"no test sample of {len(missing)} of {len(classes)} classes: {', '.join(missing[:5])}{more}"
        )
    if len(found) == 1:
        remarks["roc_auc"] = f"left out: every test sample is of class {classes[found[0]]}"
    return remarks


def _rounded(row: Bin | Slice) -> dict[str, Any]:
    return {name: round(value, DIGITS) if isinstance(value, float) else value for name, value in asdict(row).items()}


def _write_csv(path: Path, *, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with files.atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
