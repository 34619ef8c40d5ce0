"""A workspace as it is after evaluate, written at once: 64 rows of a table, every ledger, predictions, no network."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from datamill import catalog, files, ledger, parts
from tests.builders import CLASSES, tabular_table, write_parts

REPOSITORY = Path(__file__).resolve().parent.parent
LEDGERS = (catalog.VALIDATE_VERDICTS, catalog.CLEAN_LEDGER)


def split_of(row: int) -> str:
    """Split of a row: four of eight in train, one in validation, three in test."""
    return ("train", "train", "train", "train", "validation", "test", "test", "test")[row % 8]


def write_workspace(
    root: Path,
    *,
    drop: Collection[int] = (),
    relabel: Mapping[int, str] | None = None,
    wrong: Collection[int] = (),
    audited: Collection[int] = (),
    splits: Callable[[int], str] = split_of,
    params: Mapping[str, Mapping[str, object]] | None = None,
) -> Path:
    """A workspace whose rows are numbered as in the source, whatever is dropped.

    Args:
        root: Made where it does not exist.
        drop: Rows that the source does not have.
        relabel: Rows with another label.
        wrong: Rows that the model gets wrong.
        audited: Rows that audit drops.
        splits: Split of each row.
        params: Sections of the default parameters to change.
    """
    dataset, table = tabular_table()
    rows = [row for row in range(table.num_rows) if row not in drop]
    labels = [(relabel or {}).get(row, label) for row, label in enumerate(table["label"].to_pylist())]
    table = table.set_column(table.column_names.index("label"), "label", pa.array(labels)).take(pa.array(rows))
    write_parts(root / catalog.INGEST_SAMPLES.path, dataset, table)
    (root / "reports/evaluate").mkdir(parents=True)
    ledger.write_rejects(
        root / catalog.INGEST_REJECTS.path, [(f"item-{row:04d}", "bad_row", "no target") for row in drop]
    )
    ids = table["sample_id"].to_pylist()
    for artifact in LEDGERS:
        ledger.write(root / artifact.path, sample_ids=ids, fates="kept", reasons="", details="")
    placed = pa.array([splits(row) for row in rows])
    ledger.write(
        root / catalog.SPLIT_ASSIGNMENTS.path,
        sample_ids=ids,
        fates="kept",
        reasons="",
        details="",
        extra={"split": placed},
    )
    fates = ["dropped" if row in audited else "kept" for row in rows]
    reasons = ["label_issue" if row in audited else "" for row in rows]
    columns = {"split": placed, "label": table["label"]}
    ledger.write(
        root / catalog.AUDIT_LEDGER.path, sample_ids=ids, fates=fates, reasons=reasons, details="", extra=columns
    )
    kept = pa.array([row not in audited for row in rows])
    left = {name: column.filter(kept) for name, column in columns.items()}
    left_ids = table["sample_id"].filter(kept)
    ledger.write(
        root / catalog.BALANCE_PLAN.path, sample_ids=left_ids, fates="kept", reasons="", details="", extra=left
    )
    places = {name: iter(range(len(rows))) for name in ("train", "validation", "test")}
    place = pa.array([next(places[split]) for split in left["split"].to_pylist()])
    ledger.write(
        root / catalog.SHARD_LEDGER.path,
        sample_ids=left_ids,
        fates="kept",
        reasons="",
        details="",
        extra={"split": left["split"], "row": place},
    )
    _write_predictions(root, table=table, rows=rows, splits=splits, wrong=wrong)
    sections = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    for name, changed in (params or {}).items():
        sections[name] |= changed
    (root / "params.yaml").write_text(yaml.safe_dump(sections, sort_keys=False))
    return root


def _write_predictions(
    root: Path, *, table: pa.Table, rows: list[int], splits: Callable[[int], str], wrong: Collection[int]
) -> None:
    measured = [place for place, row in enumerate(rows) if splits(row) != "train"]
    label = [CLASSES.index(table["label"][place].as_py()) for place in measured]
    said = [(number + (rows[place] in wrong)) % 3 for place, number in zip(measured, label, strict=True)]
    probabilities = np.full((len(measured), 3), 0.1, np.float32)
    probabilities[np.arange(len(measured)), said] = 0.8
    predictions = pa.table(
        {
            "sample_id": table["sample_id"].take(pa.array(measured)),
            "split": pa.array([splits(rows[place]) for place in measured]),
            "label": pa.array([CLASSES[number] for number in label]),
            "predicted": pa.array([CLASSES[number] for number in said]),
            "probabilities": pa.array(list(probabilities), pa.list_(pa.float32())),
        }
    )
    path = root / catalog.EVALUATE_PREDICTIONS.path
    path.parent.mkdir(parents=True, exist_ok=True)
    parts.write_parquet(predictions, path)
    tested = predictions.filter(pc.equal(predictions["split"], "test"))
    right = pc.equal(tested["label"], tested["predicted"]).to_pylist()
    files.write_json(root / "reports/evaluate.json", {"samples": len(right), "accuracy": sum(right) / len(right)})
    lines = ["property,value,count,accuracy,low,high"]
    for name in CLASSES:
        chosen = [one for one, label in zip(right, tested["label"].to_pylist(), strict=True) if label == name]
        lines.append(f"class,{name},{len(chosen)},{sum(chosen) / max(1, len(chosen))},0.0,1.0")
    (root / catalog.EVALUATE_SLICES.path).write_text("\n".join(lines) + "\n")
