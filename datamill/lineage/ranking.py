"""How much of a difference each cause accounts for: what is exact by the samples it touches, the rest by judgement.

What the test samples that a cause touches account for is exact. The model's part cannot be taken apart without training
again, so it is dealt out by score and called judged: the score is the share of the samples that a cause touches (of
train or of test, whichever is larger) times how much more the metric moved in their classes than in all. A cause that
touches every sample scores 1. The ranking goes by what a cause accounts for, exact and judged, with gains and losses
that cancel in the model's part both counted: two models of equal accuracy that disagree do have a reason.
"""

# Shapes: N, M test samples of runs A and B, K classes.

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
        weight: What the ranking goes by: what it accounts for, gains and losses of the model that cancel counted both.
    """

    cause: Cause
    touched: dict[str, int]
    share: float
    lift: float
    exact: float
    judged: float
    weight: float = 0.0

    @property
    def score(self) -> float:
        """How large a part of the model's account it is given."""
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
        gross: The same with gains and losses of single samples both counted.
        by_class: Mean movement of the metric on common test samples, by class name.
        num_by_class: Common test samples by class name.
    """

    rows_a: Floats
    rows_b: Floats
    model: float
    gross: float
    by_class: dict[str, float]
    num_by_class: dict[str, int]


def rank(causes: Sequence[Cause], *, a: Roster, b: Roster, movement: Movement) -> list[Ranked]:
    """The causes with their accounts, the weightiest first; what they account for sums to the difference.

    Samples that no cause touches (moved by a decision that followed from one) are judged like the model's part.
    """
    measured = [_measure(cause, a=a, b=b, movement=movement) for cause in causes]
    total = sum(one.score for one in measured)
    claims_a, claims_b = _claims(causes, a=a, b=b)
    free_a, free_b = movement.rows_a[claims_a == 0], movement.rows_b[claims_b == 0]
    pool = movement.model + float(free_a.sum() + free_b.sum())
    gross = movement.gross + float(np.abs(free_a).sum() + np.abs(free_b).sum())
    ranked = []
    for one in measured:
        share = one.score / total if total else 1 / len(causes)
        mine_a, mine_b = one.cause.rows_a, one.cause.rows_b
        exact = float((movement.rows_a[mine_a] / claims_a[mine_a]).sum())  # two causes of one sample have half each
        exact += float((movement.rows_b[mine_b] / claims_b[mine_b]).sum())
        ranked.append(replace(one, exact=exact, judged=pool * share, weight=abs(exact) + gross * share))
    return sorted(ranked, key=lambda one: (-one.weight, -one.score, one.cause.title))


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
