"""What the cards show, read from the artifacts of the run."""

import csv
import itertools
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamill import ledger, parts
from datamill.evaluation import reports
from datamill.reporting import funnel
from datamill.reporting.data_card import DataFacts
from datamill.reporting.model_card import About, ModelFacts
from datamill.shards.native import Shard
from datamill.training.history import read_history

NUM_SUSPECTS = 10  # lines of the audit's list that the card shows
MAX_CELL = 60  # characters of one cell of that list
ID_DIGITS = 13  # of a sample's id: enough to find it with, shorter than the whole


def read_model_facts(
    paths: Mapping[str, Path],
    *,
    about: About,
    interface: Mapping[str, Any],
    exported: Mapping[str, Any],
    times: Mapping[str, Any],
    shards: Mapping[str, Shard],
) -> ModelFacts:
    """Everything on the model card.

    Args:
        paths: ``evaluated``, ``trained`` (metrics), ``confusion``, ``calibration``, ``slices``, ``mistakes``,
            ``history`` and ``diagnosis``; the last one may be missing, because it is not versioned.
        about: The owner's words.
        interface: What the export says of the model's interface.
        exported: The export's metrics.
        times: The export's latencies.
        shards: The shard of each split.
    """
    diagnosis = paths["diagnosis"]
    return ModelFacts(
        about=about,
        interface=interface,
        evaluated=_read_json(paths["evaluated"]),
        trained=_read_json(paths["trained"]),
        exported=exported,
        times=times,
        confusion=reports.read_confusion(paths["confusion"], classes=interface["classes"]),
        bins=reports.read_bins(paths["calibration"]),
        slices=reports.read_slices(paths["slices"]),
        history=read_history(paths["history"]),
        mistakes_png=paths["mistakes"].read_bytes(),
        diagnosis=diagnosis.read_text(encoding="utf-8") if diagnosis.exists() else None,
        rows={split: shard.num_rows for split, shard in shards.items()},
    )


def read_data_facts(paths: Mapping[str, Path], *, about: About, shards: Mapping[str, Shard]) -> DataFacts:
    """Everything on the data card.

    Args:
        paths: ``samples``, ``rejects``, ``schema``, the ledgers ``verdicts``, ``cleaned``, ``assignments``,
            ``audited``, ``plan`` and ``sharded``, the parts ``copies``, ``synthetic`` and ``resampled``, the ledger of
            candidates ``admissions``, the list ``suspects``, and the pictures ``preview`` and ``sheet``.
        about: The owner's words.
        shards: The shard of each split.
    """
    ledgers = {
        "validate": paths["verdicts"],
        "clean": paths["cleaned"],
        "split": paths["assignments"],
        "audit": paths["audited"],
        "balance": paths["plan"],
        "shard": paths["sharded"],
    }
    source, made = funnel.class_counts(shards, sources=ledger.survivors(paths["assignments"]))
    generators = {"augment": "copies", "synthesize": "synthetic", "balance": "resampled"}
    return DataFacts(
        about=about,
        dataset=parts.read_manifest(paths["samples"]).dataset,
        steps=[funnel.ingest_step(paths["samples"], rejects=paths["rejects"]), *funnel.ledger_steps(ledgers)],
        source=source,
        made=made,
        generated={stage: parts.read_manifest(paths[port]).num_rows for stage, port in generators.items()},
        rules=_read_json(paths["schema"])["expectations"],
        suspects=_first_lines(paths["suspects"]),
        candidates=_candidates(paths["admissions"]),
        preview_png=paths["preview"].read_bytes(),
        synthetic_png=paths["sheet"].read_bytes(),
    )


def _candidates(path: Path) -> list[tuple[str, str, int]]:
    rows = ledger.read(path, columns=["fate", "reason"])
    counted = Counter(zip(rows["fate"].to_pylist(), rows["reason"].to_pylist(), strict=True))
    return [
        (fate, reason, count) for (fate, reason), count in sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    ]


def _first_lines(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = itertools.islice(csv.reader(file), NUM_SUSPECTS + 1)
    widths = [ID_DIGITS if name == "sample_id" else MAX_CELL for name in header]
    return [header, *([_cut(cell, width) for cell, width in zip(line, widths, strict=True)] for line in lines)]


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 1] + "…"


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))
