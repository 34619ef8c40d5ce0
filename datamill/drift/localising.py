"""Where a difference lies: values that became more frequent, classes, and samples to look at."""

# Shapes: N samples.

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.drift import columns
from datamill.drift.comparing import blunted, log_odds
from datamill.drift.estimation import confidences
from datamill.drift.multivariate import neighbour_distance
from datamill.drift.observations import Observations
from datamill.drift.params import DriftParams
from datamill.drift.univariate import bin_counts, tenths
from datamill.drift.verdict import Outcome

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

NUMERIC = {"prediction": "predictions", "label": "targets"}  # what a regression has for these kinds
LOOKED_AT = 20_000  # samples of each side that examples are taken from; bounds work


def located(outcome: Outcome, *, reference: Observations, window: Observations, params: DriftParams) -> Outcome:
    """The outcome with where the difference lies: shares before and after, and examples if it is drift."""
    detail = _detail(outcome, reference=reference, window=window, params=params)
    return dataclasses.replace(outcome, detail={**outcome.detail, **detail})


def _detail(outcome: Outcome, *, reference: Observations, window: Observations, params: DriftParams) -> dict[str, Any]:
    subject, num = outcome.subject, params.num_examples if outcome.is_drift else 0
    if outcome.kind == "quality":
        return {}
    if outcome.kind == "input" and subject:
        before, after = reference.features[subject], window.features[subject]
        if columns.kind_of(before) == "number":
            values = columns.all_numbers(before), columns.all_numbers(after)
            return number_shares(*values, ids=window.sample_ids, num_examples=num)
        return category_shares(before, after, ids=window.sample_ids, num_examples=num)
    if outcome.kind in NUMERIC and not subject and getattr(reference, NUMERIC[outcome.kind]) is not None:
        sides = getattr(reference, NUMERIC[outcome.kind]), getattr(window, NUMERIC[outcome.kind])
        return number_shares(*sides, ids=window.sample_ids, num_examples=num)
    if outcome.kind == "prediction" and subject in reference.classes:
        return _class_shares(outcome, reference, window, num_examples=num)
    if outcome.kind == "label":
        return _label_shares(reference, window, num_examples=num)
    return _farthest(outcome, reference=reference, window=window, params=params) if num else {}


def number_shares(before: Floats, after: Floats, *, ids: Sequence[str], num_examples: int) -> dict[str, Any]:
    """Shares in tenths of the reference, means, and samples of the bin that grew most."""
    known, new = before[np.isfinite(before)], after[np.isfinite(after)]
    edges = tenths(known)
    shares = [bin_counts(side, edges=edges) / len(side) for side in (known, new)]
    grown = int(np.argmax(shares[1] - shares[0]))
    is_there = np.isfinite(after) & (np.searchsorted(edges, after, side="left") == grown)
    return {
        "edges": edges.tolist(),
        "before": shares[0].tolist(),
        "after": shares[1].tolist(),
        "mean_before": float(known.mean()),
        "mean_after": float(new.mean()),
        "grown": grown,
        "examples": [ids[row] for row in np.flatnonzero(is_there)[:num_examples]],
    }


def category_shares(
    before: pa.ChunkedArray, after: pa.ChunkedArray, *, ids: Sequence[str], num_examples: int
) -> dict[str, Any]:
    """Shares of the values, and samples with the one that grew most; those of rare values together."""
    both = columns.coded(before, after)
    shares = [np.bincount(side, minlength=len(both.names)) / len(side) for side in (both.reference, both.window)]
    grown = int(np.argmax(shares[1] - shares[0]))
    rows = np.flatnonzero(np.asarray(after.is_valid().to_numpy(), bool))[both.window == grown][:num_examples]
    return {
        "values": list(both.names),
        "before": shares[0].tolist(),
        "after": shares[1].tolist(),
        "grown": both.names[grown],
        "examples": [ids[row] for row in rows],
    }


def _class_shares(
    outcome: Outcome, reference: Observations, window: Observations, *, num_examples: int
) -> dict[str, Any]:
    """Of one class: the share of the predictions that are it, or how its probability is spread."""
    assert reference.probabilities is not None
    assert window.probabilities is not None
    place = reference.classes.index(outcome.subject)
    sides = reference.probabilities, window.probabilities
    if outcome.detector == "fet":
        before, after = ((side.argmax(axis=1) == place) for side in sides)
        is_shown = after if after.mean() > before.mean() else ~after
        rows = np.flatnonzero(is_shown)[:num_examples]
        examples = [window.sample_ids[row] for row in rows]
        return {"before": float(before.mean()), "after": float(after.mean()), "examples": examples}
    odds = [log_odds(side[:, place]) for side in sides]
    return {"scale": "log odds", **number_shares(*odds, ids=window.sample_ids, num_examples=num_examples)}


def _label_shares(reference: Observations, window: Observations, *, num_examples: int) -> dict[str, Any]:
    assert reference.labels is not None
    assert window.labels is not None
    width = len(reference.classes)
    labels = reference.labels, window.labels
    counts = [np.bincount(one[one >= 0], minlength=width) for one in labels]
    shares = [count / count.sum() for count in counts]
    grown = int(np.argmax(shares[1] - shares[0]))
    rows = np.flatnonzero(window.labels == grown)[:num_examples]
    return {
        "values": list(reference.classes),
        "before": shares[0].tolist(),
        "after": shares[1].tolist(),
        "grown": reference.classes[grown],
        "examples": [window.sample_ids[row] for row in rows],
    }


def _farthest(
    outcome: Outcome, *, reference: Observations, window: Observations, params: DriftParams
) -> dict[str, Any]:
    """Samples that the reference has least like."""
    left, right = _looked_at(reference, params.max_pairwise_rows, "near"), _looked_at(window, LOOKED_AT, "far")
    if outcome.kind == "input":
        samples = columns.standardised(reference.features, window.features, reference_rows=left, window_rows=right)
    elif outcome.kind in ("embedding", "prediction"):
        name = "embeddings" if outcome.kind == "embedding" else "probabilities"
        samples = getattr(reference, name)[left], getattr(window, name)[right]
        samples = samples if outcome.kind == "embedding" else (blunted(samples[0]), blunted(samples[1]))
    else:
        return _surest_errors(window, num_examples=params.num_examples)
    base = samples[0][np.isfinite(samples[0]).all(axis=1)].astype(np.float64)
    distance = neighbour_distance(np.nan_to_num(samples[1]).astype(np.float64), base_ND=base)
    order = np.argsort(-distance, kind="stable")[: params.num_examples]
    return {"examples": [window.sample_ids[right[row]] for row in order]}


def _surest_errors(window: Observations, *, num_examples: int) -> dict[str, Any]:
    if window.labels is None or window.probabilities is None:
        return {}
    is_wrong = (window.labels != -1) & (window.probabilities.argmax(axis=1) != window.labels)
    rows = np.flatnonzero(is_wrong)
    surest = rows[np.argsort(-confidences(window.probabilities[rows]), kind="stable")][:num_examples]
    return {"examples": [window.sample_ids[row] for row in surest]}


def _looked_at(side: Observations, limit: int, of: str) -> columns.Ints:
    return columns.drawn(len(side), limit=limit, seed=0, of=of)
