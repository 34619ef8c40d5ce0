"""The way of the samples through the pipeline, read from the ledgers: who went on, who was lost, and why."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamill import ledger, parts
from datamill.shards.native import Shard


@dataclass(frozen=True)
class Step:
    """What a stage did to the samples.

    Attributes:
        name: The stage.
        survived: Samples that went on.
        added: Samples that came in here for the first time, because a stage before made them.
        losses: Samples lost, by (fate, reason).
        remarks: Samples that went on with a remark, by (fate, reason).
    """

    name: str
    survived: int
    added: int
    losses: Mapping[tuple[str, str], int]
    remarks: Mapping[tuple[str, str], int]

    @property
    def lost(self) -> int:
        """Samples that did not go on."""
        return sum(self.losses.values())


def ingest_step(samples: Path, *, rejects: Path) -> Step:
    """The source's items: those that became samples, and the rejected ones."""
    reasons = Counter(ledger.read(rejects, columns=["reason"])["reason"].to_pylist())
    losses = {("rejected", reason): count for reason, count in sorted(reasons.items())}
    return Step("ingest", parts.read_manifest(samples).num_rows, added=0, losses=losses, remarks={})


def ledger_steps(ledgers: Mapping[str, Path]) -> list[Step]:
    """One step per ledger, by stage and in order; ids that no ledger before it had are counted as added."""
    steps: list[Step] = []
    known: set[str] | None = None
    for name, path in ledgers.items():
        rows = ledger.read(path, columns=["sample_id", "fate", "reason"])
        ids, fates, reasons = (rows[column].to_pylist() for column in rows.column_names)
        added = 0 if known is None else sum(key not in known for key in ids)
        counted = Counter(zip(fates, reasons, strict=True))
        steps.append(
            Step(
                name=name,
                survived=sum(map(_went_on, fates)),
                added=added,
                losses=_sorted(item for item in counted.items() if not _went_on(item[0][0])),
                remarks=_sorted(item for item in counted.items() if _went_on(item[0][0]) and item[0][1]),
            )
        )
        known = set(ids) if known is None else known | set(ids)
    return steps


def class_counts(
    shards: Mapping[str, Shard], *, sources: Iterable[str]
) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.int64]]:
    """Samples of each class in each split, and the generated ones among those of train, shape ``(K,)`` each.

    Args:
        shards: The shard of each split.
        sources: Ids of the samples that came from the source.
    """
    known, counts = set(sources), {}
    made = np.zeros(len(shards["train"].classes), np.int64)
    for split, shard in shards.items():
        is_source = np.array([key in known for key in shard.ids()], dtype=bool)
        label = np.asarray(shard.label, np.int64)
        counts[split] = np.bincount(label[is_source], minlength=len(shard.classes))
        if split == "train":
            made = np.bincount(label[~is_source], minlength=len(shard.classes))
    return counts, made


def _went_on(fate: str) -> bool:
    return fate in ledger.SURVIVING


def _sorted(items: Iterable[tuple[tuple[str, str], int]]) -> dict[tuple[str, str], int]:
    return dict(sorted(items, key=lambda item: (-item[1], item[0])))
