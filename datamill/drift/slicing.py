"""Slices of the samples that grew, shrank or got worse: by a feature, or by the predicted class."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from datamill.drift import columns
from datamill.drift.comparing import has_predictions, judged_answers
from datamill.drift.estimation import Calibrator, confidences
from datamill.drift.observations import Observations, take
from datamill.drift.params import DriftParams
from datamill.drift.verdict import Slice

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

LOOKED_AT = 20_000  # samples of each side; bounds work
NUM_SLICES = 10
NUM_PARTS = 4  # of a number's range that are slices: quarters of the reference
MIN_SHARE = 0.01  # of both sides together, below which a slice is too small to tell anything
MIN_MOVED = 0.01  # change of a slice's share, or accuracy that it accounts for, below which it is not named


def slices(reference: Observations, window: Observations, *, params: DriftParams) -> tuple[Slice, ...]:
    """Groups of samples by one feature or by the predicted class that grew, shrank or got worse most.

    They are ordered by how much of the loss of estimated accuracy they account for, or by how much their share changed
    where no accuracy can be told, whichever is more.
    """
    sides = [take(side, columns.drawn(len(side), limit=LOOKED_AT, seed=0, of="slices")) for side in (reference, window)]
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
