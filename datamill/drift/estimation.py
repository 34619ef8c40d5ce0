"""How good a classifier is on new samples: estimated from its confidence, or measured."""

# Shapes: N samples, K classes, D features.

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from datamill.drift.detectors import Finding, Sample, Setting
from datamill.drift.verdict import Estimate

Floats = NDArray[np.float64]

NUM_FOLDS = 5
WEAK = 1e4  # regularisation that only keeps a curve from growing for ever where all is told apart
MOST_SURE = 1 - 1e-7


@final
class Calibrator:
    """How often the model is right at a confidence, learnt from the reference: a logistic curve of its log odds.

    Two numbers are all that is learnt, so that it says something sensible of confidences that the reference hardly has.

    Source: J. Platt, "Probabilistic outputs for support vector machines and comparisons to regularized likelihood
    methods", 1999.
    """

    def __init__(self, confidence: Floats, *, is_correct: Floats) -> None:
        """Fit on confidences and whether each was right, shape ``(N,)`` each; at least one."""
        self._always = float(is_correct[0]) if (is_correct == is_correct[0]).all() else None
        self._curve = LogisticRegression(C=WEAK)
        if self._always is None:
            self._curve.fit(_log_odds(confidence), is_correct)
        self._confidence = confidence

    def __call__(self, confidence: Floats) -> Floats:
        """Chance of being right at each confidence, shape ``(N,)``."""
        if self._always is not None:
            return np.full(len(confidence), self._always)
        return np.asarray(self._curve.predict_proba(_log_odds(confidence))[:, 1], np.float64)

    def deviation(self, confidence: Floats) -> float:
        """Standard deviation of the mean chance at these confidences, had the reference been another sample."""
        if self._always is not None:
            return 0.0
        gradient = self._slopes(confidence).mean(axis=0)
        information = self._slopes(self._confidence).T @ _design(self._confidence)
        return math.sqrt(max(float(gradient @ np.linalg.pinv(information) @ gradient), 0.0))

    def _slopes(self, confidence: Floats) -> Floats:
        """How the chance moves with the curve's two numbers, shape ``(N, 2)``."""
        chance = self(confidence)
        return np.asarray((chance * (1 - chance))[:, None] * _design(confidence))


@final
class Residual:
    """Whether the same confidence is right as often as before: Welch's test of what the calibrator did not expect.

    A shift of the inputs alone moves confidence and accuracy together and leaves this at 0; when the meaning of the
    inputs changes, accuracy moves alone.

    Source: B. L. Welch, "The generalization of Student's problem when several different population variances are
    involved", 1947.
    """

    effect_name = "share"

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Fit on the reference: confidence and whether it was right, shape ``(N, 2)``."""
        self._confidence, self._is_correct = reference[:, 0], reference[:, 1]
        self._seed = setting.seed

    def test(self, window: Sample) -> Finding:
        """Compare with a window, shape ``(M, 2)``."""
        calibrator = Calibrator(self._confidence, is_correct=self._is_correct)
        before = self._is_correct - self._held_out()
        after = window[:, 1] - calibrator(window[:, 0])
        if before.std() == 0 and after.std() == 0:
            gap = float(after.mean() - before.mean())
            return Finding(gap, 1.0 if gap == 0 else 0.0, abs(gap))
        found = stats.ttest_ind(after, before, equal_var=False)
        gap = float(after.mean() - before.mean())
        return Finding(float(found.statistic), float(found.pvalue), abs(gap), detail={"accuracy_gap": gap})

    def _held_out(self) -> Floats:
        """The chance of being right as told by a calibrator that did not see the sample."""
        told = np.empty_like(self._confidence)
        for train, held in KFold(NUM_FOLDS, shuffle=True, random_state=self._seed).split(told):
            calibrator = Calibrator(self._confidence[train], is_correct=self._is_correct[train])
            told[held] = calibrator(self._confidence[held])
        return told


@dataclass(frozen=True)
class Judged:
    """A model's answers where the truth is known.

    Attributes:
        confidence: Probability of the predicted class, shape ``(N,)``.
        is_correct: 1 where it is the true one, else 0, shape ``(N,)``.
    """

    confidence: Floats
    is_correct: Floats

    @property
    def rows(self) -> Floats:
        """Both side by side, shape ``(N, 2)``."""
        return np.stack([self.confidence, self.is_correct], axis=1)


def judged(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> Judged:
    """Answers of the samples whose label is known; a label that is none of the classes counts as wrong."""
    is_known = labels != -1
    known = probabilities[is_known]
    return Judged(confidences(known), (known.argmax(axis=1) == labels[is_known]).astype(np.float64))


def confidences(probabilities: NDArray[np.float32]) -> Floats:
    """Probability of the predicted class, shape ``(N,)``."""
    return np.asarray(probabilities.max(axis=1), np.float64)


def estimate_accuracy(
    reference: Judged, confidence: Floats, *, level: float, margin: float, interval: float
) -> Estimate:
    """The accuracy on samples without labels: what the reference's calibrator expects of their confidence.

    The interval holds the accuracy that labels would show: it has the spread of right and wrong answers at these
    confidences, and that of the calibrator's own two numbers. It supposes that a confidence means what it
    meant in the reference.

    Args:
        reference: Answers with known truth.
        confidence: Of the new samples, shape ``(N,)``; at least one.
        level: Chance of calling an unchanged model at risk.
        margin: Loss of accuracy that is allowed.
        interval: Confidence of the interval.

    Source: J. Bialek et al., "Estimating model performance under covariate shift without labels", 2024
    (confidence-based performance estimation).
    """
    calibrator = Calibrator(reference.confidence, is_correct=reference.is_correct)
    chance = calibrator(confidence)
    variance = float((chance * (1 - chance)).mean()) / len(confidence) + calibrator.deviation(confidence) ** 2
    return _estimate(
        reference, float(chance.mean()), math.sqrt(variance), level=level, margin=margin, interval=interval
    )


def measure_accuracy(reference: Judged, window: Judged, *, level: float, margin: float, interval: float) -> Estimate:
    """The accuracy on samples with labels, with Wilson's interval.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    num, accuracy = len(window.is_correct), float(window.is_correct.mean())
    z = float(stats.norm.ppf((1 + interval) / 2))
    middle = (accuracy + z**2 / (2 * num)) / (1 + z**2 / num)
    half = z / (1 + z**2 / num) * math.sqrt(accuracy * (1 - accuracy) / num + z**2 / (4 * num**2))
    before = float(reference.is_correct.mean())
    is_lower = stats.binom.cdf(round(accuracy * num), num, before) <= level
    return Estimate(
        metric="accuracy",
        reference=before,
        estimated=accuracy,
        low=max(middle - half, 0.0),
        high=min(middle + half, 1.0),
        is_measured=True,
        is_at_risk=bool(is_lower and accuracy < before - margin),
    )


def _log_odds(confidence: Floats) -> Floats:
    sure = np.clip(confidence, 1 - MOST_SURE, MOST_SURE)
    return np.asarray((np.log(sure) - np.log1p(-sure))[:, None])


def _design(confidence: Floats) -> Floats:
    """One and the log odds, shape ``(N, 2)``."""
    return np.concatenate([np.ones((len(confidence), 1)), _log_odds(confidence)], axis=1)


def _estimate(
    reference: Judged, value: float, deviation: float, *, level: float, margin: float, interval: float
) -> Estimate:
    before = float(reference.is_correct.mean())
    z, strict = stats.norm.ppf((1 + interval) / 2), stats.norm.ppf(1 - level)
    return Estimate(
        metric="accuracy",
        reference=before,
        estimated=value,
        low=max(value - float(z) * deviation, 0.0),
        high=min(value + float(z) * deviation, 1.0),
        is_measured=False,
        is_at_risk=bool(value < before - margin and value + float(strict) * deviation < before),
    )
