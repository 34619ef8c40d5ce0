"""How good a regression is on new samples: estimated by a model of its loss, or measured."""

# Shapes: N samples of the reference, M of the window, D features.

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import KFold, cross_val_predict
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from datamill.drift.columns import Ints, drawn, standardised
from datamill.drift.comparing import has_targets
from datamill.drift.observations import Observations
from datamill.drift.params import DriftParams, Loss
from datamill.drift.verdict import Estimate

Floats = NDArray[np.float64]

NUM_FOLDS = 5


@dataclass(frozen=True)
class LossRule:
    """What a loss is, and when it is too high.

    Attributes:
        metric: ``mae`` or ``rmse``.
        level: Chance of calling an unchanged model at risk.
        margin: Rise of the loss that is allowed (share of the reference's).
        interval: Confidence of the interval.
    """

    metric: Loss
    level: float
    margin: float
    interval: float

    def judge(self, reference: Floats, value: float, *, deviation: float, is_measured: bool) -> Estimate:
        """A mean loss with its interval; an rmse is the root of all of it.

        Args:
            reference: Losses of the reference, shape ``(N,)``.
            value: Mean loss of the window.
            deviation: Its standard deviation.
            is_measured: From targets; then what the reference's own mean owes to chance is not in ``deviation`` yet.
        """
        z, strict = float(stats.norm.ppf((1 + self.interval) / 2)), float(stats.norm.ppf(1 - self.level))
        mean = float(reference.mean())
        chance = float(reference.var()) / len(reference) if is_measured else 0.0
        is_surely_higher = value - strict * math.sqrt(deviation**2 + chance) > mean
        before, told = self._root(mean), self._root(value)
        return Estimate(
            metric=self.metric,
            reference=before,
            estimated=told,
            low=self._root(max(value - z * deviation, 0.0)),
            high=self._root(value + z * deviation),
            is_measured=is_measured,
            is_at_risk=told > before * (1 + self.margin) and is_surely_higher,
        )

    def _root(self, value: float) -> float:
        return math.sqrt(value) if self.metric == "rmse" else value


def losses_of(predictions: Floats, targets: Floats, *, metric: Loss) -> Floats:
    """The loss of each sample whose prediction and target are known: absolute errors for mae, squared ones for rmse."""
    errors = predictions - targets
    known = errors[np.isfinite(errors)]
    return np.asarray(np.abs(known) if metric == "mae" else known**2, np.float64)


def estimate_loss(features_ND: Floats, *, losses: Floats, window_MD: Floats, rule: LossRule, seed: int) -> Estimate:
    """The loss of a regression on samples without targets: what a model of the loss expects of their features.

    The interval holds the loss that targets would show: it has the spread of the losses at these features, told by a
    second model, and the accident of the reference. A model of trees knows no losses beyond the reference's range.

    Args:
        features_ND: Features and prediction of each reference sample, shape ``(N, D)``.
        losses: The loss of each, as ``losses_of`` gives them, shape ``(N,)``.
        window_MD: Features and prediction of the new samples, shape ``(M, D)``; at least one.
        rule: Which loss, and when it is too high.
        seed: Seeds the folds.

    Source: NannyML, "Direct loss estimation", in its documentation, 2022.
    """
    model = HistGradientBoostingRegressor(max_iter=100, max_leaf_nodes=15, early_stopping=False, random_state=seed)
    folds = KFold(NUM_FOLDS, shuffle=True, random_state=seed)
    with threadpool_limits(limits=1):  # sums in another order would give other last digits
        missed = losses - cross_val_predict(model, features_ND, losses, cv=folds)
        spread = np.maximum(model.fit(features_ND, missed**2).predict(window_MD), 0.0)
        told = model.fit(features_ND, losses).predict(window_MD)
    value = max(float(told.mean() + missed.mean()), 0.0)
    deviation = math.sqrt(float(spread.mean()) / len(window_MD) + float(missed.var()) / len(losses))
    return rule.judge(losses, value, deviation=deviation, is_measured=False)


def measure_loss(reference: Floats, window: Floats, *, rule: LossRule) -> Estimate:
    """The loss of a regression on samples whose target is known, given the losses of both sides, at least one each."""
    deviation = float(window.std()) / math.sqrt(len(window))
    return rule.judge(reference, float(window.mean()), deviation=deviation, is_measured=True)


def loss_performance(
    reference: Observations, window: Observations, *, params: DriftParams, level: float
) -> Estimate | None:
    """Measured where there are enough targets, else estimated; ``None`` where neither can be.

    At most ``max_classifier_rows`` of each side are drawn for the models of the loss.
    """
    if reference.predictions is None or window.predictions is None or reference.targets is None:
        return None
    rule = LossRule(params.loss, level, params.loss_margin, params.confidence)
    if has_targets(reference, window, params=params) and window.targets is not None:
        sides = ((side.predictions, side.targets) for side in (reference, window))
        return measure_loss(*(losses_of(*side, metric=rule.metric) for side in sides), rule=rule)  # type: ignore[arg-type]
    before = _rows(np.isfinite(reference.predictions - reference.targets), params=params, of="reference loss")
    after = _rows(np.isfinite(window.predictions), params=params, of="window loss")
    if len(before) < params.min_labels or not len(after):
        return None
    features = standardised(reference.features, window.features, reference_rows=before, window_rows=after)
    answered = reference.predictions[before], window.predictions[after]
    known, new = (np.column_stack(pair) for pair in zip(features, answered, strict=True))
    losses = losses_of(answered[0], reference.targets[before], metric=rule.metric)
    return estimate_loss(known, losses=losses, window_MD=new, rule=rule, seed=params.seed)


def _rows(is_usable: NDArray[np.bool_], *, params: DriftParams, of: str) -> Ints:
    rows = np.flatnonzero(is_usable)
    return rows[drawn(len(rows), limit=params.max_classifier_rows, seed=params.seed, of=of)]
