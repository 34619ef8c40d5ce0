"""What a challenger must show; the ``promote`` section of ``watch.yaml``."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from datamill.stage import Params
from datamill.watchfile import WATCH_FILE, load_section, read_sections

SECTION = "promote"

Metric = Literal["accuracy", "precision", "recall", "f1", "roc_auc", "log_loss", "brier", "calibration_error"]


class SliceParams(Params):
    """How much worse a challenger may be on a part of the test split."""

    allowance: float = Field(ge=0, lt=1)
    """Accuracy that any slice may lose (share)."""
    level: float = Field(gt=0.5, lt=1)
    """How sure a greater loss must be to count, by an exact test of the samples that changed sides (share)."""
    min_count: PositiveInt
    """Samples a slice needs to be judged; smaller ones are only counted (count)."""


class SpeedParams(Params):
    """How slow and large a challenger may be; ``null`` sets no limit."""

    max_latency_ms: PositiveFloat | None
    """Median time for one sample (ms)."""
    max_latency_ratio: PositiveFloat | None
    """Median time for one sample relative to the champion's, both timed in turn on this machine (ratio)."""
    max_size_bytes: PositiveInt | None
    """Size of ``model.onnx`` (bytes)."""
    max_size_ratio: PositiveFloat | None
    """Size of ``model.onnx`` relative to the champion's (ratio)."""


class ShadowParams(Params):
    """How both models are compared on what came in lately."""

    num_windows: NonNegativeInt
    """Newest windows whose inputs both models answer (count); 0 leaves the comparison out."""
    max_rows: PositiveInt
    """Inputs at most, newest first (count)."""
    min_rows: PositiveInt
    """Fewer inputs than this are not compared, fewer labels than this count as none (count)."""
    is_required: bool
    """Whether a challenger is refused when there are too few inputs to compare."""
    max_loss: float = Field(ge=0, lt=1)
    """Accuracy that may be lost: measured where there are labels, else estimated (share)."""
    min_agreement: float = Field(ge=0, le=1)
    """Without labels, inputs on which both must name the same class (share)."""


class RecentParams(Params):
    """When being better on recent windows is enough, although the frozen test set shows no gain."""

    min_labels: PositiveInt
    """Labelled inputs of the newest ``shadow.num_windows`` windows that it takes (count)."""
    max_loss: float = Field(ge=0)
    """What the test set may lose: the lower end of the gain's interval there must not be below (unit of the metric)."""


class PromoteParams(Params):
    """What a challenger must show to become champion."""

    after_training: bool
    """Whether every training flow that executed a stage ends with a decision."""
    metric: Metric
    """The headline metric, compared on the test samples that both models have."""
    level: float = Field(gt=0.5, lt=1)
    """Coverage of the interval of the difference, which must exclude zero (share)."""
    num_resamples: int = Field(ge=100, le=100_000)
    """Paired bootstrap resamples behind the interval (count)."""
    seed: int = Field(ge=0)
    """Seeds the resamples."""
    margin: PositiveFloat | None
    """A gain that is enough although the interval includes zero (unit of the metric); ``null``: none is."""
    floor: float | None
    """Worst value of the metric with which a first model becomes champion; ``null``: any."""
    min_common: PositiveInt
    """Test samples that both models must have (count)."""
    min_common_share: float = Field(gt=0, le=1)
    """Share of the champion's test samples that must still be test samples."""
    slices: SliceParams
    """Limits for parts of the test split."""
    speed: SpeedParams
    """Limits of latency and size."""
    shadow: ShadowParams
    """The comparison on recent windows."""
    recent: RecentParams | None
    """When being better on recent windows is enough; ``null``: never, the frozen test set must show the gain."""
    keep: PositiveInt
    """Earlier champions kept in ``models/champions`` to roll back to (count)."""


def read_policy(root: Path) -> PromoteParams | None:
    """The section ``promote`` of ``watch.yaml``; ``None`` without that file or section.

    Raises:
        ParamsError: A value is wrong; lists every fault.
    """
    if not (root / WATCH_FILE).exists() or SECTION not in read_sections(root):
        return None
    return load_section(root, SECTION, PromoteParams)
