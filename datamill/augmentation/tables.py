"""Augmentation of tables: noise on measured columns, in proportion to their spread."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamill.augmentation.policy import Policy, Streams, Transform, require_known
from datamill.errors import ParamsError

TRANSFORMS = ("jitter",)
BLOCK_ROWS = 65_536  # rows measured at a time


class TableAugmenter:
    """Applies our own transforms to numeric columns."""

    def __init__(self, policy: Policy, *, scales: NDArray[np.float64]) -> None:
        """Check every transform of the policy.

        Args:
            policy: A policy for tables.
            scales: Standard deviation of each column over train, shape (D,); 0 leaves a column alone.

        Raises:
            ParamsError: A name or an argument is wrong.
        """
        self._streams = Streams(policy.seed)
        self._steps = [(step.probability, _jitter_share(step)) for step in policy.transforms]
        self._scales = scales

    @property
    def is_identity(self) -> bool:
        """Whether there is no transform."""
        return not self._steps

    def apply(self, x: NDArray[Any], *, sample_ids: NDArray[np.uint8], epoch: int) -> NDArray[Any]:
        """Rows with noise added, shape (B, D); see ``Augmenter.apply``."""
        if self.is_identity:
            return x
        assert x.shape[1:] == self._scales.shape, f"rows have {x.shape[1]} columns, the policy {len(self._scales)}"
        noise = np.zeros(x.shape)
        for row in range(len(x)):
            self._streams.enter(sample_id=sample_ids[row].tobytes(), epoch=epoch)
            for probability, share in self._steps:
                if self._streams.numpy.random() < probability:
                    noise[row] += share * self._scales * self._streams.numpy.standard_normal(x.shape[1])
        return (x + noise).astype(x.dtype)


def column_scales(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Standard deviation of each measured column, shape (D,); 0 for codes: two values, or whole numbers only.

    One-hot indicators and ordinal codes are codes: noise would turn them into categories that do not exist.
    """
    if not len(rows):
        return np.zeros(rows.shape[1])
    lowest, highest = rows.min(axis=0), rows.max(axis=0)
    is_code = np.ones(rows.shape[1], bool)
    is_whole = np.ones(rows.shape[1], bool)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        is_code &= ((block == lowest) | (block == highest)).all(axis=0)
        is_whole &= (block == np.round(block)).all(axis=0)
    return np.where(is_code | is_whole, 0.0, np.asarray(rows.std(axis=0, dtype=np.float64)))


def _jitter_share(step: Transform) -> float:
    require_known(step.name, known=TRANSFORMS, kind="transform", where="augment.transforms")
    for argument in step.arguments:
        require_known(argument, known=("share",), kind="argument", where=f"augment.transforms: {step.name}")
    share = step.arguments.get("share")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ParamsError(f"augment.transforms: {step.name}: share was {share!r}; give a number in (0, 1]")
    return float(share)
