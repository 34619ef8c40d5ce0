"""The samples a plan is made for, what a method does to them, and the plan as a ledger."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datamill import ledger, parts
from datamill.balancing.interpolation import Interpolated

REASONS = {"random_under": "under_sampled", "smote_tomek": "tomek_link"}  # of the rows each method removes
COLUMNS = ("sample_id", "split", "label", "weight")


@dataclass(frozen=True)
class Population:
    """All samples that may enter training or judge it, as numbers; one entry per sample.

    They stand in the order of the plan: what survived the audit, then copies and synthetic samples.

    Attributes:
        classes: Class names by number.
        labels: Number of the class, int32, shape ``(N,)``.
        is_train: Whether the sample teaches, shape ``(N,)``.
        weight: Weight in the loss so far, float32, shape ``(N,)``.
        num_judged: Samples that come from the source; the others were generated.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    is_train: NDArray[np.bool_]
    weight: NDArray[np.float32]
    num_judged: int

    @property
    def train(self) -> NDArray[np.int64]:
        """Rows of the training split."""
        return np.flatnonzero(self.is_train)

    @property
    def originals(self) -> NDArray[np.int64]:
        """Rows of the training split that come from the source."""
        return np.flatnonzero(self.is_train[: self.num_judged])

    @property
    def sizes(self) -> dict[str, int]:
        """Training samples of each class that has any, by name."""
        return count_labels(self.labels[self.is_train], classes=self.classes)


@dataclass(frozen=True)
class Treatment:
    """What a method does to a population of N samples.

    Attributes:
        weight: Factor of each sample's weight in the loss, float32, shape ``(N,)``.
        draw: Relative probability of each sample to be drawn, float32, shape ``(N,)``.
        removed: Rows taken out, ascending.
        made: New rows between the originals of train. ``None`` where the method makes none.
        ids: Ids of the originals, where there are new rows.
    """

    weight: NDArray[np.float32]
    draw: NDArray[np.float32]
    removed: NDArray[np.int64]
    made: Interpolated | None = None
    ids: pa.ChunkedArray | None = None


def ones(count: int) -> NDArray[np.float32]:
    """So many ones in the memory of one."""
    return np.broadcast_to(np.float32(1), count)


def count_labels(labels: NDArray[np.int32], *, classes: Sequence[str]) -> dict[str, int]:
    """How many samples each class has that has any, in alphabetical order."""
    counts = np.zeros(len(classes), np.int64)
    for start in range(0, len(labels), ledger.READ_ROWS):  # numpy would copy all of them to 8 bytes each
        counts += np.bincount(labels[start : start + ledger.READ_ROWS], minlength=len(classes))
    return {label: count for label, count in sorted(zip(classes, counts.tolist(), strict=True)) if count}


def read_population(audited: Path, *, generated: Sequence[Path], classes: tuple[str, ...]) -> Population:
    """Survivors of the audit's ledger, and every sample of the generated parts as a training sample of weight 1."""
    known = pa.array(classes, pa.string())
    num_rows = pq.read_metadata(audited).num_rows + sum(parts.read_manifest(one).num_rows for one in generated)
    labels, weight = np.empty(num_rows, np.int32), np.empty(num_rows, np.float32)
    is_train = np.empty(num_rows, bool)
    num_judged = stop = 0
    for place, table in enumerate_members(audited, generated=generated):
        start, stop = stop, stop + table.num_rows
        labels[start:stop] = pc.index_in(table["label"], value_set=known).to_numpy()
        is_train[start:stop] = pc.equal(table["split"], "train").to_numpy()
        weight[start:stop] = table["weight"].to_numpy()
        num_judged = stop if place == 0 else num_judged
    return Population(
        classes=classes,
        labels=labels[:stop],
        is_train=is_train[:stop],
        weight=weight[:stop],
        num_judged=num_judged,
    )


def enumerate_members(audited: Path, *, generated: Sequence[Path]) -> Iterator[tuple[int, pa.Table]]:
    """``COLUMNS`` of all samples in the order of the plan, with 0 for the audit's, 1 and more for generated ones."""
    for table in ledger.iter_survivors(audited, columns=COLUMNS):
        yield 0, table
    for place, folder in enumerate(generated, start=1):
        for table in parts.iter_tables(folder, columns=["sample_id", "label"], rows=ledger.READ_ROWS):
            split = pa.array(np.full(table.num_rows, "train", object), pa.string())
            columns = [table["sample_id"], split, table["label"], pa.array(ones(table.num_rows))]
            yield place, pa.table(columns, names=list(COLUMNS))


def write_plan(
    path: Path,
    *,
    audited: Path,
    generated: Sequence[Path],
    resampled: Path,
    population: Population,
    treatment: Treatment,
    method: str,
) -> None:
    """Write the ledger: every sample's split, label, weight and draw, then those of the new samples.

    Args:
        path: The plan.
        audited: Ledger the population was read from.
        generated: Parts folders it was read from.
        resampled: Parts folder of the new samples.
        population: The samples.
        treatment: What is done to them.
        method: What did it.
    """
    num_rows = len(population.labels)
    is_removed = np.zeros(num_rows, bool)
    is_removed[treatment.removed] = True
    stop = 0
    with ledger.Writer(path) as writer:
        for _, table in enumerate_members(audited, generated=(*generated, resampled)):
            start, stop = stop, stop + table.num_rows
            rows = slice(start, min(stop, num_rows))  # none of the new samples
            is_new = start >= num_rows
            removed = pa.array(np.zeros(table.num_rows, bool) if is_new else is_removed[rows])
            weight = table["weight"].to_numpy() * (1 if is_new else treatment.weight[rows])
            draw = ones(table.num_rows) if is_new else treatment.draw[rows]
            writer.write(
                sample_ids=table["sample_id"],
                fates=pc.if_else(removed, "dropped", "kept"),
                reasons=pc.if_else(removed, REASONS.get(method, ""), ""),
                extra={
                    "split": table["split"],
                    "label": table["label"],
                    "weight": pa.array(weight, pa.float32()),
                    "draw": pa.array(draw, pa.float32()),
                },
            )


def measure(population: Population, treatment: Treatment) -> dict[str, Any]:
    """Training samples per class before and after, made and removed ones, largest factors, classes left as they are."""
    removed = count_labels(population.labels[treatment.removed], classes=population.classes)
    made = count_labels(treatment.made.labels, classes=population.classes) if treatment.made is not None else {}
    skipped = treatment.made.skipped if treatment.made is not None else {}
    return {
        "classes": {
            label: {"before": size, "after": size - removed.get(label, 0) + made.get(label, 0)}
            for label, size in population.sizes.items()
        },
        "made": sum(made.values()),
        "removed": sum(removed.values()),
        "max_weight": float(treatment.weight.max(initial=0)),
        "max_draw": float(treatment.draw.max(initial=0)),
        "not_interpolated": dict(skipped),
    }
