"""Outcomes in the words of the page about a window, and which of them matter most."""

from typing import Any

import numpy as np

from datamill.drift.verdict import Estimate, Outcome

KINDS = {
    "quality": "Data quality",
    "input": "Inputs",
    "embedding": "Embeddings",
    "prediction": "Predictions",
    "label": "Labels",
    "concept": "Concept",
    "performance": "Performance",
}
EFFECTS = {"cramers_v": "Cramér's V", "psi": "PSI", "auc": "AUC", "mmd": "MMD", "wasserstein": "Wasserstein"}


def weight(outcome: Outcome) -> tuple[Any, ...]:
    """Sorts what matters most first."""
    p_value = 1.0 if outcome.p_value is None else outcome.p_value
    return not outcome.is_drift, list(KINDS).index(outcome.kind), p_value, -abs(np.nan_to_num(outcome.effect))


def value(one: Estimate) -> str:
    """What was estimated, in its unit."""
    return told(one.estimated, one)


def told(value: float, one: Estimate) -> str:
    """A value of an estimate in its unit: a share in per cent, a loss as it is."""
    return f"{value:.1%}" if one.metric == "accuracy" else f"{value:.4g}"


def effect(outcome: Outcome) -> str:
    """How large a difference is, and by which measure."""
    name = EFFECTS.get(outcome.effect_name, outcome.effect_name)
    return f"{outcome.effect:.1%}" if name == "share" else f"{name} {outcome.effect:.3g}"


def p_value(outcome: Outcome) -> str:
    """The p-value; empty for a check that has none."""
    if outcome.p_value is None:
        return ""
    return "< 1e-6" if outcome.p_value < 1e-6 else f"{outcome.p_value:.2g}"
