"""alibi-detect's detectors behind our protocol. Nothing else imports it: its licence (BUSL 1.1) may rule it out.

Each detector is made, asked once, and dropped; it is never saved, as alibi-detect's files carry code.
"""

# Shapes: N reference, M window, D numbers of a row, K classes.

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from datamill.drift.detectors import Detector, Finding, Sample, Setting
from datamill.drift.multivariate import FEW, NUM_FOLDS, MeanDiscrepancy, domain_classifier
from datamill.drift.univariate import cramers_v, scaled_wasserstein

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it compiles functions with torch.jit, which torch calls deprecated
    from alibi_detect.cd import (
        ChiSquareDrift,
        ClassifierDrift,
        ClassifierUncertaintyDrift,
        CVMDrift,
        FETDrift,
        KSDrift,
        LSDDDrift,
        MMDDrift,
        MMDDriftOnline,
        TabularDrift,
    )

PAIRWISE_ROWS = 500  # of each side: its permutations copy the kernel matrix twice each, where ours are one product
ONLINE_ROWS = 20  # of the sliding window of the online test
MAX_RUN = 2_000  # rows without a false alarm that the online test can be asked for
DRAWS_PER_ROW = 10  # of that run, for the thresholds: what alibi-detect advises


@final
class KolmogorovSmirnov:
    """``KSDrift`` of one number."""

    effect_name = "wasserstein"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Keep the reference, shape ``(N,)``."""
        self._reference = reference

    def test(self, window: Sample) -> Finding:
        """Compare with a window, shape ``(M,)``."""
        return _univariate(KSDrift(self._reference[:, None]), window, effect=_moved(self._reference, window))


@final
class CramerVonMises:
    """``CVMDrift`` of one number."""

    effect_name = "wasserstein"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Keep the reference, shape ``(N,)``."""
        self._reference = reference

    def test(self, window: Sample) -> Finding:
        """Compare with a window, shape ``(M,)``."""
        return _univariate(CVMDrift(self._reference[:, None]), window, effect=_moved(self._reference, window))


@final
class ChiSquare:
    """``ChiSquareDrift`` of one category."""

    effect_name = "cramers_v"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Keep the reference's codes, shape ``(N,)``."""
        self._reference = reference

    def test(self, window: Sample) -> Finding:
        """Compare with a window's codes, shape ``(M,)``."""
        return _univariate(
            ChiSquareDrift(self._reference[:, None]), window, effect=_associated(self._reference, window)
        )


@final
class FisherExact:
    """``FETDrift`` of one category with codes 0 and 1, two-sided."""

    effect_name = "cramers_v"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Keep the reference's codes, shape ``(N,)``."""
        self._reference = reference

    def test(self, window: Sample) -> Finding:
        """Compare with a window's codes, shape ``(M,)``."""
        detector = FETDrift(self._reference[:, None], alternative="two-sided")
        return _univariate(detector, window, effect=_associated(self._reference, window))


@final
class TabularNumber:
    """``TabularDrift`` of one number, which is Kolmogorov-Smirnov."""

    effect_name = "wasserstein"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Keep the reference, shape ``(N,)``."""
        self._reference = reference

    def test(self, window: Sample) -> Finding:
        """Compare with a window, shape ``(M,)``."""
        detector = TabularDrift(self._reference[:, None], categories_per_feature={})
        return _univariate(detector, window, effect=_moved(self._reference, window))


@final
class TabularCategory:
    """``TabularDrift`` of one category, which is chi-square."""

    effect_name = "cramers_v"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Keep the reference's codes, shape ``(N,)``."""
        self._reference = reference

    def test(self, window: Sample) -> Finding:
        """Compare with a window's codes, shape ``(M,)``."""
        detector = TabularDrift(self._reference[:, None], categories_per_feature={0: None})
        return _univariate(detector, window, effect=_associated(self._reference, window))


@final
class Uncertainty:
    """``ClassifierUncertaintyDrift`` of class probabilities: Kolmogorov-Smirnov of their entropy."""

    effect_name = "wasserstein"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Keep the reference, shape ``(N, K)``."""
        self._reference = reference

    def test(self, window: Sample) -> Finding:
        """Compare with a window, shape ``(M, K)``."""
        found = ClassifierUncertaintyDrift(self._reference, model=_unchanged).predict(window)["data"]
        effect = _moved(stats.entropy(self._reference, axis=1), stats.entropy(window, axis=1))
        return Finding(float(found["distance"][0]), float(found["p_val"][0]), effect)


@final
class MeanDiscrepancyTest:
    """``MMDDrift`` on torch.

    Its p-value counts permutations, and may be 0 by chance; the observed order is counted among them here, and where
    few permutations went beyond, our own on the same rows tell how rare that is.
    """

    effect_name = "mmd"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Keep the reference, shape ``(N, D)``."""
        self._reference = np.asarray(reference, np.float64)
        self._setting = setting

    def test(self, window: Sample) -> Finding:
        """Compare with a window, shape ``(M, D)``."""
        window = np.asarray(window, np.float64)
        count = self._setting.num_permutations
        with _seeded(self._setting.seed):
            detector = MMDDrift(self._reference, backend="pytorch", n_permutations=count, device="cpu")
            found = detector.predict(window)["data"]
        p_value = _counted(found["p_val"], count=count)
        if found["p_val"] * count < FEW:
            p_value = min(p_value, _tail(self._reference, window, setting=self._setting))
        return Finding(float(found["distance"]), p_value, max(float(found["distance"]), 0.0))


@final
class DensityDifference:
    """``LSDDDrift`` on torch; no p-value of it is below 1 / (permutations + 1).

    It refuses samples with many equal rows; that is told in the detail, and no drift.
    """

    effect_name = "mmd"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Keep the reference, shape ``(N, D)``."""
        self._reference = np.asarray(reference, np.float32)
        self._setting = setting

    def test(self, window: Sample) -> Finding:
        """Compare with a window, shape ``(M, D)``."""
        count = self._setting.num_permutations
        with _seeded(self._setting.seed):
            detector = LSDDDrift(self._reference, backend="pytorch", n_permutations=count, device="cpu")
            try:
                found = detector.predict(np.asarray(window, np.float32))["data"]
            except ValueError as error:
                return Finding(0.0, None, 0.0, detail={"refused": " ".join(str(error).split())})
        return Finding(
            float(found["distance"]), _counted(found["p_val"], count=count), max(float(found["distance"]), 0.0)
        )


@final
class ClassifierTest:
    """``ClassifierDrift`` with scikit-learn: Kolmogorov-Smirnov of out-of-fold scores."""

    effect_name = "auc"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Keep the reference, shape ``(N, D)``."""
        self._reference = reference
        self._seed = setting.seed

    def test(self, window: Sample) -> Finding:
        """Compare with a window, shape ``(M, D)``."""
        with _seeded(self._seed):
            detector = ClassifierDrift(
                self._reference,
                model=domain_classifier(self._seed),
                backend="sklearn",
                n_folds=NUM_FOLDS,
                train_size=None,
                seed=self._seed,
            )
            found = detector.predict(window)["data"]
        score, other = found["probs_ref"], found["probs_test"]
        area = float(stats.mannwhitneyu(other, score).statistic) / (len(score) * len(other))
        return Finding(float(found["distance"]), float(found["p_val"]), max(area, 1 - area))


@final
class OnlineDiscrepancy:
    """``MMDDriftOnline`` over the window's rows in order: drift if its statistic passes its threshold anywhere.

    The time to a false alarm that it is set to is the one at which a window of so many rows has one with the chance
    asked for. Longer ones than ``MAX_RUN`` rows cannot be asked of it: it then says no drift, and that it could not.
    """

    effect_name = "mmd"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Keep the reference, shape ``(N, D)``."""
        self._reference = np.asarray(reference, np.float32)
        self._setting = setting

    def test(self, window: Sample) -> Finding:
        """Compare with a window, shape ``(M, D)``, in the order of time."""
        run = len(window) / self._setting.level
        if run > MAX_RUN:
            return Finding(0.0, None, 0.0, detail={"expected_run": run, "is_level_kept": False})
        with _seeded(self._setting.seed):
            detector = MMDDriftOnline(
                self._reference,
                ert=run,
                window_size=min(ONLINE_ROWS, len(self._reference) // 4),
                backend="pytorch",
                n_bootstraps=int(run * DRAWS_PER_ROW),
                device="cpu",
                verbose=False,
            )
            steps = [detector.predict(row)["data"] for row in np.asarray(window, np.float32)]
        margins = np.array([step["test_stat"] - step["threshold"] for step in steps])
        first = next((place for place, step in enumerate(steps) if step["is_drift"]), None)
        statistic = float(steps[int(margins.argmax())]["test_stat"])
        detail = {"first_row": first, "expected_run": run, "is_level_kept": True}
        return Finding(statistic, None, max(statistic, 0.0), is_drift=first is not None, detail=detail)


DETECTORS: Mapping[str, type[Detector]] = {
    "ks": KolmogorovSmirnov,
    "cvm": CramerVonMises,
    "chi2": ChiSquare,
    "fet": FisherExact,
    "tabular": TabularNumber,
    "tabular_category": TabularCategory,
    "uncertainty": Uncertainty,
    "mmd": MeanDiscrepancyTest,
    "lsdd": DensityDifference,
    "classifier": ClassifierTest,
    "online_mmd": OnlineDiscrepancy,
}
"""By name; numbers and categories of ``tabular`` apart."""


def _univariate(detector: Any, window: Sample, *, effect: float) -> Finding:
    found = detector.predict(window[:, None])["data"]
    return Finding(float(found["distance"][0]), float(found["p_val"][0]), effect)


def _moved(reference: Sample, window: Sample) -> float:
    return scaled_wasserstein(np.sort(reference), np.sort(window))


def _associated(reference: Sample, window: Sample) -> float:
    width = int(max(reference.max(), window.max())) + 1
    return cramers_v(
        np.stack([np.bincount(codes, minlength=width) for codes in (reference, window)]).astype(np.float64)
    )


def _unchanged(probabilities: NDArray[Any]) -> NDArray[Any]:
    return probabilities


def _counted(share: float, *, count: int) -> float:
    """A share of permutations with the observed order counted among them."""
    return (share * count + 1) / (count + 1)


def _tail(reference: Sample, window: Sample, *, setting: Setting) -> float:
    found = MeanDiscrepancy(reference, setting=setting).test(window).p_value
    assert found is not None
    return found


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """alibi-detect draws from global generators: seeded inside the block, as they were after it; no gradients."""
    state = np.random.get_state()  # noqa: NPY002 - the generator that alibi-detect draws from
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
