"""Batches of a shard for training: in an order that the seed decides, as fast as memory gives them."""

import contextlib
import os
import threading
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

import torch
from numpy.typing import NDArray
from torch import Tensor

from datamill.errors import ParamsError, StageError
from datamill.shards import prefetching, resuming
from datamill.shards.assembling import Assembler, Batch, Layout, Recipe, Slot, Task, Transform
from datamill.shards.batching import BucketPlan, Buckets, FixedPlan, Place, Plan, Shares
from datamill.shards.decoding import Decode
from datamill.shards.fields import ArrayField, RaggedField
from datamill.shards.forking import OwnLock
from datamill.shards.gathering import Statistics
from datamill.shards.native import Shard, open_shard
from datamill.shards.order import Kind, OrderReader, make_order
from datamill.shards.windows import Window

Verify = Literal["open", "touch", "full"]

BLOCK_BYTES = 4 * 2**20  # batches made at a time: many enough to hide the cost of a call, few enough for the cache
MAX_BLOCK_BATCHES = 32
RUN_BYTES = 4 * 2**20  # neighbouring rows that order "blocks" keeps together
CHECK_BATCHES = 256  # between two looks at whether the files are those that were opened


class ShardLoader:
    """Iterating gives the batches of one epoch after another; the position can be saved and restored at any batch.

    Which rows make up which batch depends on the data, the order, the seed, the epoch and the size of a batch, and on
    nothing else: any number of workers and ranks, and a run that was interrupted, see the same.

    A batch is a dictionary: tensors by field, and ``row``, the row numbers. Fields of varying length come padded to the
    longest row of the batch, with ``<field>_mask`` (true where an element is real) and ``<field>_length``; bytes that
    are not decoded come as a list. Batches lie in memory that is used again: one is valid until ``ring`` further
    batches of its epoch were taken. Clone what is kept longer, or set ``copy``.
    """

    def __init__(
        self,
        source: Shard | Path | str,
        *,
        batch_size: int = 256,
        fields: Sequence[str] | None = None,
        order: Kind = "random",
        seed: int = 0,
        epoch: int = 0,
        draw: NDArray[Any] | None = None,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        even: bool = False,
        num_workers: int = 0,
        prefetch: int = 2,
        verify: Verify = "touch",
        normalise: Mapping[str, Statistics] | None = None,
        layout: Layout = "NHWC",
        decode: Mapping[str, Decode] | None = None,
        windows: Mapping[str, Window] | None = None,
        buckets: Buckets | None = None,
        pad: Mapping[str, float] | None = None,
        transform: Transform | None = None,
        cache_bytes: int = 0,
        ring: int = 4,
        copy: bool = False,
        device: str | torch.device = "cpu",
        pin: bool | None = None,
    ) -> None:
        """Open the shard; nothing is read before the first batch is asked for.

        Args:
            source: An open shard, its folder, or its address.
            batch_size: Rows of a batch, over all ranks.
            fields: Which are loaded; all when not given.
            order: ``random``, ``sequential``, or ``blocks`` for data that does not fit in memory; see ``make_order``.
            seed: Of the order and of random crops, from 0.
            epoch: Number of the first epoch, from 0.
            draw: Relative probability of each row, shape (N,); unequal ones draw with replacement.
            rank: This process among those that train together, from 0; each takes a contiguous slice of every batch.
            world_size: Number of them; divides ``batch_size``.
            drop_last: Leave out the rows that do not fill the last batch, instead of making a smaller one.
            even: Make all batches of an epoch differ by one row at most instead.
            num_workers: Threads that work ahead. None is best for small arrays; as many as cores for images to decode.
            prefetch: Blocks of batches that are ready or under way beyond those that workers are at.
            verify: ``touch`` compares each part of a file with its checksum before rows of it are first used, ``full``
                all of it now, ``open`` leaves it at what opening checks.
            normalise: Mean and standard deviation by field, of the values on the scale where the type's largest is 1
                (255 of uint8, 32768 of int16); numbers, or one per channel. Makes the field float32.
            layout: Of images: ``NHWC`` as stored, or ``NCHW``, the same memory with the axes networks expect.
            decode: What becomes of encoded images, by field.
            windows: Cuts rows of any length, or arrays along their first axis, to one length, by field.
            buckets: Makes batches of rows of like length.
            pad: What follows the end of shorter rows, by field; 0 when not given.
            transform: Changes every batch before it is normalised.
            cache_bytes: Memory for decoded images; what is kept is not decoded again.
            ring: Batches after which a batch's memory may be used again, at least 1.
            copy: Give every batch memory of its own.
            device: Where batches are wanted; to a GPU they are copied while the batch before is used.
            pin: Lay batches into pages that a GPU can read directly; when not given, if ``device`` is one.

        Raises:
            DataError: The shard is damaged.
            ParamsError: An argument is wrong.
        """
        if verify not in get_args(Verify):
            raise ParamsError(f"verify is {verify!r}; choose from {', '.join(get_args(Verify))}")
        if min(num_workers, prefetch - 1, ring - 1) < 0:
            raise ParamsError(
                f"num_workers is {num_workers}, prefetch {prefetch}, ring {ring}; they are at least 0, 1 and 1"
            )
        if even and (drop_last or buckets):
            raise ParamsError("even goes with neither drop_last nor buckets; choose one")
        self._shard = source if isinstance(source, Shard) else _open(source)
        if verify == "full":
            self._shard.verify()
        self._device = _require_device(device)
        self._shares = Shares(
            num_rows=self._shard.num_rows,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            last="drop" if drop_last else "even" if even else "keep",
        )
        self._recipe = Recipe(
            fields=tuple(self._shard.fields) if fields is None else tuple(fields),
            normalise=normalise or {},
            decode=decode or {},
            windows=windows or {},
            pad=pad or {},
            layout=layout,
            transform=transform,
        )
        self._order, self._seed, self._draw, self._buckets = order, seed, draw, buckets
        _require_order(self._shard, fields=self._recipe.fields, order=order)
        self._num_workers, self._depth = num_workers, num_workers + prefetch - 1
        self._copy, self._ring = copy, ring
        self._pin = self._device.type == "cuda" if pin is None else pin
        self._assembler = Assembler(
            self._shard,
            recipe=self._recipe,
            seed=seed,
            cache_bytes=cache_bytes,
            touches=verify == "touch",
            finishes=self._device.type == "cpu",
        )
        self._row_bytes = self._assembler.row_bytes()
        self._block_batches = self._batches_per_block()
        self._run_rows = max(1, RUN_BYTES // max(1, _stored_bytes(self._shard)))
        are_alike = all(isinstance(self._shard.fields[name], ArrayField) for name in self._recipe.fields)
        self._choice = prefetching.ThreadChoice(most=None if are_alike else 1)  # tasks of other costs teach nothing
        self._slots: list[Slot] = []
        self._next_slot = 0
        self._epoch, self._place = epoch, Place()
        self._is_started = False  # whether the next iteration begins another epoch
        self._lock = OwnLock()
        self._current: weakref.ref[Batches] | None = None  # weak: one that nobody holds any more ends by itself
        self._identity = {
            "fingerprint": self._shard.fingerprint,
            "seed": seed,
            "order": order,
            "batch_size": batch_size,
            "last": self._shares.last,
            "buckets": asdict(buckets) if buckets else None,
            "draw": resuming.digest(draw),
        }
        self._plan(epoch)  # so that what is wrong with it is said now

    @property
    def shard(self) -> Shard:
        """What is loaded."""
        return self._shard

    @property
    def epoch(self) -> int:
        """Number of the epoch that is under way, else of the one that comes next."""
        return self._epoch

    def __len__(self) -> int:
        """Batches of an epoch; with length buckets, of this one, which takes reading all lengths."""
        plan = self._plan(self._epoch)
        if isinstance(plan, BucketPlan):
            return sum(len(plan.pool(number)) for number in range(plan.num_pools))
        return self._shares.num_batches

    def __iter__(self) -> "Batches":
        """The batches of the next epoch, or of the rest of the one that a loaded state is in.

        An iteration that is still going on ends: batches share memory. Threads may share one, each batch goes to one.
        """
        with self._lock:
            self._close_current()
            plan = self._plan(self._epoch)
            if self._is_started or (self._place != Place() and plan.portion(self._place, num_batches=1) is None):
                self._epoch, self._place = self._epoch + 1, Place()
                plan = self._plan(self._epoch)
            self._is_started = True
            batches = Batches(self._batches(plan))
            self._current = weakref.ref(batches)
            return batches

    def state_dict(self) -> dict[str, Any]:
        """Which batch comes next: what was made ahead but not taken is not counted. Plain JSON types."""
        return resuming.pack(self._identity, epoch=self._epoch, place=self._place)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the state was saved, in constant time; workers and ranks may be others than then.

        Raises:
            StageError: It is no state, or that of a loader of other data, order, seed or batches.
        """
        epoch, place = resuming.unpack(state, identity=self._identity)
        with self._lock:
            self._close_current()
            self._epoch, self._place, self._is_started = epoch, place, False

    def __reduce__(self) -> NoReturn:
        """Refuse to be sent to another process.

        Raises:
            StageError: Always.
        """
        raise StageError(
            f"a loader holds open files and threads, which cannot be sent to another process; make one of "
            f"{self._shard.folder} there, with its state_dict where it is to go on"
        )

    def _close_current(self) -> None:
        current = self._current() if self._current is not None else None
        if current is not None:
            current.close()

    def _batches(self, plan: Plan) -> Generator[Batch, None, None]:
        epoch = self._epoch
        blocks = prefetching.ahead(
            self._assembler.make,
            self._tasks(plan, epoch=epoch),
            num_workers=self._num_workers,
            depth=self._depth,
            choice=self._choice,
        )
        with contextlib.closing(blocks):
            batches = (batch for block in blocks for batch in block)
            for batch, place in self._delivered(batches):
                self._place = place
                yield _cloned(batch) if self._copy else batch
        self._epoch, self._place, self._is_started = epoch + 1, Place(), False

    def _delivered(self, batches: Iterator[tuple[Batch, Place]]) -> Iterator[tuple[Batch, Place]]:
        if self._device.type == "cpu":
            return batches
        from datamill.shards.transferring import transferred

        return transferred(
            batches, device=self._device, normalisers=self._assembler.normalisers, layout=self._recipe.layout
        )

    def _tasks(self, plan: Plan, *, epoch: int) -> Iterator[Task]:
        place, num_unchecked = self._place, CHECK_BATCHES
        while (portion := plan.portion(place, num_batches=self._block_batches)) is not None:
            if num_unchecked >= CHECK_BATCHES:
                self._shard.check_unchanged()
                num_unchecked = 0
            num_unchecked += len(portion.sizes)
            place = portion.places[-1]
            yield Task(portion, self._take_slot(), epoch)

    def _take_slot(self) -> Slot:
        """The slot whose batches have been out of use for longest."""
        held = self._ring if self._buckets else -(-self._ring // self._block_batches)
        count = held + 1 + (self._depth if self._num_workers else 0)
        if len(self._slots) < count:
            num_rows = self._block_batches * (self._shares.batch_size // self._shares.world_size)
            self._slots.append(self._assembler.slot(num_rows, pin=self._pin))
            return self._slots[-1]
        self._next_slot = (self._next_slot + 1) % count
        return self._slots[self._next_slot - 1]

    def _plan(self, epoch: int) -> Plan:
        order = make_order(
            self._order,
            num_rows=self._shard.num_rows,
            seed=self._seed,
            epoch=epoch,
            draw=self._draw,
            block_rows=self._run_rows,
        )
        reader = OrderReader(order)
        if self._buckets is None:
            return FixedPlan(reader, shares=self._shares)
        field = self._shard.fields.get(self._buckets.field)
        if not isinstance(field, RaggedField):
            raise ParamsError(f"buckets.field is {self._buckets.field!r}, which has no rows of varying length")
        key = None if self._order == "sequential" else [self._seed, epoch]
        lengths = field.lengths
        return BucketPlan(reader, shares=self._shares, buckets=self._buckets, lengths=lengths.__getitem__, key=key)

    def _batches_per_block(self) -> int:
        """One where decoding makes a batch dear enough to be handed over alone."""
        batch_bytes = self._row_bytes * self._shares.batch_size // self._shares.world_size
        wanted = BLOCK_BYTES // max(1, batch_bytes)
        return 1 if self._recipe.decode or self._recipe.transform else max(1, min(wanted, MAX_BLOCK_BATCHES))


class Batches(Iterator[Batch]):
    """The batches of one epoch; closing it ends its threads."""

    def __init__(self, batches: Generator[Batch, None, None]) -> None:
        """Batches of a generator."""
        self._batches = batches
        self._is_closed = False
        self._lock = threading.RLock()
        self._pid = os.getpid()

    def __next__(self) -> Batch:
        if self._pid != os.getpid():
            raise StageError("this iteration began in another process, whose threads are not here; begin one here")
        with self._lock:
            if self._is_closed:
                raise StageError("the loader began another iteration, or loaded a state; this one cannot go on")
            return next(self._batches)

    def close(self) -> None:
        """End the threads; asking for another batch is an error."""
        self._is_closed = True
        if self._pid == os.getpid():  # in a forked child there are no threads to end
            with self._lock:
                self._batches.close()


def _require_order(shard: Shard, *, fields: Sequence[str], order: Kind) -> None:
    streamed = [name for name in fields if name in shard.fields and shard.is_streamed(name)]
    if order == "random" and streamed:
        raise ParamsError(
            f"order is 'random', but {', '.join(streamed)} of {shard.folder} is larger than its cache: almost every "
            "row would fetch a block; choose 'blocks' or 'sequential', or open the shard with a larger cache_bytes"
        )


def _require_device(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
    except RuntimeError as error:  # its words list every kind that torch knows
        raise ParamsError(f"device is {device!r}, which is none; name cpu, cuda or cuda:1") from error
    if found.type not in ("cpu", "cuda") or (found.type == "cuda" and not torch.cuda.is_available()):
        raise ParamsError(f"device is {str(found)!r}; this machine loads to cpu{', cuda' * torch.cuda.is_available()}")
    return found


def _open(source: Path | str) -> Shard:
    if "://" not in str(source):
        return open_shard(Path(source))
    from datamill.shards.remote import open_remote

    return open_remote(str(source))


def _stored_bytes(shard: Shard) -> int:
    """Bytes of a row on disk, on average: a property of the data, so that every loader of it has the same order."""
    sizes = {name: field.element_bytes for name, field in shard.index.fields.items()}
    ragged = {name for name, field in shard.fields.items() if isinstance(field, RaggedField)}
    elements = sum(sizes[name] * segment.num_elements for name in ragged for segment in shard.index.segments[name])
    return sum(sizes[name] for name in sizes.keys() - ragged) + elements // max(1, shard.num_rows)


def _cloned(batch: Batch) -> Batch:
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in batch.items()}
