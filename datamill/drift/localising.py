"""Where a difference lies: values that became more frequent, classes, slices, and samples to look at."""

# Shapes: N samples.

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.drift import columns
from datamill.drift.comparing import blunted, has_predictions, judged_answers, log_odds
from datamill.drift.estimation import Calibrator, confidences
from datamill.drift.multivariate import neighbour_distance
from datamill.drift.observations import Observations, take
from datamill.drift.params import DriftParams
from datamill.drift.univariate import bin_counts, tenths
from datamill.drift.verdict import Outcome, Slice

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

NUMERIC = {"prediction": "predictions", "label": "targets"}  # what a regression has for these kinds
LOOKED_AT = 20_000  # samples of each side that slices and examples are taken from; bounds work
NUM_SLICES = 10
NUM_PARTS = 4  # of a number's range that are slices: quarters of the reference
MIN_SHARE = 0.01  # of both sides together, below which a slice is too small to tell anything
MIN_MOVED = 0.01  # change of a slice's share, or accuracy that it accounts for, below which it is not named


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


def slices(reference: Observations, window: Observations, *, params: DriftParams) -> tuple[Slice, ...]:
    """Groups of samples by one feature or by the predicted class that grew, shrank or got worse most.

    They are ordered by how much of the loss of estimated accuracy they account for, or by how much their share changed
    where no accuracy can be told, whichever is more.
    """
    sides = [take(side, _looked_at(side, LOOKED_AT, "slices")) for side in (reference, window)]
    chances = _chances(reference, sides)
    found = [
        told
        for name, before, after in _groups(*sides)
        if (told := _slice(name, before, after, chances=chances, ids=sides[1].sample_ids, params=params)) is not None
    ]
    found.sort(key=lambda pair: (-pair[0], pair[1].name))
    return tuple(one for moved, one in found[:NUM_SLICES] if moved >= MIN_MOVED)


def _groups(reference: Observations, window: Observations) -> Iterator[tuple[str, Mask, Mask]]:
    for name in reference.features.column_names:
        if name not in window.features.column_names:
            continue
        before, after = reference.features[name], window.features[name]
        if columns.kind_of(before) == columns.kind_of(after) == "number":
            yield from _quarters(name, columns.all_numbers(before), columns.all_numbers(after))
        elif columns.kind_of(before) == columns.kind_of(after) == "category":
            codes = [side.fill_null("(missing)") for side in (before, after)]
            both = columns.coded(*codes)
            for code, value in enumerate(both.names):
                yield f"{name} = {value}", both.reference == code, both.window == code
    if has_predictions(reference, window):
        assert reference.probabilities is not None
        assert window.probabilities is not None
        predicted = reference.probabilities.argmax(axis=1), window.probabilities.argmax(axis=1)
        for place, name in enumerate(reference.classes):
            yield f"predicted = {name}", predicted[0] == place, predicted[1] == place


def _quarters(name: str, before: Floats, after: Floats) -> Iterator[tuple[str, Mask, Mask]]:
    known = before[np.isfinite(before)]
    if not len(known):
        return
    inner = np.unique(np.quantile(known, np.arange(1, NUM_PARTS) / NUM_PARTS))
    edges = [-np.inf, *inner.tolist(), np.inf]
    for low, high in itertools.pairwise(edges):
        yield _range_name(name, low, high), (before > low) & (before <= high), (after > low) & (after <= high)


def _range_name(name: str, low: float, high: float) -> str:
    if low == -np.inf:
        return f"{name} up to {high:.4g}"
    return f"{name} above {low:.4g}" if high == np.inf else f"{name} above {low:.4g}, up to {high:.4g}"


def _chances(reference: Observations, sides: Sequence[Observations]) -> tuple[Floats, Floats] | None:
    """Chance of being right of each sample of both sides; ``None`` where it cannot be told."""
    left, right = sides[0].probabilities, sides[1].probabilities
    if reference.labels is None or left is None or right is None or not has_predictions(*sides):
        return None
    known = judged_answers(reference)
    if not len(known.confidence):
        return None
    calibrator = Calibrator(known.confidence, is_correct=known.is_correct)
    return calibrator(np.nan_to_num(confidences(left))), calibrator(np.nan_to_num(confidences(right)))


def _slice(
    name: str,
    before: Mask,
    after: Mask,
    *,
    chances: tuple[Floats, Floats] | None,
    ids: Sequence[str],
    params: DriftParams,
) -> tuple[float, Slice] | None:
    """How telling a slice is, and the slice; ``None`` for one that is too small."""
    share, new_share = float(before.mean()), float(after.mean())
    if share + new_share < MIN_SHARE:
        return None
    accuracy, new_accuracy, moved = None, None, abs(new_share - share)
    if chances is not None:
        base = float(chances[0].mean())
        accuracy, new_accuracy = _mean(chances[0][before]), _mean(chances[1][after])
        lost = new_share * (base - _or(new_accuracy, base)) - share * (base - _or(accuracy, base))
        moved = max(moved, abs(lost))
    examples = tuple(ids[row] for row in np.flatnonzero(after)[: params.num_examples])
    return moved, Slice(name, share, new_share, accuracy, new_accuracy, examples)


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _looked_at(side: Observations, limit: int, of: str) -> columns.Ints:
    return columns.drawn(len(side), limit=limit, seed=0, of=of)
