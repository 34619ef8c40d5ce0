"""What every detector is: fitted on a reference, it says how a window differs, how surely, and by how much."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

Sample = NDArray[Any]
"""Numbers, shape ``(N,)``; category codes, int64, shape ``(N,)``; or rows of numbers, shape ``(N, D)``."""


@dataclass(frozen=True)
class Setting:
    """What detectors that draw or permute need.

    Attributes:
        num_permutations: Permutations of a permutation test.
        level: Chance of a false alarm, for detectors that have to know it beforehand.
        seed: Seeds everything random.
    """

    num_permutations: int
    level: float
    seed: int


@dataclass(frozen=True)
class Finding:
    """How a window differs from the reference.

    Attributes:
        statistic: The detector's own statistic.
        p_value: Chance of such a statistic without drift; ``None`` where the detector decides by itself.
        effect: How large the difference is, whatever the number of samples.
        is_drift: What a detector without a p-value decided.
        detail: Particulars as JSON values.
    """

    statistic: float
    p_value: float | None
    effect: float
    is_drift: bool = False
    detail: dict[str, Any] = field(default_factory=dict)


class Detector(Protocol):
    """Made from a reference sample and a setting, which is how it is fitted."""

    effect_name: str
    """Which measure of size it gives: a field of ``EffectParams``."""

    def __init__(self, reference: Sample, *, setting: Setting) -> None:
        """Fit on the reference, at least one row."""

    def test(self, window: Sample) -> Finding:
        """How a window of the same kind of sample differs, at least one row."""
