"""How long each epoch took, and how much of it was spent waiting for data."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Times:
    """Durations of one epoch.

    Attributes:
        seconds: Training and validation together.
        training_s: Training alone.
        loading_s: Waiting for batches, augmentation included; part of ``training_s``.
        num_rows: Rows trained on.
        step_ms: Median of an optimizer step, loading included (milliseconds).
    """

    seconds: float = 0.0
    training_s: float = 0.0
    loading_s: float = 0.0
    num_rows: int = 0
    step_ms: float = 0.0


def summarise(times: Sequence[Times]) -> dict[str, float]:
    """A run's durations, as ``reports/measured/train.json`` keeps them.

    Returns:
        ``seconds`` in all, ``epochs``, ``samples_per_s`` while training, ``loading_share`` of training spent waiting
        for batches, ``step_ms_median``.
    """
    training_s = sum(one.training_s for one in times)
    return {
        "seconds": round(sum(one.seconds for one in times), 3),
        "epochs": len(times),
        "samples_per_s": round(sum(one.num_rows for one in times) / training_s, 1),
        "loading_share": round(sum(one.loading_s for one in times) / training_s, 4),
        "step_ms_median": round(statistics.median(one.step_ms for one in times), 3),
    }
