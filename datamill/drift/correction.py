"""Many tests in one window: which of them may be called drift without crying wolf."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datamill.drift.params import Correction, EffectParams
from datamill.drift.verdict import Kind, Outcome

Floats = NDArray[np.float64]

QUALITY_WEIGHT = 0.1


def is_rejected(p_value_T: Floats, *, level: float, correction: Correction) -> NDArray[np.bool_]:
    """Which of T tests are significant, shape ``(T,)``.

    Where nothing drifts at all, both corrections find anything with a chance of ``level`` at most. Benjamini-Hochberg
    finds more where much drifts; of what it finds, a share of ``level`` is expected to be false. It supposes that the
    tests are independent or depend on each other positively.

    Source: Y. Benjamini and Y. Hochberg, "Controlling the false discovery rate", 1995.
    """
    count = len(p_value_T)
    if correction == "bonferroni":
        return np.asarray(p_value_T <= level / count)
    order = np.argsort(p_value_T, kind="stable")
    holds = np.flatnonzero(p_value_T[order] <= level * np.arange(1, count + 1) / count)
    rejected = np.zeros(count, bool)
    rejected[order[: holds[-1] + 1 if len(holds) else 0]] = True
    return rejected


def decide(
    outcomes: Sequence[Outcome], *, level: float, correction: Correction, min_effect: EffectParams
) -> tuple[Outcome, ...]:
    """The outcomes with their verdict: significant after correction, and large enough to matter.

    The tests of one kind are corrected together. Every kind has an equal part of the level, so that a kind with
    hundreds of tests takes nothing from a kind with one; only quality has a tenth of a part, as what is broken there is
    glaring. What has no p-value keeps its verdict.
    """
    decided = list(outcomes)
    kinds = sorted({outcome.kind for outcome in outcomes if outcome.p_value is not None})
    total = sum(_weight(kind) for kind in kinds)
    for kind in kinds:
        places = [n for n, outcome in enumerate(outcomes) if outcome.kind == kind and outcome.p_value is not None]
        p_values = np.array([outcomes[place].p_value for place in places], np.float64)
        rejected = is_rejected(p_values, level=level * _weight(kind) / total, correction=correction)
        for place, is_significant in zip(places, rejected, strict=True):
            is_drift = bool(is_significant) and outcomes[place].effect >= smallest(outcomes[place], min_effect)
            decided[place] = dataclasses.replace(outcomes[place], is_drift=is_drift)
    return tuple(decided)


def _weight(kind: Kind) -> float:
    return QUALITY_WEIGHT if kind == "quality" else 1.0


def smallest(outcome: Outcome, min_effect: EffectParams) -> float:
    """The size from which this outcome's difference matters."""
    return float(getattr(min_effect, outcome.effect_name))
