"""Two models on the test samples that both have."""

# Shapes: N common test samples.

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamill.evaluation import bootstrap
from datamill.evaluation.metrics import Predictions
from datamill.promotion.evidence import Evidence, Slicing, aligned


@dataclass(frozen=True)
class Pair:
    """Two models' answers to the same samples, class numbers shared.

    Attributes:
        champion: Its predictions, N rows.
        challenger: Its predictions, N rows.
        unit_N: What a resample draws together; see ``bootstrap.units``.
        unit: ``group`` or ``sample``.
        slicings: Ways to cut the N samples.
        num_relabelled: Samples whose true class was another one when the champion was measured.
    """

    champion: Predictions
    challenger: Predictions
    unit_N: NDArray[np.int64]
    unit: str
    slicings: tuple[Slicing, ...]
    num_relabelled: int


def match(champion: Evidence, challenger: Evidence) -> Pair | None:
    """The samples that both were tested on, in the challenger's order; ``None`` without any."""
    place = {key: row for row, key in enumerate(champion.sample_ids)}
    ours = np.array([row for row, key in enumerate(challenger.sample_ids) if key in place], np.int64)
    if not len(ours):
        return None
    theirs = np.array([place[challenger.sample_ids[row]] for row in ours], np.int64)
    classes = tuple(dict.fromkeys([*challenger.classes, *champion.classes]))
    label = challenger.predictions.label[ours]
    was = np.array([classes.index(name) for name in champion.classes], np.int64)[champion.predictions.label[theirs]]
    answers = [
        aligned(one.predictions.probabilities[rows], classes=one.classes, onto=classes)
        for one, rows in ((champion, theirs), (challenger, ours))
    ]
    groups = [challenger.groups[row] for row in ours] if challenger.groups else [None] * len(ours)
    unit_N, unit = bootstrap.units(groups)
    cuts: list[Slicing] = [("class", tuple(challenger.labels)), *challenger.slicings]
    slicings = tuple((name, tuple(values[row] for row in ours)) for name, values in cuts)
    before, now = (Predictions(label, probabilities) for probabilities in answers)
    return Pair(before, now, unit_N, unit, slicings, num_relabelled=int((was != label).sum()))
