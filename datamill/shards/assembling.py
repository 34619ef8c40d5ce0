"""Turns row numbers into batches: every field of a shard by the column that suits it."""

import contextlib
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamill.errors import ParamsError
from datamill.shards.batching import Place, Portion
from datamill.shards.cache import SampleCache
from datamill.shards.decoding import Decode, ImageColumn
from datamill.shards.fields import ArrayField, BytesField, held
from datamill.shards.gathering import ArrayColumn, Column, NormalisedColumn, Normaliser, Statistics
from datamill.shards.native import Shard
from datamill.shards.windows import PaddedColumn, Window, WindowColumn

Batch = dict[str, Any]
"""Tensors by field, rows first, and ``row``, their numbers; encoded bytes are a list."""

Layout = Literal["NHWC", "NCHW"]

ROW = "row"
MASK, LENGTH = "_mask", "_length"  # end the names of what comes with padded rows
ID, ID_BYTES = "sample_id", 16


class Transform(Protocol):
    """Changes batches before they are normalised; called from several threads when there are workers."""

    def __call__(
        self, arrays: dict[str, NDArray[Any]], *, sample_ids: NDArray[np.uint8], epoch: int
    ) -> Mapping[str, NDArray[Any]]:
        """The arrays that the batch holds instead.

        Args:
            arrays: Every field whose rows have one shape, as stored or decoded, rows first, in memory that is reused.
            sample_ids: Identity of each row, shape (B, 16): the field ``sample_id``, or made of the row's number.
            epoch: Number of the epoch.
        """


@dataclass(frozen=True)
class Recipe:
    """What becomes of which fields; see ``ShardLoader``."""

    fields: Sequence[str]
    normalise: Mapping[str, Statistics]
    decode: Mapping[str, Decode]
    windows: Mapping[str, Window]
    pad: Mapping[str, float]
    layout: Layout
    transform: Transform | None


@dataclass
class Slot:
    """Memory of one block of batches."""

    memory: dict[str, Tensor]
    """By field, rows first."""
    sizes: tuple[int, ...] = ()
    """Rows of each batch of ``views``."""
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """The rows of all those batches, by field."""
    views: Sequence[Batch] = ()
    """The rows of each: making them anew for every block would cost as much as filling them."""


@dataclass(frozen=True)
class Task:
    """A block of batches to assemble."""

    portion: Portion
    slot: Slot
    epoch: int


class Assembler:
    """Loads blocks of batches; any number of threads may share it, each with a slot of its own."""

    def __init__(
        self, shard: Shard, *, recipe: Recipe, seed: int, cache_bytes: int, touches: bool, finishes: bool
    ) -> None:
        """Choose a column for every field.

        Args:
            shard: Open.
            recipe: What becomes of its fields.
            seed: Of random crops.
            cache_bytes: Memory for decoded images, shared evenly by the fields that have some.
            touches: Verify the parts of files before rows of them are used.
            finishes: Normalise and lay out here, not later on another device.

        Raises:
            ParamsError: There is no such field, or it cannot be treated so.
        """
        _require_known(shard, recipe=recipe)
        self._shard = shard
        self._recipe = recipe
        self._seed = seed
        self._cache_bytes = cache_bytes // max(1, len(recipe.decode))
        used = {name: shard.fields[name] for name in recipe.fields}
        self._checked = [field for field in used.values() if touches or field.guard.is_streamed]
        self._encoded: dict[str, BytesField] = {}
        self._padded: dict[str, PaddedColumn] = {}
        self._columns: dict[str, Column] = {}
        for name in recipe.fields:
            self._add(name)
        self.normalisers = {name: self._normaliser(name) for name in recipe.normalise}
        """By field, for whoever finishes what this did not."""
        self._lays_out = finishes and recipe.transform is None
        self._finishes = finishes
        if self._lays_out:
            for name, normaliser in self.normalisers.items():
                self._columns[name] = NormalisedColumn(self._columns[name], normaliser=normaliser)

    def slot(self, num_rows: int, *, pin: bool) -> Slot:
        """Memory for blocks of up to so many rows; with ``pin`` a GPU reads it while the processor works on."""
        with outside_inference_mode():
            return Slot(
                {
                    name: torch.empty(num_rows, *column.shape, dtype=column.dtype, device="cpu", pin_memory=pin)
                    for name, column in self._columns.items()
                }
            )

    def row_bytes(self) -> int:
        """Bytes that a row takes in a slot."""
        return sum(tensor.nbytes for tensor in self.slot(1, pin=False).memory.values())

    def make(self, task: Task) -> list[tuple[Batch, Place]]:
        """The batches of a block, each with the place in the epoch after it.

        Raises:
            DataError: Rows are damaged.
        """
        rows, sizes, places = task.portion
        with held(self._checked, rows), outside_inference_mode():
            self._divide(task.slot, sizes=tuple(sizes))
            for name, column in self._columns.items():
                column.load(rows, out=task.slot.parts[name], epoch=task.epoch)
            batches = [dict(view) for view in task.slot.views]
            for batch, some in zip(batches, torch.from_numpy(rows).split_with_sizes(sizes), strict=True):
                batch[ROW] = some
            for name, padded in self._padded.items():
                for batch, parts in zip(batches, padded.load(rows, sizes=sizes), strict=True):
                    batch[name], batch[name + MASK], batch[name + LENGTH] = parts
            if self._encoded or self._recipe.transform is not None:
                for batch in batches:
                    self._finish(batch, epoch=task.epoch)
        return list(zip(batches, places, strict=True))

    def _add(self, name: str) -> None:
        field, recipe = self._shard.fields[name], self._recipe
        if isinstance(field, BytesField) and name in recipe.decode:
            self._columns[name] = ImageColumn(
                recipe.decode[name],
                views=field.views,
                let_go=field.let_go,
                describe=lambda row: self._describe(name, row),
                cache=SampleCache(self._cache_bytes),
                seed=self._seed,
            )
        elif isinstance(field, BytesField):
            self._encoded[name] = field
        elif name in recipe.windows:
            self._columns[name] = WindowColumn(field, window=recipe.windows[name], seed=self._seed)
        elif isinstance(field, ArrayField):
            self._columns[name] = ArrayColumn(field)
        else:
            self._padded[name] = PaddedColumn(field, pad=recipe.pad.get(name, 0))

    def _normaliser(self, name: str) -> Normaliser:
        if name not in self._columns:
            raise ParamsError(f"normalise[{name!r}] needs rows of one shape; give the field decode or windows")
        column = self._columns[name]
        return Normaliser(self._recipe.normalise[name], dtype=column.dtype, shape=column.shape, name=name)

    def _describe(self, name: str, row: int) -> str:
        sample = f" (sample {self._shard.ids([row])[0]})" if ID in self._shard.fields else ""
        return f"{self._shard.folder}: {name} of row {row}{sample}"

    def _divide(self, slot: Slot, *, sizes: tuple[int, ...]) -> None:
        """Lay out a slot for batches of these sizes."""
        if slot.sizes == sizes:
            return
        layout: Layout = self._recipe.layout if self._lays_out else "NHWC"
        slot.sizes, num_rows = sizes, sum(sizes)
        slot.parts = {name: tensor[:num_rows] for name, tensor in slot.memory.items()}
        by_batch = {name: part.split(sizes) for name, part in slot.parts.items()}
        slot.views = [
            {name: finished(some[number], normaliser=None, layout=layout) for name, some in by_batch.items()}
            for number in range(len(sizes))
        ]

    def _finish(self, batch: Batch, *, epoch: int) -> None:
        """Add to a batch what is no part of a slot."""
        rows: NDArray[np.int64] = batch[ROW].numpy()
        if self._recipe.transform is not None:
            self._transform(self._recipe.transform, batch=batch, rows=rows, epoch=epoch)
        for name, encoded in self._encoded.items():
            batch[name] = [bytes(payload) for payload in encoded.views(rows)]

    def _transform(self, transform: Transform, *, batch: Batch, rows: NDArray[np.int64], epoch: int) -> None:
        arrays = {name: batch[name].numpy() for name in self._columns}
        changed = transform(dict(arrays), sample_ids=self._ids(rows), epoch=epoch)
        for name, array in (arrays | dict(changed)).items():
            if len(array) != len(rows) or (name in self.normalisers and array.shape[1:] != self._columns[name].shape):
                raise ParamsError(
                    f"transform makes {name!r} of shape {array.shape} from {len(rows)} rows; it must keep the number "
                    f"of rows, and the shape of what is normalised"
                )
            normaliser = self.normalisers.get(name) if self._finishes else None
            layout: Layout = self._recipe.layout if self._finishes else "NHWC"
            batch[name] = finished(torch.from_numpy(np.ascontiguousarray(array)), normaliser=normaliser, layout=layout)

    def _ids(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        if ID in self._shard.fields:
            return self._shard.sample_id[rows]
        ids = np.zeros((len(rows), ID_BYTES), np.uint8)
        ids[:, :8] = rows.astype("<i8")[:, None].view(np.uint8)
        return ids


def outside_inference_mode() -> contextlib.AbstractContextManager[None]:
    """Where tensors are made that can be trained on, whatever mode the caller iterates in."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else contextlib.nullcontext()


def finished(tensor: Tensor, *, normaliser: Normaliser | None, layout: Layout) -> Tensor:
    """Rows as the network takes them: normalised in new memory, and images in the axes of ``layout``."""
    if normaliser is not None:
        out = torch.empty_like(tensor, dtype=torch.float32)
        normaliser.apply(tensor, out=out)
        tensor = out
    return tensor.permute(0, 3, 1, 2) if layout == "NCHW" and tensor.ndim == 4 else tensor


def _require_known(shard: Shard, *, recipe: Recipe) -> None:
    """Refuse what names a field that is not loaded, and fields whose names collide.

    Raises:
        ParamsError: Naming them.
    """
    known = {
        "fields": (recipe.fields, shard.fields),
        "normalise": (recipe.normalise, recipe.fields),
        "decode": (recipe.decode, recipe.fields),
        "windows": (recipe.windows, recipe.fields),
        "pad": (recipe.pad, recipe.fields),
    }
    for argument, (names, choices) in known.items():
        for name in names:
            if name not in choices:
                near = difflib.get_close_matches(name, list(choices), n=1)
                hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(sorted(choices))}"
                raise ParamsError(f"{argument} names {name!r}, which is not loaded; {hint}")
    for name in recipe.decode:
        if not isinstance(shard.fields[name], BytesField):
            raise ParamsError(f"decode[{name!r}] needs a field of bytes, such as encoded images")
    for name in recipe.windows:
        field = shard.fields[name]
        if isinstance(field, BytesField) or (isinstance(field, ArrayField) and not field.shape):
            raise ParamsError(f"windows[{name!r}] needs rows with a length: ragged ones, or arrays with an axis")
    if recipe.layout not in get_args(Layout):
        raise ParamsError(f"layout is {recipe.layout!r}; choose from {', '.join(get_args(Layout))}")
    taken = [ROW, *(name + end for name in recipe.fields for end in (MASK, LENGTH))]
    for name in set(taken) & set(recipe.fields):
        raise ParamsError(f"the field {name!r} has a name that batches use themselves; leave it out of fields")
