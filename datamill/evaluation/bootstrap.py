"""How far a metric would move if the test samples had been others: percentile bootstrap intervals."""

# Shapes: N samples, U units (samples, or groups of samples that stay together), R resamples.

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_GROUPS = 10  # fewer groups than this say too little about groups, so samples are drawn instead
MAX_CELLS = 1_000_000  # weights held at a time, 8 MB: what fits a cache; bounds memory, not results


def units(groups: list[str | None]) -> tuple[Ints, str]:
    """What a resample draws: whole groups where every sample has one and there are enough, else single samples.

    Samples of one group (a patient, a video) resemble each other, so drawing them one by one would make intervals too
    narrow.

    Returns:
        Unit of each sample, shape ``(N,)``, and its name: ``group`` or ``sample``.
    """
    names = {name for name in groups if name is not None}
    if None in groups or len(names) < MIN_GROUPS:
        return np.arange(len(groups)), "sample"
    number = {name: index for index, name in enumerate(sorted(names))}
    return np.array([number[name] for name in groups if name is not None], np.int64), "group"


def resample(
    score: Callable[[Floats], Mapping[str, Floats]], *, unit_N: Ints, num_resamples: int, rng: np.random.Generator
) -> dict[str, Floats]:
    """Values of every metric over resamples drawn with replacement, shape ``(R,)`` each.

    Args:
        score: Metrics under columns of sample weights, shape ``(N, r)`` to ``(r,)`` each.
        unit_N: Unit of each sample, numbers from 0; samples of a unit are drawn together.
        num_resamples: Resamples, R.
        rng: Source of all randomness.
    """
    chunks = [score(weight_NR) for weight_NR in resampled_weights(unit_N, num_resamples=num_resamples, rng=rng)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def resampled_weights(unit_N: Ints, *, num_resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """How often each sample is drawn, shape ``(N, r)``, in chunks of columns that sum to ``num_resamples``."""
    num_units = int(unit_N.max()) + 1
    width = max(1, MAX_CELLS // len(unit_N))
    for start in range(0, num_resamples, width):
        count = min(width, num_resamples - start)
        drawn = [np.bincount(rng.integers(0, num_units, num_units), minlength=num_units) for _ in range(count)]
        yield np.stack(drawn, axis=1)[unit_N].astype(np.float64)


def percentile_interval(values_R: Floats, *, level: float) -> tuple[float, float] | None:
    """The middle ``level`` share of the resampled values; ``None`` when the metric was undefined in most resamples.

    Source: B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    defined = values_R[np.isfinite(values_R)]
    if 2 * len(defined) < len(values_R):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
