"""Which row stands at which position of an epoch: decided by the seed and the epoch's number and by nothing else.

An order is read in pieces. Any piece can be computed without those before it, so that an epoch starts, and goes on
anywhere in its middle, in constant time and memory, however many rows there are.
"""

from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from datamill.errors import DataError, ParamsError

Kind = Literal["random", "sequential", "blocks"]

PIECE = 12_288  # positions computed at a time: arrays long enough for NumPy, and too short for malloc to map them anew
ROUNDS = 6  # of the Feistel network; four are the least that theory asks for
WINDOW = 64  # blocks whose rows are mixed

# Streams keep these random numbers apart from those other code draws from the same seed.
SHUFFLE_STREAM = 0x0DE0
DRAW_STREAM = 0x0DE1
BLOCK_STREAM = 0x0DE2
MIX_STREAM = 0x0DE3


class Order(Protocol):
    """The order of one epoch, piece by piece."""

    def piece(self, position: int) -> tuple[int, NDArray[np.int64]]:
        """The piece that holds a position: the position of its first row, and its rows, shape ``(n,)``."""


class OrderReader:
    """Reads an order from anywhere, keeping the latest piece; for one thread."""

    def __init__(self, order: Order) -> None:
        """Nothing is computed before it is read."""
        self._order = order
        self._start = 0
        self._rows: NDArray[np.int64] = np.empty(0, np.int64)

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """Rows at the positions from ``start`` to before ``stop``, shape ``(n,)``; never changed afterwards."""
        parts = []
        while start < stop:
            if not 0 <= start - self._start < len(self._rows):
                self._start, self._rows = self._order.piece(start)
            part = self._rows[start - self._start : stop - self._start]
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int64), *parts])


def make_order(
    kind: Kind,
    *,
    num_rows: int,
    seed: int,
    epoch: int,
    draw: NDArray[np.floating[Any]] | None = None,
    block_rows: int = 1,
) -> Order:
    """The order of an epoch.

    Args:
        kind: ``random`` shuffles all rows; ``blocks`` shuffles blocks of neighbouring rows, then rows among the blocks
            that are near each other by then, so that data beyond memory is read in long runs; ``sequential`` leaves
            them as they are.
        num_rows: Rows of the shard, and positions of the epoch.
        seed: Equal seeds give equal orders, from 0.
        epoch: Number of the epoch, from 0.
        draw: Relative probability of each row, not negative, shape ``(num_rows,)``. Unequal ones draw rows with
            replacement, so that a row of twice the probability comes about twice as often. Only with ``random``.
        block_rows: Neighbouring rows that make a block; only with ``blocks``.

    Raises:
        ParamsError: There is no such kind, a number is negative, or ``draw`` comes with a kind that cannot use it.
        DataError: The probabilities are not those of ``num_rows`` rows, are negative or not finite, or all 0.
    """
    if kind not in get_args(Kind):
        raise ParamsError(f"order is {kind!r}; choose from {', '.join(get_args(Kind))}")
    if seed < 0 or epoch < 0:
        raise ParamsError(f"seed is {seed} and epoch {epoch}; both count from 0")
    if draw is not None and kind != "random":
        raise ParamsError(f"draw needs order 'random', not {kind!r}: only a random order can draw rows")
    if draw is not None and _is_unequal(draw, num_rows=num_rows):
        return Drawn(draw, seed=seed, epoch=epoch)
    if kind == "sequential":
        return Sequential(num_rows)
    if kind == "blocks":
        return BlockShuffled(num_rows, block_rows=block_rows, seed=seed, epoch=epoch)
    return Shuffled(num_rows, rng=np.random.default_rng([seed, epoch, SHUFFLE_STREAM]))


class Sequential:
    """Every row at the position of its number."""

    def __init__(self, num_rows: int) -> None:
        """The order of this many rows."""
        self._num_rows = num_rows

    def piece(self, position: int) -> tuple[int, NDArray[np.int64]]:
        """See ``Order``."""
        start = position // PIECE * PIECE
        return start, np.arange(start, min(start + PIECE, self._num_rows))


class Shuffled:
    """Every row once, in random order, without a list of rows.

    Up to ``PIECE`` rows are shuffled outright. More go through a Feistel network: a position is split into two halves,
    and in each round one half is changed by a random number that depends on the other, which can be undone, so that no
    two positions meet. The numbers lie in tables as long as the square root of ``num_rows``. A position that leaves the
    range is sent through again until it is back.

    Source: Luby and Rackoff, "How to construct pseudorandom permutations from pseudorandom functions", SIAM J. Comput.
    17(2), 1988; Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002 (generalised halves and cycle
    walking); used for shuffling by Mitchell et al., "Bandwidth-optimal random shuffling for GPUs", TOPC 9(1), 2022.
    """

    def __init__(self, num_rows: int, *, rng: np.random.Generator) -> None:
        """Draw the tables; ``rng`` is the source of all randomness."""
        self._num_rows = num_rows
        self._whole = rng.permutation(num_rows) if num_rows <= PIECE else None
        self._bits = (num_rows.bit_length() + 1) // 2  # of the lower half
        self._num_upper = -(-num_rows // 2**self._bits)  # values of the upper half, not a power of two
        self._tables = [
            (rng.integers(0, self._num_upper, 2**self._bits), rng.integers(0, 2**self._bits, self._num_upper))
            for _ in range(ROUNDS // 2 if self._whole is None else 0)
        ]

    def piece(self, position: int) -> tuple[int, NDArray[np.int64]]:
        """See ``Order``."""
        if self._whole is not None:
            return 0, self._whole
        start = position // PIECE * PIECE
        return start, self.at(np.arange(start, min(start + PIECE, self._num_rows)))

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows at some positions, shape ``(P,)``."""
        if self._whole is not None:
            found: NDArray[np.int64] = self._whole[positions]
            return found
        upper, lower = positions >> self._bits, positions & (2**self._bits - 1)
        change = np.empty_like(upper)
        for of_lower, of_upper in self._tables:
            of_lower.take(lower, mode="clip", out=change)  # clips nothing: the mode without a check is faster
            upper += change
            _wrap(upper, size=self._num_upper)
            of_upper.take(upper, mode="clip", out=change)
            lower ^= change
        rows: NDArray[np.int64] = (upper << self._bits) | lower
        outside = np.flatnonzero(rows >= self._num_rows)
        if len(outside):
            rows[outside] = self.at(rows[outside])
        return rows


class BlockShuffled:
    """Every row once; blocks of neighbouring rows in random order, their rows mixed among ``WINDOW`` blocks.

    Where the blocks begin differs from epoch to epoch, and with it which rows are neighbours.
    """

    def __init__(self, num_rows: int, *, block_rows: int, seed: int, epoch: int) -> None:
        """Draw the order of the blocks.

        Raises:
            ParamsError: A block would have no row.
        """
        if block_rows < 1:
            raise ParamsError(f"block_rows is {block_rows}; a block has at least one row")
        rng = np.random.default_rng([seed, epoch, BLOCK_STREAM])
        self._num_rows = num_rows
        self._block_rows = block_rows
        self._num_blocks = num_rows // block_rows  # whole ones; the rest joins the last window
        self._first = int(rng.integers(max(num_rows, 1)))  # the row at which the first block begins
        self._blocks = Shuffled(self._num_blocks, rng=rng)
        self._key = [seed, epoch, MIX_STREAM]

    def piece(self, position: int) -> tuple[int, NDArray[np.int64]]:
        """See ``Order``."""
        last = max(self._num_blocks - 1, 0) // WINDOW
        number = min(position // (WINDOW * self._block_rows), last)
        places = np.arange(number * WINDOW, min((number + 1) * WINDOW, self._num_blocks))
        rows = (self._blocks.at(places)[:, None] * self._block_rows + np.arange(self._block_rows)).ravel()
        if number == last:
            rows = np.concatenate([rows, np.arange(self._num_blocks * self._block_rows, self._num_rows)])
        rows += self._first
        _wrap(rows, size=self._num_rows)
        np.random.default_rng([*self._key, number]).shuffle(rows)
        return number * WINDOW * self._block_rows, rows


class Drawn:
    """Rows drawn with replacement, each as often as its probability says on average."""

    def __init__(self, draw: NDArray[np.floating[Any]], *, seed: int, epoch: int) -> None:
        """Relative probabilities, of which at least one is not 0."""
        self._cumulative = np.cumsum(draw, dtype=np.float64)
        self._last = int(np.flatnonzero(draw)[-1])  # rounding may step past it
        self._key = [seed, epoch, DRAW_STREAM]

    def piece(self, position: int) -> tuple[int, NDArray[np.int64]]:
        """See ``Order``."""
        number = position // PIECE
        start = number * PIECE
        count = min(PIECE, len(self._cumulative) - start)
        chance = np.random.default_rng([*self._key, number]).random(count) * self._cumulative[-1]
        drawn = np.searchsorted(self._cumulative, chance, side="right")
        rows: NDArray[np.int64] = np.minimum(drawn, self._last)
        return start, rows


def _wrap(numbers: NDArray[np.int64], *, size: int) -> None:
    """Bring numbers below twice ``size`` into its range, in place: those that would go below 0 count as huge."""
    unsigned = numbers.view(np.uint64)
    np.minimum(unsigned, (numbers - size).view(np.uint64), out=unsigned)


def _is_unequal(draw: NDArray[np.floating[Any]], *, num_rows: int) -> bool:
    """Whether some rows are more probable than others.

    Raises:
        DataError: These are not the probabilities of ``num_rows`` rows.
    """
    if draw.shape != (num_rows,):
        raise DataError(f"draw has shape {draw.shape} for {num_rows} rows; give one relative probability per row")
    if num_rows == 0:
        return False
    low, high = float(draw.min()), float(draw.max())
    if not (low >= 0 and np.isfinite(high)):
        raise DataError(f"draw goes from {low} to {high}; relative probabilities are finite and not negative")
    if high == 0:
        raise DataError(f"draw is 0 for all {num_rows} rows, so none can be drawn; run balance again")
    return low != high
