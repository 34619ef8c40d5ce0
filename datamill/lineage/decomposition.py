"""A metric's difference between two runs as a sum of exact parts: other samples, another truth, another model.

Between the two test sets stand the samples that both hold. Going from run A's number to run B's, first the samples
that only A tests are left out, then those whose content was changed; on the common ones truth and model are exchanged,
in both orders, and each gets the mean of its two effects; then the changed samples and those that only B tests come
in. Every step is measured, so the steps sum to the difference whatever the metric.

Source: R. Oaxaca, "Male-female wage differentials in urban labor markets", 1973; L. S. Shapley, "A value for n-person
games", 1953 (the mean over orders).
"""

# Shapes: N test samples of run A, M test samples of run B, C common to both, K classes of either.

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datamill.evaluation.metrics import SMALLEST_PROBABILITY, Predictions
from datamill.lineage.pairing import ALONE

PartName = Literal["left", "joined", "changed", "truth", "model", "other"]
Score = Callable[[Predictions], float]
Floats = NDArray[np.float64]

ADDITIVE: dict[str, Callable[[Predictions], Floats]] = {
    "accuracy": lambda p: p.is_correct.astype(np.float64),
    "log_loss": lambda p: -np.log(np.clip(p.probabilities[np.arange(len(p.label)), p.label], SMALLEST_PROBABILITY, 1)),
    "brier": lambda p: (p.probabilities**2).sum(axis=1) - 2 * p.probabilities[np.arange(len(p.label)), p.label] + 1,
}
"""Metrics that are the mean of a value per sample, and that value, shape ``(N,)``."""


@dataclass(frozen=True)
class Decomposition:
    """Exact parts of a difference.

    Attributes:
        parts: Value of each part; they sum to the difference.
        rows_a: Share of the parts that each test sample of A accounts for, by leaving or by its old content, ``(N,)``.
        rows_b: The same of B, by joining, by its new content or by its new truth, shape ``(M,)``.
        model_b: What the other model says of each common sample, at its place in B; zero elsewhere, shape ``(M,)``.
        num_common: Samples in both test sets with equal content, C.
        num_lost: Of those, the ones that A's model got right and B's got wrong, each by its run's truth.
        num_won: The other way round.
    """

    parts: dict[PartName, float]
    rows_a: Floats
    rows_b: Floats
    model_b: Floats
    num_common: int
    num_lost: int
    num_won: int


def decompose(
    a: Predictions, b: Predictions, *, partner: NDArray[np.int64], is_same: NDArray[np.bool_], metric: str, score: Score
) -> Decomposition:
    """The parts of ``score(b) - score(a)``.

    Args:
        a: Predictions and truth of run A on its test samples, N of them, over the classes of either run.
        b: Those of run B on its own, M of them, over the same classes.
        partner: Place in ``b`` of each sample of ``a``, or ``ALONE``, shape ``(N,)``.
        is_same: Whether its content is the same in both, shape ``(N,)``.
        metric: The metric's name; samples get their own share where it is a mean over samples, else equal ones.
        score: The metric; NaN where it is undefined.

    Returns:
        The parts. Where there is no common sample, or the metric is undefined on them, ``other`` is all of it.
    """
    kept = np.flatnonzero(partner != ALONE)
    common = kept[is_same[kept]]
    stations = [a, _take(a, kept), _take(a, common), _take(b, partner[common]), _take(b, partner[kept]), b]
    crossed = [Predictions(stations[3].label, stations[2].probabilities)]
    crossed += [Predictions(stations[2].label, stations[3].probabilities)]
    right_a, right_b = stations[2].is_correct, stations[3].is_correct
    tally = (len(common), int((right_a & ~right_b).sum()), int((~right_a & right_b).sum()))
    at = [score(station) if len(station.label) else np.nan for station in (*stations, *crossed)]
    if not np.isfinite(at).all():
        return Decomposition({"other": at[5] - at[0]}, *_blank(a, b), *tally)
    truth = ((at[6] - at[2]) + (at[3] - at[7])) / 2
    parts: dict[PartName, float] = {
        "left": at[1] - at[0],
        "joined": at[5] - at[4],
        "changed": (at[2] - at[1]) + (at[4] - at[3]),
        "truth": truth,
        "model": (at[3] - at[2]) - truth,
    }
    rows = _shares(a, b, partner=partner, kept=kept, common=common, value=ADDITIVE.get(metric), parts=parts, at=at)
    return Decomposition(parts, *rows, *tally)


def _shares(
    a: Predictions,
    b: Predictions,
    *,
    partner: NDArray[np.int64],
    kept: NDArray[np.int64],
    common: NDArray[np.int64],
    value: Callable[[Predictions], Floats] | None,
    parts: dict[PartName, float],
    at: list[float],
) -> tuple[Floats, Floats, Floats]:
    """What each sample accounts for; the values of a part's samples sum to the part."""
    rows_a, rows_b, model_b = _blank(a, b)
    gone, new = np.setdiff1d(np.arange(len(rows_a)), kept), np.setdiff1d(np.arange(len(rows_b)), partner[kept])
    changed = np.setdiff1d(kept, common)
    there = partner[common]
    if value is None:
        _spread(rows_a, gone, total=parts["left"])
        _spread(rows_b, new, total=parts["joined"])
        _spread(rows_b, partner[changed], total=parts["changed"])
        _spread(rows_b, there[a.label[common] != b.label[there]], total=parts["truth"])
        _spread(model_b, there, total=parts["model"])
        return rows_a, rows_b, model_b
    value_a, value_b = value(a), value(b)
    rows_a[gone] = (at[1] - value_a[gone]) / len(a.label)
    rows_b[new] = (value_b[new] - at[4]) / len(b.label)
    rows_a[changed] = (at[2] - value_a[changed]) / len(kept)
    rows_b[partner[changed]] = (value_b[partner[changed]] - at[3]) / len(kept)
    old, now = _take(a, common), _take(b, there)
    new_truth, new_model = (
        value(Predictions(now.label, old.probabilities)),
        value(Predictions(old.label, now.probabilities)),
    )
    truth = ((new_truth - value_a[common]) + (value_b[there] - new_model)) / 2
    rows_b[there] = truth / len(common)
    model_b[there] = (value_b[there] - value_a[common] - truth) / len(common)
    return rows_a, rows_b, model_b


def sign_test(num_lost: int, num_won: int) -> float:
    """Chance of a split at least this uneven between samples lost and won if neither model were better, in (0, 1].

    Source: Q. McNemar, "Note on the sampling error of the difference between correlated proportions", 1947 (exact).
    """
    from scipy.stats import binomtest

    total = num_lost + num_won
    return float(binomtest(num_won, total, 0.5).pvalue) if total else 1.0


def _spread(rows: Floats, chosen: NDArray[np.int64], *, total: float) -> None:
    if len(chosen):
        rows[chosen] += total / len(chosen)


def _take(predictions: Predictions, rows: NDArray[np.int64]) -> Predictions:
    return Predictions(predictions.label[rows], predictions.probabilities[rows])


def _blank(a: Predictions, b: Predictions) -> tuple[Floats, Floats, Floats]:
    return np.zeros(len(a.label)), np.zeros(len(b.label)), np.zeros(len(b.label))
