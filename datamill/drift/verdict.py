"""What was found about one window; every number is plain, so that it goes into JSON as it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["quality", "input", "embedding", "prediction", "label", "concept", "performance"]


@dataclass(frozen=True)
class Outcome:
    """One test of one thing.

    Attributes:
        kind: What was looked at.
        detector: How: ``ks``, ``cvm``, ``chi2``, ``mmd``, ``null_share``, ...
        subject: The feature or class it is about; empty for all of them together.
        statistic: The detector's own statistic.
        p_value: Chance of such a statistic without drift, before correction; ``None`` for checks that are no tests.
        effect: How large the difference is, whatever the number of samples.
        effect_name: Which measure of size: ``wasserstein``, ``cramers_v``, ``psi``, ``auc``, ``share``, ...
        is_drift: The verdict, after correction for the number of tests and of windows.
        backend: ``native`` or ``alibi``.
        detail: Particulars as JSON values: before and after, thresholds, example ids.
    """

    kind: Kind
    detector: str
    subject: str
    statistic: float
    p_value: float | None
    effect: float
    effect_name: str
    is_drift: bool
    backend: Literal["native", "alibi"] = "native"
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """How good the model is on the window, estimated without labels, or measured where there are enough of them.

    Attributes:
        metric: ``accuracy``, ``mae``, ...
        reference: Its value on the reference.
        estimated: Its value on the window.
        low: Lower end of the estimate's interval.
        high: Upper end of the estimate's interval.
        is_measured: From labels, not estimated.
        is_at_risk: The window is worse than the reference by more than the margin allowed.
    """

    metric: str
    reference: float
    estimated: float
    low: float
    high: float
    is_measured: bool
    is_at_risk: bool


@dataclass(frozen=True)
class Slice:
    """Samples that have something in common, in the reference and in the window.

    Attributes:
        name: What they have in common: ``brightness from 91.5 to 120``, ``colour = red``, ``predicted = boot``.
        reference_share: Share of the reference that they are (0 to 1).
        window_share: Share of the window that they are (0 to 1).
        reference_accuracy: The model's on those of the reference, estimated as on those of the window; ``None`` where
            it cannot be told.
        window_accuracy: The model's on those of the window, estimated without labels.
        sample_ids: Some of them, out of the window.
    """

    name: str
    reference_share: float
    window_share: float
    reference_accuracy: float | None
    window_accuracy: float | None
    sample_ids: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What was found about one window.

    Attributes:
        num_samples: Samples in the window.
        num_reference: Samples in the reference it was compared with.
        outcomes: Every test and check.
        performance: The model's performance on the window; ``None`` where it cannot be told.
        notes: What could not be judged, and why.
        slices: Groups of samples that grew, shrank or got worse most, the most telling first.
        level: Chance at which this window may falsely be called drifted; 0 where nothing was tested.
    """

    num_samples: int
    num_reference: int
    outcomes: tuple[Outcome, ...]
    performance: Estimate | None = None
    notes: tuple[str, ...] = ()
    slices: tuple[Slice, ...] = ()
    level: float = 0.0

    @property
    def is_drift(self) -> bool:
        """Whether any test says so."""
        return any(outcome.is_drift for outcome in self.outcomes)

    @property
    def is_at_risk(self) -> bool:
        """Whether the model's performance is at risk: the only reason to wake somebody."""
        return self.performance is not None and self.performance.is_at_risk
