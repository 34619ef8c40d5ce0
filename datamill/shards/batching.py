"""Which positions of an epoch make up each batch, and which rows of a batch belong to each rank."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from datamill.errors import ParamsError
from datamill.shards.order import OrderReader

Last = Literal["keep", "drop", "even"]

STREAM = 0x0BC7  # keeps the order of a pool's batches apart from other random numbers of the epoch
POOL_BATCHES = 64  # among whose rows those of like length meet


class Place(NamedTuple):
    """Where an epoch stands: what is needed to go on, in constant time."""

    batch: int = 0
    """Batches before this one."""
    pool: int = 0
    """With length buckets: the pool of the next batch."""
    offset: int = 0
    """With length buckets: batches of that pool before it."""


class Portion(NamedTuple):
    """Batches that follow each other."""

    rows: NDArray[np.int64]
    """This rank's rows of all of them, one batch after the other."""
    sizes: list[int]
    """Rows of each."""
    places: list[Place]
    """Where the epoch stands after each."""


class Plan(Protocol):
    """The batches of one epoch."""

    def portion(self, place: Place, *, num_batches: int) -> Portion | None:
        """Up to ``num_batches`` batches from ``place`` on; ``None`` at the end of the epoch."""


@dataclass(frozen=True)
class Shares:
    """How many rows a batch has, and how they are divided: ranks take contiguous slices of every batch.

    So all ranks together see what one rank would see, in the same order.

    Attributes:
        num_rows: Rows of an epoch.
        batch_size: Rows of a batch, over all ranks.
        rank: This process among those that train together, from 0.
        world_size: Number of them.
        last: What becomes of rows that do not fill a batch: ``keep`` makes a smaller one of them, ``drop`` leaves them
            out, ``even`` makes all batches of the epoch differ by one row at most.
    """

    num_rows: int
    batch_size: int
    rank: int = 0
    world_size: int = 1
    last: Last = "keep"

    def __post_init__(self) -> None:
        """Refuse what cannot be divided.

        Raises:
            ParamsError: Naming the numbers.
        """
        if self.batch_size < 1:
            raise ParamsError(f"batch_size is {self.batch_size}; a batch has at least one row")
        if not 0 <= self.rank < self.world_size:
            raise ParamsError(f"rank is {self.rank} of world_size {self.world_size}; ranks count from 0 to one less")
        if self.batch_size % self.world_size:
            raise ParamsError(
                f"batch_size {self.batch_size} cannot be divided by world_size {self.world_size}; "
                f"use {self.batch_size // self.world_size * self.world_size or self.world_size}"
            )
        smallest = self.batch_rows(self.num_batches - 1) if self.num_batches else self.world_size
        if smallest < self.world_size:
            raise ParamsError(
                f"the last batch has {smallest} rows for {self.world_size} ranks, so that some would get none; "
                f"use drop_last=True or even=True, or fewer ranks"
            )

    @property
    def num_batches(self) -> int:
        """Batches of an epoch."""
        return self.num_rows // self.batch_size if self.last == "drop" else -(-self.num_rows // self.batch_size)

    def start(self, batch: int) -> int:
        """Position at which a batch starts."""
        if self.last == "even" and self.num_batches:
            size, longer = divmod(self.num_rows, self.num_batches)
            return batch * size + min(batch, longer)
        return min(batch * self.batch_size, self.num_rows)

    def batch_rows(self, batch: int) -> int:
        """Rows of a batch, over all ranks."""
        return self.start(batch + 1) - self.start(batch)

    def slice_of(self, num_rows: int) -> slice:
        """This rank's part of a batch with so many rows; parts differ by one row at most."""
        size, longer = divmod(num_rows, self.world_size)
        start = self.rank * size + min(self.rank, longer)
        return slice(start, start + size + (self.rank < longer))


class FixedPlan:
    """Batches of one size, in the order of the epoch."""

    def __init__(self, reader: OrderReader, *, shares: Shares) -> None:
        """Batches of the rows that ``reader`` gives."""
        self._reader = reader
        self._shares = shares

    def portion(self, place: Place, *, num_batches: int) -> Portion | None:
        """See ``Plan``."""
        first = place.batch
        last = min(first + num_batches, self._shares.num_batches)
        if first >= last:
            return None
        edges = [self._shares.start(batch) for batch in range(first, last + 1)]
        rows = self._reader.rows(edges[0], edges[-1])
        sizes = [stop - start for start, stop in itertools.pairwise(edges)]
        if self._shares.world_size > 1:
            parts = [part[self._shares.slice_of(len(part))] for part in np.split(rows, np.cumsum(sizes)[:-1])]
            rows, sizes = np.concatenate(parts), [len(part) for part in parts]
        return Portion(rows, sizes, [Place(batch) for batch in range(first + 1, last + 1)])


@dataclass(frozen=True)
class Buckets:
    """Batches of rows of like length, so that little is padded.

    The order of the epoch is cut into pools; a pool's rows are sorted by length and cut into batches, and the batches
    are shuffled, unless the order is sequential.

    Attributes:
        field: Ragged field whose lengths count.
        max_tokens: Most elements of a batch over all ranks, padding included; ``None`` leaves it to ``batch_size``.
        pool_batches: Batches of full size that a pool would make: more pad less and mix less.
        multiple_of: A batch's rows are a multiple of it, wherever rows are left; ``world_size`` must divide it.
    """

    field: str
    max_tokens: int | None = None
    pool_batches: int = POOL_BATCHES
    multiple_of: int = 1

    def __post_init__(self) -> None:
        """Refuse what makes no batch.

        Raises:
            ParamsError: Naming the values.
        """
        if min(self.max_tokens or 1, self.pool_batches, self.multiple_of) < 1:
            raise ParamsError(f"{self} makes no batch; its numbers are at least 1")


class BucketPlan:
    """Batches of rows of like length, pool by pool."""

    def __init__(
        self,
        reader: OrderReader,
        *,
        shares: Shares,
        buckets: Buckets,
        lengths: Callable[[NDArray[np.int64]], NDArray[np.int64]],
        key: list[int] | None,
    ) -> None:
        """Batches of the rows that ``reader`` gives.

        Args:
            reader: The order of the epoch.
            shares: Most rows of a batch, and the ranks.
            buckets: How rows are brought together.
            lengths: Lengths of some rows.
            key: Seeds the order of batches within a pool; ``None`` keeps them sorted.

        Raises:
            ParamsError: The ranks do not divide ``buckets.multiple_of`` or the rows.
        """
        step = buckets.multiple_of
        if step % shares.world_size or shares.batch_size % step:
            raise ParamsError(
                f"buckets.multiple_of is {step} for batch_size {shares.batch_size} and world_size {shares.world_size}; "
                f"use a multiple of world_size that divides batch_size"
            )
        rest = shares.num_rows % step
        if shares.last != "drop" and 0 < rest < shares.world_size:
            raise ParamsError(
                f"a batch of {rest} rows is left for {shares.world_size} ranks, so that some would get none; "
                f"use drop_last=True, or fewer ranks"
            )
        self._reader = reader
        self._shares = shares
        self._buckets = buckets
        self._lengths = lengths
        self._key = key
        self._num_rows = shares.num_rows - (rest if shares.last == "drop" else 0)
        self._pool_rows = buckets.pool_batches * shares.batch_size
        self._latest: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    @property
    def num_pools(self) -> int:
        """Pools of the epoch."""
        return -(-self._num_rows // self._pool_rows)

    def portion(self, place: Place, *, num_batches: int) -> Portion | None:
        """See ``Plan``."""
        batch, pool, offset = place
        while pool < self.num_pools and offset >= len(self.pool(pool)):
            pool, offset = pool + 1, 0
        if pool >= self.num_pools:
            return None
        chosen = self.pool(pool)[offset : offset + num_batches]
        parts = [rows[self._shares.slice_of(len(rows))] for rows in chosen]
        places = [Place(batch + count, pool, offset + count) for count in range(1, len(chosen) + 1)]
        return Portion(np.concatenate(parts), [len(part) for part in parts], places)

    def pool(self, number: int) -> list[NDArray[np.int64]]:
        """The batches of a pool, over all ranks."""
        if self._latest[0] != number:
            self._latest = (number, self._fill(number))
        return self._latest[1]

    def _fill(self, number: int) -> list[NDArray[np.int64]]:
        start = number * self._pool_rows
        rows = self._reader.rows(start, min(start + self._pool_rows, self._num_rows))
        lengths = self._lengths(rows)
        is_short = int(lengths.max(initial=0)) < 2**16
        by_length = np.argsort(lengths.astype(np.uint16) if is_short else lengths, kind="stable")  # 16 bits: radix sort
        rows, lengths = rows[by_length], lengths[by_length]
        batches = [rows[start:stop] for start, stop in itertools.pairwise([0, *self._cuts(lengths), len(rows)])]
        if self._key is not None:
            shuffled = np.random.default_rng([*self._key, STREAM, number]).permutation(len(batches))
            batches = [batches[place] for place in shuffled]
        return batches

    def _cuts(self, lengths: NDArray[np.int64]) -> list[int]:
        """Where sorted rows are cut into batches.

        Raises:
            ParamsError: A row alone is longer than a batch may be.
        """
        budget, step = self._buckets.max_tokens, self._buckets.multiple_of
        if budget is None:
            return list(range(self._shares.batch_size, len(lengths), self._shares.batch_size))
        cuts, start = [], 0
        while start < len(lengths):
            some = lengths[start : start + self._shares.batch_size]
            padded = some * np.arange(1, len(some) + 1)  # elements of the batch if it ended here; they rise
            count = int(np.searchsorted(padded, budget, side="right"))
            if count < len(some) or start + count < len(lengths):
                count -= count % step
            if count == 0:
                raise ParamsError(
                    f"a row of {some[min(step, len(some)) - 1]} elements, {step} of its like, exceeds "
                    f"buckets.max_tokens {budget}; raise it, or cut rows with windows"
                )
            start += count
            cuts.append(start)
        return cuts[:-1]
