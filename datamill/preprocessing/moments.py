"""Mean, spread and range of columns that are read block by block and never held."""

from collections.abc import Sequence
from fractions import Fraction
from typing import final

import numpy as np
from numpy.typing import NDArray


@final
class Moments:
    """What is known of the finite values of each column so far.

    Source: T. Chan, G. Golub, R. LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
    1982.
    """

    def __init__(self, num_columns: int) -> None:
        """Nothing is known yet."""
        self.count = np.zeros(num_columns, np.int64)
        """Finite values of each column, shape ``(F,)``."""
        self.mean = np.zeros(num_columns)
        """Their mean, shape ``(F,)``; 0 where there are none."""
        self.low = np.full(num_columns, np.inf)
        """The smallest one, shape ``(F,)``."""
        self.high = np.full(num_columns, -np.inf)
        """The largest one, shape ``(F,)``."""
        self._squares = np.zeros(num_columns)  # sum of squared distances from the mean

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in some rows, shape ``(N, F)``; values that are not finite count as missing."""
        columns = np.ascontiguousarray(values.T)  # sums along memory are the more exact ones
        is_finite = np.isfinite(columns)
        count = is_finite.sum(axis=1)
        finite = np.where(is_finite, columns, 0.0)
        mean = finite.sum(axis=1) / np.maximum(count, 1)
        squares = np.where(is_finite, (finite - mean[:, None]) ** 2, 0.0).sum(axis=1)
        share = count / np.maximum(self.count + count, 1)
        apart = mean - self.mean
        self._squares += squares + apart**2 * (self.count * share)
        self.mean = np.where(self.count == 0, mean, self.mean + apart * share)
        self.count += count
        self.low = np.minimum(self.low, np.where(is_finite, columns, np.inf).min(axis=1, initial=np.inf))
        self.high = np.maximum(self.high, np.where(is_finite, columns, -np.inf).max(axis=1, initial=-np.inf))

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation of each column, shape ``(F,)``; 0 where there are no values."""
        return np.asarray(np.sqrt(self._squares / np.maximum(self.count, 1)), np.float64)


@final
class ExactSums:
    """Sums of columns of numbers in [0, 1] that depend on no order and no batch, to the last bit.

    A number counts as the nearest multiple of 2 to the power of -44, which is further than any of our statistics see;
    whole numbers add up exactly.
    """

    DIGITS = 44  # binary ones after the point
    ROWS = 2**18  # summed at a time, so that 64 bits are enough

    def __init__(self, num_columns: int) -> None:
        """Everything is zero."""
        self._sums: Sequence[int] = [0] * num_columns

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in some rows, shape ``(N, F)``."""
        for start in range(0, len(values), self.ROWS):
            whole = np.rint(values[start : start + self.ROWS] * 2.0**self.DIGITS).astype(np.int64)
            self._sums = [total + int(one) for total, one in zip(self._sums, whole.sum(axis=0), strict=True)]

    def means(self, count: int) -> NDArray[np.float64]:
        """Mean of each column over ``count`` rows, shape ``(F,)``."""
        return np.array([float(Fraction(total, count << self.DIGITS)) for total in self._sums])
