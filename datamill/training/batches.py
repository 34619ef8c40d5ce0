"""Which rows make up each batch of an epoch: decided by the seed and the epoch's number and by nothing else."""

import numpy as np
from numpy.typing import NDArray

STREAM = 0x0BA7C4  # keeps these random numbers apart from those other code draws from the same seed


def epoch_order(draw: NDArray[np.float32], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Rows in the order an epoch visits them; as many as there are.

    Equal probabilities give a permutation: each row once. Unequal ones draw with replacement, so that a row of twice
    the probability comes about twice as often.

    Args:
        draw: Relative probability of each row, not negative, shape ``(N,)``.
        seed: Equal seeds give equal orders.
        epoch: Number of the epoch.

    Returns:
        Row numbers, shape ``(N,)``.
    """
    rng = np.random.default_rng([seed, epoch, STREAM])
    if len(draw) == 0 or draw.min() == draw.max():
        return rng.permutation(len(draw))
    cumulative = np.cumsum(draw, dtype=np.float64)
    drawn = np.searchsorted(cumulative, rng.random(len(draw)) * cumulative[-1], side="right")
    last = np.flatnonzero(draw)[-1]  # rounding may step past it
    order: NDArray[np.int64] = np.minimum(drawn, last)
    return order


def split_batches(order: NDArray[np.int64], *, batch_size: int) -> list[NDArray[np.int64]]:
    """``order`` in batches of at most ``batch_size`` that differ by one row at most.

    A remainder of a few rows would make a batch whose gradient is mostly noise; even batches have none.
    """
    return np.array_split(order, num_batches(len(order), batch_size=batch_size)) if len(order) else []


def num_batches(num_rows: int, *, batch_size: int) -> int:
    """Batches of an epoch."""
    return -(-num_rows // batch_size)
