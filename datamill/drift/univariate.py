"""Tests of one number or one category at a time, and the sizes of their differences."""

# Shapes: N reference, M window, B bins or categories.

from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from datamill.drift.detectors import Finding, Sample, Setting

Floats = NDArray[np.float64]
NUM_BINS = 10
SMALLEST_SHARE = 1e-4  # what an empty bin counts as in the stability index, whose logarithm it would break


@final
class KolmogorovSmirnov:
    """The largest difference between two distribution functions; p-value of the limiting distribution.

    Source: J. L. Hodges, "The significance probability of the Smirnov two-sample test", 1958.
    """

    effect_name = "wasserstein"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Sort the reference, shape ``(N,)``."""
        self._reference = np.sort(reference)

    def test(self, window: Sample) -> Finding:
        """Compare with a window, shape ``(M,)``."""
        window = np.sort(window)
        num, other = len(self._reference), len(window)
        statistic = largest_gap(self._reference, window)
        p_value = stats.kstwo.sf(statistic, np.round(num * other / (num + other)))
        return Finding(statistic, float(np.clip(p_value, 0, 1)), scaled_wasserstein(self._reference, window))


@final
class CramerVonMises:
    """The squared difference between two distribution functions, summed over all values.

    Source: T. W. Anderson, "On the distribution of the two-sample Cramer-von Mises criterion", 1962.
    """

    effect_name = "wasserstein"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Keep the reference, shape ``(N,)``."""
        self._reference = np.sort(reference)

    def test(self, window: Sample) -> Finding:
        """Compare with a window, shape ``(M,)``."""
        window = np.sort(window)
        found = stats.cramervonmises_2samp(self._reference, window)
        return Finding(float(found.statistic), float(found.pvalue), scaled_wasserstein(self._reference, window))


@final
class StabilityIndex:
    """The population stability index over tenths of the reference, or over categories.

    Source: B. Yurdakul, "Statistical properties of population stability index", 2018 (its distribution without drift).
    """

    effect_name = "psi"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Bins that hold a tenth of the reference each, where its values allow it; one per code of categories."""
        self._edges = None if reference.dtype.kind in "iu" else tenths(reference)
        self._reference = self._counts(reference)

    def test(self, window: Sample) -> Finding:
        """Compare with a window, shape ``(M,)``."""
        counts = _padded(self._reference, self._counts(window))
        before, after = np.maximum(counts / counts.sum(axis=1, keepdims=True), SMALLEST_SHARE)
        index = float(((after - before) * np.log(after / before)).sum())
        num_bins = int((counts.sum(axis=0) > 0).sum())
        p_value = stats.chi2.sf(index / (1 / counts.sum(axis=1)).sum(), max(num_bins - 1, 1))
        return Finding(index, float(p_value), index)

    def _counts(self, sample: Sample) -> Floats:
        if self._edges is None:
            return np.bincount(sample).astype(np.float64)
        return bin_counts(sample, edges=self._edges)


@final
class ChiSquare:
    """Pearson's test of homogeneity, with Yates's correction where there are two categories."""

    effect_name = "cramers_v"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Count the reference's codes, shape ``(N,)``."""
        self._reference = np.bincount(reference).astype(np.float64)

    def test(self, window: Sample) -> Finding:
        """Compare with a window's codes, shape ``(M,)``."""
        counts = _padded(self._reference, np.bincount(window).astype(np.float64))
        found = stats.chi2_contingency(counts[:, counts.sum(axis=0) > 0])
        return Finding(float(found.statistic), float(found.pvalue), cramers_v(counts))


@final
class FisherExact:
    """Fisher's exact test of two shares, two-sided; the statistic is the odds ratio of code 1, window to reference."""

    effect_name = "cramers_v"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Count the reference's codes 0 and 1, shape ``(N,)``."""
        self._reference = np.bincount(reference, minlength=2)

    def test(self, window: Sample) -> Finding:
        """Compare with a window's codes 0 and 1, shape ``(M,)``."""
        counts = np.stack([self._reference, np.bincount(window, minlength=2)])
        found = stats.fisher_exact(counts[::-1, ::-1].T)
        return Finding(float(found.statistic), float(found.pvalue), cramers_v(counts.astype(np.float64)))


@final
class Uncertainty:
    """Kolmogorov-Smirnov of the entropy of class probabilities."""

    effect_name = "wasserstein"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Take the entropy of the reference, shape ``(N, K)``."""
        self._inner = KolmogorovSmirnov(stats.entropy(reference, axis=1), setting=setting)

    def test(self, window: Sample) -> Finding:
        """Compare with a window, shape ``(M, K)``."""
        return self._inner.test(stats.entropy(window, axis=1))


def largest_gap(reference: Floats, window: Floats) -> float:
    """The Kolmogorov-Smirnov statistic of two sorted samples.

    Between two values of the reference its distribution function stands still and the window's rises, so that the
    largest gap lies at a value of the reference or just below one; the window is searched, not walked.
    """
    num, other = len(reference), len(window)
    at = np.searchsorted(window, reference, side="right") / other
    below = np.searchsorted(window, reference, side="left") / other
    own_at = np.searchsorted(reference, reference, side="right") / num
    own_below = np.searchsorted(reference, reference, side="left") / num
    return float(max((own_at - at).max(), (below - own_below).max(), 0.0))


def scaled_wasserstein(reference: Floats, window: Floats) -> float:
    """Mean distance that values moved between two sorted samples, in standard deviations of the reference.

    It is the area between the two distribution functions. Between two neighbours of the reference its own function is
    flat and the window's crosses it once at most, so that sums of the window up to a place give both halves.

    A reference that never varies has no deviation: the distance is then in the values' own unit.

    Source: S. S. Vallender, "Calculation of the Wasserstein distance between probability distributions on the line",
    1974.
    """
    deviation = float(reference.std()) or 1.0
    centre = reference.mean()
    reference, window = reference - centre, window - centre  # keeps sums small, so that their differences are exact
    num, other = len(reference), len(window)
    sums = np.concatenate([[0.0], np.cumsum(window)])

    def area(x: Floats) -> Floats:
        """Area below the window's distribution function up to ``x``."""
        count = np.searchsorted(window, x, side="right")
        return np.asarray((count * x - sums[count]) / other)

    left, right, height = reference[:-1], reference[1:], np.arange(1, num) / num
    place = np.minimum(np.ceil(np.arange(1, num) * other / num).astype(np.int64), other) - 1
    crossing = np.clip(window[place], left, right)
    at_left, at_crossing, at_right = area(left), area(crossing), area(right)
    below = height * (crossing - left) - (at_crossing - at_left)
    above = (at_right - at_crossing) - height * (right - crossing)
    outside = float(area(reference[:1])[0]) + float(np.maximum(window - reference[-1], 0).sum()) / other
    return max(float((below + above).sum()) + outside, 0.0) / deviation


def cramers_v(counts: Floats) -> float:
    """Association of category and sample in a table of counts, shape ``(2, B)``: 0 for none, 1 for nothing in common.

    Source: H. Cramer, "Mathematical Methods of Statistics", 1946, chapter 21.
    """
    total = counts.sum()
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0, keepdims=True) / total
    squares = np.divide((counts - expected) ** 2, expected, out=np.zeros_like(expected), where=expected > 0)
    return float(np.sqrt(squares.sum() / total))


def tenths(reference: Floats) -> Floats:
    """Distinct inner edges of bins that hold a tenth of the reference each, shape ``(B - 1,)``; at least one."""
    return np.asarray(np.unique(np.quantile(reference, np.arange(1, NUM_BINS) / NUM_BINS)))


def bin_counts(sample: Floats, *, edges: Floats) -> Floats:
    """Values in each bin, shape ``(B,)``; a bin holds its upper edge, the last one has none."""
    return np.bincount(np.searchsorted(edges, sample, side="left"), minlength=len(edges) + 1).astype(np.float64)


def _padded(reference: Floats, window: Floats) -> Floats:
    """Two rows of counts of equal length."""
    width = max(len(reference), len(window))
    return np.stack([np.pad(counts, (0, width - len(counts))) for counts in (reference, window)])
