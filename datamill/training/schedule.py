"""The learning rate at each step: a linear warm-up, then half a cosine down to zero."""

import math


def learning_rate(step: int, *, num_steps: int, peak: float, warmup_share: float) -> float:
    """Learning rate of one optimizer step.

    Args:
        step: Number of the step, from 0 to ``num_steps - 1``.
        num_steps: Steps of the whole run.
        peak: Highest learning rate, reached at the end of the warm-up.
        warmup_share: Share of the steps that warm up, in [0, 1).

    Source: I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.
    """
    warmup = round(warmup_share * num_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    return peak * (1 + math.cos(math.pi * progress)) / 2
