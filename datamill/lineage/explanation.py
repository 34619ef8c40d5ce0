"""What is known about a difference between two runs; plain values, so that every page can show them."""

from collections.abc import Mapping
from dataclasses import dataclass

from datamill.lineage.decomposition import Decomposition
from datamill.lineage.ranking import Ranked
from datamill.lineage.shifts import Share, Shift


@dataclass(frozen=True)
class Followed:
    """What a stage decides otherwise about samples that both runs have.

    Attributes:
        stage: Whose decision.
        count: Samples it decides otherwise about.
        num_own: Of those, the ones that came to it unchanged: its own parameters or code, or its view of the others,
            made the difference.
        transitions: The most frequent ones: before, after, samples.
    """

    stage: str
    count: int
    num_own: int
    transitions: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class ClassDelta:
    """What happened in one class of the common test samples.

    Attributes:
        name: The class.
        num_common: Common test samples of it.
        right_a: Those that A gets right.
        right_b: Those that B gets right.
        share: What the class accounts for in the model's part.
    """

    name: str
    num_common: int
    right_a: int
    right_b: int
    share: float


@dataclass(frozen=True)
class SliceDelta:
    """Accuracy of the same slice in both runs' own reports."""

    property: str
    value: str
    num_a: int
    num_b: int
    accuracy_a: float
    accuracy_b: float


@dataclass(frozen=True)
class Explanation:
    """Everything that is known about a difference.

    Attributes:
        a: Name of the run before.
        b: Name of the run after.
        metric: What was measured, on which split.
        value_a: Its value before.
        value_b: Its value after.
        decomposition: Exact parts.
        ranked: Causes, the first one first.
        without_effect: What differs and provably changed nothing.
        followed: What followed, by stage.
        sizes: Samples before and after, by split, and ``generated``.
        shares: Classes and folders that grew or shrank.
        features: Features that moved.
        classes: The model's part by class.
        slices: Slices by accuracy.
        notes: What could not be told, and why.
    """

    a: str
    b: str
    metric: str
    value_a: float
    value_b: float
    decomposition: Decomposition
    ranked: tuple[Ranked, ...]
    without_effect: tuple[str, ...]
    followed: tuple[Followed, ...]
    sizes: Mapping[str, tuple[int, int]]
    shares: tuple[Share, ...]
    features: tuple[Shift, ...]
    classes: tuple[ClassDelta, ...]
    slices: tuple[SliceDelta, ...]
    notes: tuple[str, ...]

    @property
    def difference(self) -> float:
        """After minus before."""
        return self.value_b - self.value_a
