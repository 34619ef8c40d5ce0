"""Random numbers that belong to a row: equal for equal (seed, epoch, row), whatever its batch, worker or rank."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

INCREMENT = np.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def row_chances(rows: NDArray[np.integer[Any]], *, num: int, seed: int, epoch: int, stream: int) -> NDArray[np.float64]:
    """Independent uniform numbers for each row.

    Args:
        rows: Row numbers, shape ``(R,)``.
        num: Numbers for each.
        seed: Together with ``epoch`` and ``stream`` the key, from 0.
        epoch: Number of the epoch, from 0.
        stream: Keeps one use of a row's numbers apart from another.

    Returns:
        Numbers in [0, 1), shape ``(num, R)``.

    Source: SplitMix64 in Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    keys = np.random.SeedSequence([seed, epoch, stream]).generate_state(num, np.uint64)
    bits = _mix(_mix(rows.astype(np.uint64) * INCREMENT) ^ keys[:, None])
    return (bits >> np.uint64(11)) * 2.0**-53


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * SECOND
    return bits ^ (bits >> np.uint64(31))
