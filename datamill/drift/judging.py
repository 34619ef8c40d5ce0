"""One window against the reference: every test, every check, and what they come to."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from datamill.drift import localising, quality, slicing
from datamill.drift.backends import choose, resolve
from datamill.drift.comparing import (
    answers,
    compare,
    comparisons,
    has_embeddings,
    has_labels,
    has_predictions,
    has_targets,
    is_regression,
    judged_answers,
    label_comparisons,
)
from datamill.drift.control import Control, advance, charged, window_level
from datamill.drift.correction import decide
from datamill.drift.detectors import Setting
from datamill.drift.estimation import confidences, estimate_accuracy, measure_accuracy
from datamill.drift.observations import Observations
from datamill.drift.params import DriftParams
from datamill.drift.regression import loss_performance
from datamill.drift.seasons import matched
from datamill.drift.verdict import Estimate, Outcome, Verdict

NUM_KINDS = 7  # of outcomes: quality, input, embedding, prediction, label, concept, performance
NUM_LABEL_KINDS = 4  # of those that need labels: quality, label, concept, performance


def judge(
    reference: Observations, window: Observations, *, params: DriftParams, control: Control, now: datetime
) -> tuple[Verdict, Control]:
    """What is found about a window, and what is left of the month's allowance of false alarms.

    Equal arguments give equal verdicts; nothing is read or written.

    Args:
        reference: What the model was measured on.
        window: New samples; may be empty.
        params: What to test, and how strictly.
        control: What the window before left; ``Control()`` for the first.
        now: Time of the verdict, with its zone.

    Raises:
        ParamsError: alibi-detect was asked for and is not installed.
    """
    control = advance(control, now=now)
    if not len(window) or not len(reference):
        note = f"nothing to compare: {len(window)} samples in the window, {len(reference)} in the reference"
        return Verdict(len(window), len(reference), (), notes=(note,)), control
    level = window_level(control, params=params)
    same, unmatched = matched(reference, window, params=params)
    outcomes = _outcomes(reference, same, window, params=params, level=level)
    verdict = _verdict(outcomes, reference, same, window, params=params, level=level, num_kinds=NUM_KINDS)
    notes = tuple(note for note in (unmatched, *gaps(same, window, params=params)) if note)
    verdict = replace(verdict, notes=notes, slices=slicing.slices(same, window, params=params))
    return verdict, charged(control, level=level, is_drift=verdict.is_drift)


def judge_labels(
    reference: Observations, window: Observations, *, params: DriftParams, control: Control, now: datetime
) -> tuple[Verdict, Control]:
    """What labels tell that came after a window was judged: other classes, another concept, how good the model is.

    The verdict is one more in the month's allowance, as that of a window.

    Args:
        reference: What the model was measured on.
        window: The window's samples whose label is known, with the model's answers; features are not looked at.
        params: What to test, and how strictly.
        control: What the verdict before left.
        now: Time of the verdict, with its zone.
    """
    control = advance(control, now=now)
    level = window_level(control, params=params)
    same, unmatched = matched(reference, window, params=params)
    setting = Setting(num_permutations=params.num_permutations, level=level / NUM_LABEL_KINDS, seed=params.seed)
    compared = label_comparisons(same, window, params=params, backend=resolve(params.backend))
    outcomes = itertools.chain(
        quality.unknown_classes(reference, window, num_examples=params.num_examples),
        (compare(one, setting=setting) for one in compared),
    )
    verdict = _verdict(outcomes, reference, same, window, params=params, level=level, num_kinds=NUM_LABEL_KINDS)
    is_measured = verdict.performance is not None and verdict.performance.is_measured
    performance = verdict.performance if is_measured else None  # labels are there to measure; some may be no number
    verdict = replace(verdict, performance=performance, notes=(unmatched,) if unmatched else ())
    return verdict, charged(control, level=level, is_drift=verdict.is_drift)


def _verdict(
    outcomes: Iterable[Outcome],
    reference: Observations,
    same: Observations,
    window: Observations,
    *,
    params: DriftParams,
    level: float,
    num_kinds: int,
) -> Verdict:
    """Outcomes with their verdicts and places, and the performance."""
    performance = _performance(reference, window, params=params, level=level / num_kinds)
    num_estimates = 1 if performance is not None else 0
    decided = decide(
        tuple(outcomes),
        level=level * (num_kinds - num_estimates) / num_kinds,
        correction=params.correction,
        min_effect=params.min_effect,
    )
    return Verdict(
        num_samples=len(window),
        num_reference=len(same),
        outcomes=tuple(localising.located(one, reference=same, window=window, params=params) for one in decided),
        performance=performance,
        level=level,
    )


def gaps(reference: Observations, window: Observations, *, params: DriftParams) -> Iterator[str]:
    """What was asked for and cannot be judged, and why."""
    if min(len(reference), len(window)) < params.min_samples:
        yield f"{len(window)} samples in the window: fewer than {params.min_samples}, so that no test was made"
    if params.detectors.embedding and not has_embeddings(reference, window):
        yield "embeddings are missing on one side, or of another width: not compared"
    if is_regression(reference, window):
        yield from _regression_gaps(reference, window, params=params)
    else:
        yield from _class_gaps(reference, window, params=params)
    for kind, names in params.detectors.model_dump().items():
        for name in names:
            if choose(name, backend=resolve(params.backend)) is None:
                yield f"detector {name!r} for {kind} is alibi-detect's alone, and that is not installed: left out"


def _class_gaps(reference: Observations, window: Observations, *, params: DriftParams) -> Iterator[str]:
    if not has_predictions(reference, window):
        yield "probabilities are missing on one side, or of other classes: neither compared nor performance estimated"
    if (params.detectors.label or params.detectors.concept) and not has_labels(reference, window, params=params):
        yield f"fewer than {params.min_labels} labels, or of other classes: neither labels nor concept compared"


def _regression_gaps(reference: Observations, window: Observations, *, params: DriftParams) -> Iterator[str]:
    if params.detectors.label and not has_targets(reference, window, params=params):
        yield f"fewer than {params.min_labels} targets: not compared"


def _outcomes(
    reference: Observations, same: Observations, window: Observations, *, params: DriftParams, level: float
) -> Iterator[Outcome]:
    """Checks against the whole reference, tests against the part of the same season."""
    yield from quality.check(reference, window, num_examples=params.num_examples)
    setting = Setting(num_permutations=params.num_permutations, level=level / NUM_KINDS, seed=params.seed)
    for comparison in comparisons(same, window, params=params, backend=resolve(params.backend)):
        yield compare(comparison, setting=setting)


def _performance(
    reference: Observations, window: Observations, *, params: DriftParams, level: float
) -> Estimate | None:
    """Measured where there are enough labels, else estimated; ``None`` where neither can be."""
    if is_regression(reference, window):
        return loss_performance(reference, window, params=params, level=level)
    if not has_predictions(reference, window) or reference.labels is None:
        return None
    before = judged_answers(reference)
    if len(before.confidence) < params.min_labels or not len(answers(window)):
        return None
    if has_labels(reference, window, params=params):
        return measure_accuracy(
            before, judged_answers(window), level=level, margin=params.margin, interval=params.confidence
        )
    return estimate_accuracy(
        before,
        confidences(answers(window)),
        level=level,
        margin=params.margin,
        interval=params.confidence,
    )
