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

    Every kind has an equal part of the level, and within a kind every detector, whose tests are corrected together. So
    a test of hundreds of features takes nothing from the one test of all at once. Only quality has a tenth of a part,
    as what is broken there is glaring. What has no p-value keeps its verdict.
    """
    decided = list(outcomes)
    families = _families(outcomes)
    total = sum(_weight(kind) for kind in {kind for kind, _ in families})
    for (kind, _), places in families.items():
        num_detectors = sum(other == kind for other, _ in families)
        p_values = np.array([outcomes[place].p_value for place in places], np.float64)
        part = level * _weight(kind) / total / num_detectors
        rejected = is_rejected(p_values, level=part, correction=correction)
        for place, is_significant in zip(places, rejected.tolist(), strict=True):
            is_drift = is_significant and outcomes[place].effect >= smallest(outcomes[place], min_effect)
            decided[place] = dataclasses.replace(outcomes[place], is_drift=is_drift)
    return tuple(decided)


def _families(outcomes: Sequence[Outcome]) -> dict[tuple[Kind, str], list[int]]:
    """Places of the tests that are corrected together, by kind and detector."""
    families: dict[tuple[Kind, str], list[int]] = {}
    for place, outcome in enumerate(outcomes):
        if outcome.p_value is not None:
            families.setdefault((outcome.kind, outcome.detector), []).append(place)
    return families


def smallest(outcome: Outcome, min_effect: EffectParams) -> float:
    """The size from which this outcome's difference matters."""
    return float(getattr(min_effect, outcome.effect_name))


def _weight(kind: Kind) -> float:
    return QUALITY_WEIGHT if kind == "quality" else 1.0
