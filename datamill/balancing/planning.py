"""The samples a plan is made for, what a method does to them, and the plan as a ledger."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill import ledger, parts
from datamill.balancing.interpolation import Interpolated

REASONS = {"random_under": "under_sampled", "smote_tomek": "tomek_link"}  # of the rows each method removes


@dataclass(frozen=True)
class Population:
    """All samples that may enter training or judge it; one entry per sample.

    Attributes:
        ids: Sample ids: what survived the audit, then copies and synthetic samples.
        labels: Class, shape ``(N,)``.
        splits: Name of the split, shape ``(N,)``.
        weight: Weight in the loss so far, float32, shape ``(N,)``.
        is_original: Whether the sample comes from the source, shape ``(N,)``.
    """

    ids: list[str]
    labels: NDArray[np.str_]
    splits: NDArray[np.str_]
    weight: NDArray[np.float32]
    is_original: NDArray[np.bool_]

    @property
    def train(self) -> NDArray[np.int64]:
        """Rows of the training split."""
        return np.flatnonzero(self.splits == "train")

    @property
    def originals(self) -> NDArray[np.int64]:
        """Rows of the training split that come from the source."""
        return np.flatnonzero((self.splits == "train") & self.is_original)


@dataclass(frozen=True)
class Treatment:
    """What a method does to a population of N samples.

    Attributes:
        weight: Factor of each sample's weight in the loss, float32, shape ``(N,)``.
        draw: Relative probability of each sample to be drawn, float32, shape ``(N,)``.
        removed: Rows taken out, ascending.
        made: New rows; their parents are rows of the population. ``None`` where the method makes none.
    """

    weight: NDArray[np.float32]
    draw: NDArray[np.float32]
    removed: NDArray[np.int64]
    made: Interpolated | None = None


def read_population(audited: Path, *, generated: Sequence[Path]) -> Population:
    """Survivors of the audit's ledger, and every sample of the generated parts as a training sample of weight 1."""
    judged = ledger.read(audited, columns=["sample_id", "fate", "split", "label", "weight"])
    judged = judged.filter(pc.is_in(judged["fate"], pa.array(ledger.SURVIVING)))
    made = pa.concat_tables(parts.read_table(folder, columns=["sample_id", "label"]) for folder in generated)
    num_judged, num_made = judged.num_rows, made.num_rows
    return Population(
        ids=judged["sample_id"].to_pylist() + made["sample_id"].to_pylist(),
        labels=np.array(judged["label"].to_pylist() + made["label"].to_pylist(), str),
        splits=np.array(judged["split"].to_pylist() + ["train"] * num_made, str),
        weight=np.concatenate([judged["weight"].to_numpy().astype(np.float32), np.ones(num_made, np.float32)]),
        is_original=np.arange(num_judged + num_made) < num_judged,
    )


def write_plan(
    path: Path, *, population: Population, treatment: Treatment, made_ids: Sequence[str], method: str
) -> None:
    """Write the ledger: every sample's split, label, weight and draw, then those of the new samples."""
    made_labels = treatment.made.labels.tolist() if treatment.made is not None else []
    num_rows, num_made = len(population.ids), len(made_ids)
    fates, reasons = ["kept"] * (num_rows + num_made), [""] * (num_rows + num_made)
    for row in treatment.removed.tolist():
        fates[row], reasons[row] = "dropped", REASONS[method]
    one = np.ones(num_made, np.float32)
    ledger.write(
        path,
        sample_ids=[*population.ids, *made_ids],
        fates=fates,
        reasons=reasons,
        details=[""] * (num_rows + num_made),
        extra={
            "split": pa.array([*population.splits.tolist(), *["train"] * num_made], pa.string()),
            "label": pa.array([*population.labels.tolist(), *made_labels], pa.string()),
            "weight": pa.array(np.concatenate([population.weight * treatment.weight, one])),
            "draw": pa.array(np.concatenate([treatment.draw, one])),
        },
    )


def measure(population: Population, treatment: Treatment) -> dict[str, Any]:
    """Training samples per class before and after, made and removed ones, largest factors, classes left as they are."""
    before = Counter(population.labels[population.train].tolist())
    removed = Counter(population.labels[treatment.removed].tolist())
    made = Counter(treatment.made.labels.tolist() if treatment.made is not None else [])
    skipped = treatment.made.skipped if treatment.made is not None else {}
    return {
        "classes": {
            label: {"before": size, "after": size - removed[label] + made[label]}
            for label, size in sorted(before.items())
        },
        "made": made.total(),
        "removed": removed.total(),
        "max_weight": float(treatment.weight.max(initial=0)),
        "max_draw": float(treatment.draw.max(initial=0)),
        "not_interpolated": dict(skipped),
    }
