"""Tests of whole rows of numbers: maximum mean discrepancy, and whether a classifier tells window from reference."""

# Shapes: N reference, M window, T = N + M both, D numbers of a row, P permutations and the order as it is.

from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import NearestNeighbors

from datamill.drift.detectors import Finding, Sample, Setting

Floats = NDArray[np.float64]

BLOCK_ROWS = 512  # rows of the kernel matrix that exist at a time; bounds memory, not results
FEW = 10  # permuted statistics beyond the observed one, from which their share is a p-value
NUM_FOLDS = 5
NUM_NEIGHBOURS = 5


@final
class MeanDiscrepancy:
    """Unbiased squared maximum mean discrepancy under a Gaussian kernel, by permutation.

    The bandwidth is the median distance within the reference. The kernel matrix never exists as a whole: a block of
    its rows at a time is multiplied with all permutations.

    Source: A. Gretton et al., "A kernel two-sample test", JMLR 2012.
    """

    effect_name = "mmd"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Choose the kernel's bandwidth from the reference, shape ``(N, D)``."""
        self._reference = np.asarray(reference, np.float64)
        self._gamma = 1 / (median_square(self._reference) or 1.0)
        self._setting = setting

    def test(self, window: Sample) -> Finding:
        """Compare with a window, shape ``(M, D)``; at least two rows on either side."""
        rows_TD = np.concatenate([self._reference, np.asarray(window, np.float64)])
        is_window_T = np.arange(len(rows_TD)) >= len(self._reference)
        order_TP = permuted(is_window_T, count=self._setting.num_permutations, seed=self._setting.seed)
        statistic, *others = discrepancies(rows_TD, is_window_TP=order_TP, gamma=self._gamma)
        return Finding(statistic, permutation_p_value(statistic, np.array(others)), max(statistic, 0.0))


@final
class ClassifierTest:
    """How well a classifier tells window from reference on rows it was not trained on.

    The area under the ROC curve is that of each fold alone, as scores of different folds cannot be compared.

    Source: D. Lopez-Paz and M. Oquab, "Revisiting classifier two-sample tests", ICLR 2017; H. B. Mann and D. R.
    Whitney, "On a test of whether one of two random variables is stochastically larger than the other", 1947.
    """

    effect_name = "auc"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Keep the reference, shape ``(N, D)``."""
        self._reference = reference
        self._seed = setting.seed

    def test(self, window: Sample) -> Finding:
        """Compare with a window, shape ``(M, D)``; at least ``NUM_FOLDS`` rows on either side."""
        rows = np.concatenate([self._reference, window])
        is_window = np.repeat([0, 1], [len(self._reference), len(window)])
        folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=self._seed).split(rows, is_window)
        areas, variances = [], []
        for train, held in folds:
            model = domain_classifier(self._seed).fit(rows[train], is_window[train])
            area, variance = _area(model.predict_proba(rows[held])[:, 1], is_window[held] == 1)
            areas.append(area)
            variances.append(variance)
        area = float(np.mean(areas))
        spread = np.sqrt(np.sum(variances)) / NUM_FOLDS
        return Finding(area, float(stats.norm.sf((area - 0.5) / spread)) if spread else 1.0, max(area, 1 - area))


@final
class Novelty:
    """Whether rows of the window lie farther from the reference than held-out rows of the reference do.

    Half of the reference is what rows are measured against, the other half is held out. Distances become Savage
    scores, which weigh the farthest most: a tenth of strange rows shows where means and distribution functions hardly
    move. A window that is more ordinary than the reference is no drift for it.

    Source: I. R. Savage, "Contributions to the theory of rank order statistics: the two-sample case", 1956; distances
    to the k-th neighbour: S. Ramaswamy et al., "Efficient algorithms for mining outliers from large data sets", 2000.
    """

    effect_name = "auc"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Split the reference, shape ``(N, D)``; at least two rows."""
        order = np.random.default_rng(setting.seed).permutation(len(reference))
        half = len(reference) // 2
        self._base = np.asarray(reference[order[:half]], np.float64)
        self._held = neighbour_distance(np.asarray(reference[order[half:]], np.float64), base_ND=self._base)

    def test(self, window: Sample) -> Finding:
        """Compare with a window, shape ``(M, D)``."""
        distance = neighbour_distance(np.asarray(window, np.float64), base_ND=self._base)
        both = np.concatenate([self._held, distance])
        num, other = len(self._held), len(distance)
        rank = stats.rankdata(both)
        area = (rank[num:].sum() - other * (other + 1) / 2) / (num * other)
        statistic, skew = sum_score(savage_scores(both), num_summed=other)
        return Finding(statistic, float(stats.pearson3.sf(statistic, skew)), max(float(area), 0.5))


def neighbour_distance(rows_MD: Floats, *, base_ND: Floats) -> Floats:
    """Distance of each row to its ``NUM_NEIGHBOURS``-th neighbour in the base, shape ``(M,)``."""
    neighbours = NearestNeighbors(n_neighbors=min(NUM_NEIGHBOURS, len(base_ND))).fit(base_ND)
    return np.asarray(neighbours.kneighbors(rows_MD)[0][:, -1], np.float64)


def savage_scores(values: Floats) -> Floats:
    """The expected value of an exponential order statistic for each value's rank, equal values sharing; mean 1."""
    score = np.cumsum(1 / np.arange(len(values), 0, -1))
    _, place, repeats = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(repeats)
    sums = np.diff(np.concatenate([[0.0], np.cumsum(score)])[np.concatenate([[0], ends])])
    return np.asarray((sums / repeats)[place])


def sum_score(scores: Floats, *, num_summed: int) -> tuple[float, float]:
    """Standardised sum of the last scores, and its skewness, if which ones they are were chance.

    Source: W. G. Cochran, "Sampling Techniques", 1977, chapter 2 (moments of sums without replacement).
    """
    num, rest = len(scores), len(scores) - num_summed
    away = scores - scores.mean()
    deviation = float(away.std()) or 1.0
    spread = np.sqrt(num_summed * rest / (num - 1)) * deviation
    shape = (rest - num_summed) * np.sqrt(num - 1) / ((num - 2) * np.sqrt(num_summed * rest))
    return float(away[rest:].sum() / spread), float(shape * (away**3).mean() / deviation**3)


def domain_classifier(seed: int) -> HistGradientBoostingClassifier:
    """The classifier that tells window from reference: small, and equal for both backends."""
    return HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=15, early_stopping=False, random_state=seed)


def median_square(rows_ND: Floats) -> float:
    """The median of the squared distances between different rows; 0 where most rows are equal."""
    squares = square_distances(rows_ND, rows_ND)
    apart = squares[np.triu_indices(len(rows_ND), k=1)]
    return float(np.partition(apart, (len(apart) - 1) // 2)[(len(apart) - 1) // 2]) if len(apart) else 0.0


def square_distances(left_LD: Floats, right_RD: Floats) -> Floats:
    """Squared Euclidean distances, shape ``(L, R)``."""
    squares = (left_LD**2).sum(axis=1)[:, None] + (right_RD**2).sum(axis=1) - 2 * left_LD @ right_RD.T
    return np.asarray(np.maximum(squares, 0))


def permuted(is_window_T: NDArray[np.bool_], *, count: int, seed: int) -> Floats:
    """Who is of the window: as it is in the first column, permuted in ``count`` others, shape ``(T, 1 + count)``."""
    rng = np.random.default_rng(seed)
    columns = [is_window_T, *(rng.permutation(is_window_T) for _ in range(count))]
    return np.asarray(np.stack(columns, axis=1), np.float64)


def discrepancies(rows_TD: Floats, *, is_window_TP: Floats, gamma: float) -> list[float]:
    """Unbiased squared discrepancy for every column of ``is_window_TP``."""
    total, within_P, towards_P = 0.0, np.zeros(is_window_TP.shape[1]), np.zeros(is_window_TP.shape[1])
    for start in range(0, len(rows_TD), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        kernel_BT = np.exp(-gamma * square_distances(rows_TD[block], rows_TD))
        places = np.arange(len(kernel_BT))
        kernel_BT[places, start + places] = 0
        sums_B = kernel_BT.sum(axis=1)
        total += float(sums_B.sum())
        towards_P += sums_B @ is_window_TP[block]
        within_P += np.einsum("bp,bp->p", is_window_TP[block], kernel_BT @ is_window_TP)
    window = float(is_window_TP[:, 0].sum())
    reference = len(rows_TD) - window
    own_P = (total - 2 * towards_P + within_P) / (reference * (reference - 1))
    cross_P = (towards_P - within_P) / (reference * window)
    return [float(value) for value in own_P + within_P / (window * (window - 1)) - 2 * cross_P]


def permutation_p_value(statistic: float, permuted_P: Floats) -> float:
    """The share of permuted statistics that are as large, the observed one among them; never 0.

    Where almost none is as large, counting tells no small p-value from another. A Pearson curve with the permuted
    statistics' first three moments gives the tail then; the share bounds it.

    Source: B. Phipson and G. K. Smyth, "Permutation p-values should never be zero", 2010; the curve: A. Gretton et al.,
    "A kernel two-sample test", JMLR 2012, section 5.
    """
    beyond = int((permuted_P >= statistic).sum())
    share = (beyond + 1) / (len(permuted_P) + 1)
    spread = float(permuted_P.std())
    if beyond >= FEW or spread == 0:
        return share
    skew = max(float(stats.skew(permuted_P)), 0.0)
    return float(min(share, max(stats.pearson3.sf((statistic - permuted_P.mean()) / spread, skew), 1e-300)))


def _area(score: Floats, is_window: NDArray[np.bool_]) -> tuple[float, float]:
    """Area under the ROC curve and its variance without drift, ties included."""
    num, other = int((~is_window).sum()), int(is_window.sum())
    rank = stats.rankdata(score)
    area = (rank[is_window].sum() - other * (other + 1) / 2) / (num * other)
    _, repeats = np.unique(score, return_counts=True)
    both = num + other
    ties = float((repeats.astype(np.float64) ** 3 - repeats).sum()) / (both * (both - 1))
    return float(area), (both + 1 - ties) / (12 * num * other)
