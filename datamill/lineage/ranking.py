"""How much of a difference each cause accounts for: what is exact by the samples it touches, the rest by judgement.

A cause's score is the share of the samples it touches (of train or of test, whichever is larger) times how much more
the metric moved in the classes it touches than in all of them. A cause that touches every sample scores 1. What the
test samples themselves account for is exact; the model's part cannot be taken apart without training again, so it is
dealt out in proportion to the scores, and called judged.
"""

# Shapes: N, M test samples of runs A and B, K classes.

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamill.lineage.causes import Cause, Rows
from datamill.lineage.roster import SPLITS, Roster

UNSEEN_WEIGHT = 0.1  # of samples that are in neither train nor test: they can matter only in passing
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """A cause with its account.

    Attributes:
        cause: What it is.
        touched: Samples it touches, by where they end in either run, and ``all``.
        share: Of the samples, in [0, 1]; 1 for what is everywhere.
        lift: How much more the metric moved in the classes it touches than in all; 1 is what chance gives.
        exact: What its test samples account for.
        judged: Its part of what the model accounts for.
    """

    cause: Cause
    touched: dict[str, int]
    share: float
    lift: float
    exact: float
    judged: float

    @property
    def score(self) -> float:
        """What the ranking goes by."""
        return self.share * self.lift

    @property
    def total(self) -> float:
        """What it accounts for in all."""
        return self.exact + self.judged


@dataclass(frozen=True)
class Movement:
    """Where the metric moved.

    Attributes:
        rows_a: What each sample of A accounts for, at its place in A's roster.
        rows_b: The same of B.
        model: What the model accounts for in all.
        by_class: Mean movement of the metric on common test samples, by class name.
        num_by_class: Common test samples by class name.
    """

    rows_a: Floats
    rows_b: Floats
    model: float
    by_class: dict[str, float]
    num_by_class: dict[str, int]


def rank(causes: Sequence[Cause], *, a: Roster, b: Roster, movement: Movement) -> list[Ranked]:
    """The causes with their accounts, the highest score first; what they account for sums to the difference.

    Samples that no cause touches (moved by a decision that followed from one) are judged like the model's part.
    """
    measured = [_measure(cause, a=a, b=b, movement=movement) for cause in causes]
    claims = _claims(causes, a=a, b=b)
    exact = [
        float(
            (movement.rows_a[c.rows_a] / claims[0][c.rows_a]).sum()
            + (movement.rows_b[c.rows_b] / claims[1][c.rows_b]).sum()
        )
        for c in causes
    ]
    unclaimed = movement.rows_a[claims[0] == 0].sum() + movement.rows_b[claims[1] == 0].sum()
    pool = movement.model + float(unclaimed)
    total = sum(one.score for one in measured)
    ranked = [
        Ranked(
            one.cause, one.touched, one.share, one.lift, part, pool * one.score / total if total else pool / len(causes)
        )
        for one, part in zip(measured, exact, strict=True)
    ]
    return sorted(ranked, key=lambda one: (-one.score, one.cause.title))


def lift_of(touched: dict[str, int], *, movement: Movement) -> float:
    """How much more the metric moved in the classes of these samples than in all; 1 where nothing can be told."""
    total = sum(movement.num_by_class.values())
    if not total or not sum(touched.values()):
        return 1.0
    overall = sum(abs(movement.by_class[name]) * count for name, count in movement.num_by_class.items()) / total
    floor = overall + 1 / total  # so that a handful of samples makes no class stand out
    there = sum((abs(movement.by_class.get(name, 0.0)) + floor) * count for name, count in touched.items())
    return float(there / sum(touched.values()) / (overall + floor))


def _measure(cause: Cause, *, a: Roster, b: Roster, movement: Movement) -> Ranked:
    touched = {
        split: max(int(a.is_in(split)[cause.rows_a].sum()), int(b.is_in(split)[cause.rows_b].sum())) for split in SPLITS
    }
    touched["all"] = max(len(cause.rows_a), len(cause.rows_b))
    if cause.is_everywhere:
        return Ranked(cause, touched, 1.0, 1.0, 0.0, 0.0)
    sizes = {split: max(1, int(a.is_in(split).sum()), int(b.is_in(split).sum())) for split in SPLITS}
    shares = [touched[split] / sizes[split] for split in ("train", "test")]
    share = max(*shares, UNSEEN_WEIGHT * touched["all"] / max(1, len(a), len(b)))
    lift = lift_of(_classes(cause, a=a, b=b), movement=movement)
    return Ranked(cause, touched, min(1.0, share), lift, 0.0, 0.0)


def _classes(cause: Cause, *, a: Roster, b: Roster) -> dict[str, int]:
    counts: dict[str, int] = {}
    for roster, rows in ((a, cause.rows_a), (b, cause.rows_b)):
        names, numbers = np.unique(np.asarray(roster.labels.take(rows), dtype=object), return_counts=True)
        for name, number in zip(names.tolist(), numbers.tolist(), strict=True):
            counts[name] = counts.get(name, 0) + number
    return counts


def _claims(causes: Sequence[Cause], *, a: Roster, b: Roster) -> tuple[Rows, Rows]:
    """How many causes touch each sample of A and of B, so that what it accounts for is dealt out once."""
    counts = np.zeros(len(a), np.int64), np.zeros(len(b), np.int64)
    for cause in causes:
        counts[0][cause.rows_a] += 1
        counts[1][cause.rows_b] += 1
    return counts
