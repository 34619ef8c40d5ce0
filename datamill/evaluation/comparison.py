"""A network's metrics with their intervals, beside a baseline's on the same resamples."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamill.evaluation import bootstrap
from datamill.evaluation.metrics import HEADLINES, Predictions, class_scores, scores, weighted_scores

DIGITS = 6  # decimals stored: more would be noise of the arithmetic


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    Attributes:
        unit_N: Unit of each sample, drawn together; see ``bootstrap.units``.
        num_resamples: Resamples (count).
        level: Coverage of the intervals, in (0, 1).
        num_bins: Confidence bins of the calibration error.
        seed: Seeds the resamples: metrics that share it are compared on the same ones.
    """

    unit_N: NDArray[np.int64]
    num_resamples: int
    level: float
    num_bins: int
    seed: int


def compare(network: Predictions, *, baseline: Predictions, resampling: Resampling) -> dict[str, Any]:
    """Headline metrics of both, the intervals of each, and of the difference (network minus baseline, paired).

    Metrics that are undefined for these samples are left out.

    Returns:
        ``{"accuracy": 0.98, ..., "interval": {"accuracy": {"low": ..., "high": ...}}, "baseline": {the same,
        "difference": {"accuracy": {"value": ..., "low": ..., "high": ...}}}}``.
    """
    ours, theirs = (_resample(predictions, resampling=resampling) for predictions in (network, baseline))
    result = _summary(network, resampled=ours, resampling=resampling)
    beside = _summary(baseline, resampled=theirs, resampling=resampling)
    beside["difference"] = {
        name: {"value": _rounded(result[name] - beside[name])}
        | _interval(ours[name] - theirs[name], level=resampling.level)
        for name in HEADLINES
        if name in result
    }
    return {**result, "baseline": beside}


def per_class(predictions: Predictions, *, classes: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and support by class name."""
    rows = class_scores(predictions)
    return {name: {key: _rounded(value) for key, value in row.items()} for name, row in zip(classes, rows, strict=True)}


def positive_class(predictions: Predictions, *, classes: tuple[str, ...]) -> dict[str, Any]:
    """With two classes, precision, recall and F1 of the second one, the positive; else nothing."""
    if len(classes) != 2:
        return {}
    return {"positive": classes[1], **per_class(predictions, classes=classes)[classes[1]]}


def headlines(predictions: Predictions, *, num_bins: int) -> dict[str, float]:
    """Headline metrics without intervals; none without samples."""
    if not predictions.num_samples:
        return {}
    return {name: _rounded(value) for name, value in scores(predictions, num_bins=num_bins).items()}


def _resample(predictions: Predictions, *, resampling: Resampling) -> dict[str, NDArray[np.float64]]:
    return bootstrap.resample(
        lambda weight_NR: weighted_scores(predictions, weight_NR=weight_NR, num_bins=resampling.num_bins),
        unit_N=resampling.unit_N,
        num_resamples=resampling.num_resamples,
        rng=np.random.default_rng([resampling.seed, 1]),
    )


def _summary(
    predictions: Predictions, *, resampled: dict[str, NDArray[np.float64]], resampling: Resampling
) -> dict[str, Any]:
    values = headlines(predictions, num_bins=resampling.num_bins)
    intervals = {name: _interval(resampled[name], level=resampling.level) for name in values}
    return {**values, "interval": {name: interval for name, interval in intervals.items() if interval}}


def _interval(values_R: NDArray[np.float64], *, level: float) -> dict[str, float]:
    ends = bootstrap.percentile_interval(values_R, level=level)
    return {} if ends is None else {"low": _rounded(ends[0]), "high": _rounded(ends[1])}


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else round(float(value), DIGITS)
