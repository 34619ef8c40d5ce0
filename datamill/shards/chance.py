"""Random numbers that belong to a row: equal for equal (seed, epoch, row), whatever its batch, worker or rank."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamill.mixing import INCREMENT, mixed


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
    """
    keys = np.random.SeedSequence([seed, epoch, stream]).generate_state(num, np.uint64)
    bits = mixed(mixed(rows.astype(np.uint64) * INCREMENT) ^ keys[:, None])
    return (bits >> np.uint64(11)) * 2.0**-53
