"""How much better one model is than another on the same samples, and how sure that is."""

# Shapes: N samples, R resamples.

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamill.evaluation import bootstrap
from datamill.evaluation.metrics import LOWER_IS_BETTER, Predictions, scores, weighted_scores
from datamill.promotion.evidence import NUM_BINS
from datamill.promotion.params import PromoteParams


@dataclass(frozen=True)
class Gain:
    """A difference of the headline metric.

    Attributes:
        metric: Its name.
        champion: Its value.
        challenger: Its value.
        low: Lower end of the interval of the gain; -inf where it is not defined in most resamples.
        high: Upper end.
    """

    metric: str
    champion: float
    challenger: float
    low: float
    high: float

    @property
    def value(self) -> float:
        """How much better the challenger is, whichever way the metric points."""
        return gain_of(self.champion, self.challenger, metric=self.metric)

    @property
    def is_sure(self) -> bool:
        """Whether the challenger is better and the interval excludes zero."""
        return self.value > 0 and self.low > 0

    @property
    def numbers(self) -> dict[str, float]:
        """All of it, to be read by machines."""
        ends = {"low": self.low, "high": self.high} if np.isfinite(self.low) else {}
        return {"champion": self.champion, "challenger": self.challenger, "gain": self.value, **ends}

    def __str__(self) -> str:
        """All of it in words."""
        ends = f"{self.low:+.4f} to {self.high:+.4f}" if np.isfinite(self.low) else "undefined"
        return f"{self.metric} {self.challenger:.4f} against {self.champion:.4f}, gain {self.value:+.4f} ({ends})"


def measure_gain(
    champion: Predictions, challenger: Predictions, *, unit_N: NDArray[np.int64], policy: PromoteParams
) -> Gain | None:
    """The gain with its interval over paired resamples; ``None`` where the metric is not defined.

    Args:
        champion: Its answers, N rows.
        challenger: Its answers to the same samples.
        unit_N: What a resample draws together; see ``bootstrap.units``.
        policy: Metric, level, resamples and seed.
    """
    metric = policy.metric
    before, now = (scores(one, num_bins=NUM_BINS).get(metric) for one in (champion, challenger))
    if before is None or now is None:
        return None
    before_R, now_R = (
        bootstrap.resample(
            lambda weight_NR, one=one: weighted_scores(one, weight_NR=weight_NR, num_bins=NUM_BINS),  # type: ignore[misc]
            unit_N=unit_N,
            num_resamples=policy.num_resamples,
            rng=np.random.default_rng([policy.seed, 3]),
        )[metric]
        for one in (champion, challenger)
    )
    gain_R = before_R - now_R if metric in LOWER_IS_BETTER else now_R - before_R
    low, high = bootstrap.percentile_interval(gain_R, level=policy.level) or (-np.inf, np.inf)
    return Gain(metric, before, now, low, high)


def gain_of(before: float, now: float, *, metric: str) -> float:
    """How much better ``now`` is, whichever way the metric points."""
    return before - now if metric in LOWER_IS_BETTER else now - before
