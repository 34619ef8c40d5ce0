"""A window: what is new since the last one, as the model sees it. Memory does not grow with the payload."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill import files, samples
from datamill.drift.observations import Observations
from datamill.errors import DataError
from datamill.monitoring.answers import LABELS
from datamill.monitoring.cursor import ID_BYTES, Advance, Cursor
from datamill.monitoring.feeds import Feed, Schema, Unit
from datamill.monitoring.labelling import Redelivery, label_events, with_early_labels
from datamill.monitoring.observing import (
    Observed,
    WatchedModel,
    as_labels,
    as_targets,
    as_times,
    lists,
    matrix,
    observe,
)
from datamill.monitoring.params import SourceParams
from datamill.samples import FEATURE_PREFIX
from datamill.sampling import scores
from datamill.sources.batches import Reject

EMBEDDING, PROBABILITY, PREDICTION = "embedding", "probability", "prediction"
ROW_COLUMNS = ("sample_id", "source", "label", "time", "content_hash")


@dataclass(frozen=True)
class Kept:
    """The few samples whose inputs are kept.

    Attributes:
        rows: Their rows of the window, ascending, int64, shape ``(K,)``.
        inputs: What the network took, shape ``(K, ...)``; ``None`` where none is kept.
    """

    rows: NDArray[np.int64]
    inputs: NDArray[Any] | None


@dataclass(frozen=True)
class Window:
    """New items.

    Attributes:
        rows: ``sample_id``, ``source``, ``label`` (its name, empty where unknown), ``time`` and ``content_hash`` of
            each sample.
        observations: The same samples as drift is judged on.
        kept: Those whose inputs are kept.
        rejects: Items that could not become samples.
        schema: How columns differ from those of training.
        advance: What the cursor must learn.
        has_more: Whether items were left for the next window.
        relabelled: Key and label of items that were judged before and came again with a label.
    """

    rows: pa.Table
    observations: Observations
    kept: Kept
    rejects: Sequence[Reject]
    schema: Schema
    advance: Advance
    has_more: bool
    relabelled: pa.Table

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to judge."""
        return not self.rows.num_rows and not self.rejects


def read_window(
    feed: Feed,
    *,
    model: WatchedModel,
    cursor: Cursor,
    params: SourceParams,
    redelivery: Redelivery,
    scratch: Path,
    seed: int,
    device: str,
) -> Window:
    """Everything new in a feed, up to the limit of a window.

    A file that turns out to be damaged is taken back and waits for the next pass; if an earlier pass has found it as it
    is now, what can be read of it counts and the rest is a reject.

    Args:
        feed: Where items come from.
        model: Who sees them.
        cursor: Knows what was judged.
        params: Limits.
        redelivery: Knows items that come again with a label.
        scratch: A folder for what does not fit into memory; emptied first.
        seed: Chooses the samples to keep.
        device: Where to compute.

    Raises:
        DataError: The source is missing or failed as a whole; nothing has advanced then.
    """
    files.remove(scratch)
    scratch.mkdir(parents=True)
    gathering = _Gathering(
        model=model,
        cursor=cursor,
        params=params,
        redelivery=redelivery,
        scratch=scratch,
        seed=seed,
        feed=feed,
        device=device,
    )
    has_more = False
    for unit in feed.units():
        if gathering.is_full:
            has_more = True
            break
        has_more = not gathering.take(unit)
    return gathering.window(has_more=has_more)


@final
class _Gathering:
    """What has been read so far; the last unit can be taken back."""

    def __init__(
        self,
        *,
        model: WatchedModel,
        cursor: Cursor,
        params: SourceParams,
        redelivery: Redelivery,
        scratch: Path,
        seed: int,
        feed: Feed,
        device: str,
    ) -> None:
        self._model = model
        self._cursor = cursor
        self._params = params
        self._scratch = scratch
        self._feed = feed
        self._device = device
        self._keeper = _Keeper(params.keep_samples, key=f"window {seed}")
        self._salt = np.frombuffer(bytes.fromhex(feed.origin) * 2, np.uint8)
        self._segments: list[Path] = []
        self._num_samples = 0
        self._items: list[NDArray[np.uint8]] = []
        self._redelivery = redelivery
        self._relabelled: list[pa.Table] = []
        self._arrived: list[str] = []
        self._rejects: list[Reject] = []
        self._done: dict[str, str] = {}
        self._waiting: dict[str, str] = {}
        self._place: str | None = None

    @property
    def is_full(self) -> bool:
        """Whether a window may hold no more."""
        return self._num_samples >= self._params.max_items

    def take(self, unit: Unit) -> bool:
        """Read a unit; whether all of it fitted.

        Raises:
            DataError: It is no file, and failed.
        """
        before = (self._num_samples, len(self._items), len(self._rejects), self._keeper.state)
        labels = len(self._relabelled), len(self._arrived)
        schema = self._feed.schema
        columns = schema.missing.copy(), schema.unknown.copy()
        waiting: dict[str, str] = {}
        is_whole = True
        path = self._scratch / f"{len(self._segments):06d}.arrow"
        try:
            with _Segment(path) as segment:
                for portion in unit.portions:
                    waiting |= portion.waiting
                    is_whole = self._add(portion.table, segment=segment)
                    self._add_rejects(portion.rejects)
                    if not is_whole:
                        break
                    self._place = portion.place or self._place
        except DataError as error:
            if not unit.files:
                raise
            if not unit.is_second_look:
                self._num_samples, num_items, num_rejects, self._keeper.state = before
                schema.missing, schema.unknown = columns
                del self._items[num_items:], self._rejects[num_rejects:]
                del self._relabelled[labels[0] :], self._arrived[labels[1] :]
                self._waiting |= unit.files
                files.remove(path)
                return True
            self._add_rejects([Reject(key, "damaged_file", str(error)) for key in unit.files])
        if path.exists():
            self._segments.append(path)
        if is_whole:
            self._done |= {key: stamp for key, stamp in unit.files.items() if key not in waiting}
            self._waiting |= waiting
        return is_whole

    def window(self, *, has_more: bool) -> Window:
        """All that was read."""
        dataset = self._model.dataset
        table = pa.concat_tables([self._empty(), *(_mapped(path) for path in self._segments)])
        names = [name for name in table.column_names if name.startswith(FEATURE_PREFIX)]
        features = table.select(names).rename_columns([name.removeprefix(FEATURE_PREFIX) for name in names])
        shared = Observations(
            sample_ids=tuple(table["sample_id"].to_pylist()),
            features=features,
            embeddings=matrix(table[EMBEDDING]),
            times=as_times(table["time"]),
        )
        if self._model.reference.is_regression:
            answers = table[PREDICTION].to_numpy()
            observations = replace(shared, predictions=answers, targets=as_targets(table["label"]))
        else:
            observations = replace(
                shared,
                classes=dataset.classes,
                probabilities=matrix(table[PROBABILITY]),
                labels=as_labels(table["label"], classes=dataset.classes),
            )
        items = np.concatenate(self._items) if self._items else np.empty((0, ID_BYTES), np.uint8)
        waiting = {**self._feed.waiting, **self._waiting}
        return Window(
            rows=table.select(list(ROW_COLUMNS)),
            observations=observations,
            kept=self._keeper.kept(),
            rejects=self._rejects,
            schema=self._feed.schema,
            advance=Advance(self._feed.origin, items, self._done, waiting, self._place, arrived=self._arrived),
            has_more=has_more,
            relabelled=pa.concat_tables([LABELS.empty_table(), *self._relabelled]),
        )

    def _add(self, table: pa.Table, *, segment: "_Segment") -> bool:
        """Observe the samples that were never judged; whether there was room for all of them."""
        if not table.num_rows:
            return True
        items = samples.id_bytes(table["sample_id"]) ^ self._salt
        again = self._redelivery.find(table, is_known=self._cursor.is_known(items))
        fresh = np.flatnonzero(~again.is_known)
        some = fresh[: self._params.max_items - self._num_samples]
        self._relabel(again.labels)
        self._items.append(items[again.is_moved])
        if len(some):
            chosen, arrived = with_early_labels(table.take(pa.array(some)), cursor=self._cursor)
            self._arrived += arrived
            size, device = self._params.batch_size, self._device
            observed = observe(chosen, model=self._model, batch_size=size, device=device)
            segment.write(_row_table(chosen, observed))
            self._keeper.add(chosen["sample_id"], inputs=observed.inputs, first_row=self._num_samples)
            self._items.append(items[some])
            self._num_samples += len(some)
        return len(some) == len(fresh)

    def _relabel(self, labels: pa.Table) -> None:
        """Take the labels that never came before."""
        if labels.num_rows:
            events = label_events(labels) ^ self._salt
            fresh = np.flatnonzero(~self._cursor.is_known(events))
            self._items.append(events[fresh])
            self._relabelled.append(labels.take(pa.array(fresh)))

    def _add_rejects(self, rejects: Sequence[Reject]) -> None:
        """Take the rejects that were never told before."""
        if not rejects:
            return
        texts = ["reject\0" + "\0".join(reject) for reject in rejects]
        raw = b"".join(hashlib.blake2b(text.encode(), digest_size=ID_BYTES).digest() for text in texts)
        items = np.frombuffer(raw, np.uint8).reshape(-1, ID_BYTES) ^ self._salt
        fresh = np.flatnonzero(~self._cursor.is_known(items))
        self._items.append(items[fresh])
        self._rejects += [rejects[place] for place in fresh.tolist()]

    def _empty(self) -> pa.Table:
        """No row, with the columns that rows would have."""
        reference = self._model.reference
        traits = {FEATURE_PREFIX + name: column for name, column in _columns(reference.features.slice(0, 0))}
        types = {EMBEDDING: pa.list_(pa.float32(), reference.embeddings.shape[1])}
        if reference.is_regression:
            types[PREDICTION] = pa.float64()
        else:
            types[PROBABILITY] = pa.list_(pa.float32(), reference.probabilities.shape[1])
        return pa.table(
            {
                **{name: pa.array([], pa.string()) for name in ("sample_id", "source", "label")},
                "time": pa.array([], pa.timestamp("us", tz="UTC")),
                "content_hash": pa.array([], pa.string()),
                **traits,
                **{name: pa.array([], kind) for name, kind in types.items()},
            }
        )


class _Segment:
    """Rows of one unit in a file of their own, made when the first come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sink: Any = None
        self._writer: Any = None

    def write(self, table: pa.Table) -> None:
        if self._writer is None:
            self._sink = pa.OSFile(str(self._path), "wb")
            self._writer = pa.ipc.new_file(self._sink, table.schema)
        self._writer.write_table(table)

    def __enter__(self) -> "_Segment":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
            self._sink.close()


class _Keeper:
    """The samples of the smallest scores, with their inputs: a choice that depends on ids alone."""

    def __init__(self, size: int, *, key: str) -> None:
        self._size = size
        self._key = key
        self._scores = np.empty(0, np.uint64)
        self._rows = np.empty(0, np.int64)
        self._inputs: NDArray[Any] | None = None

    @property
    def state(self) -> tuple[Any, ...]:
        """All that is kept, to go back to."""
        return self._scores, self._rows, self._inputs

    @state.setter
    def state(self, state: tuple[Any, ...]) -> None:
        self._scores, self._rows, self._inputs = state

    def add(self, sample_ids: pa.ChunkedArray, *, inputs: NDArray[Any], first_row: int) -> None:
        found = scores(sample_ids, key=self._key)
        is_full = len(self._scores) == self._size
        rows = np.flatnonzero(found < self._scores.max()) if is_full and self._size else np.arange(len(found))
        if not len(rows) or not self._size:
            return
        together = np.concatenate([self._scores, found[rows]])
        chosen = np.sort(np.argsort(together, kind="stable")[: self._size])
        own = inputs[rows] if self._inputs is None else np.concatenate([self._inputs, inputs[rows]])
        self._scores, self._inputs = together[chosen], own[chosen]
        self._rows = np.concatenate([self._rows, first_row + rows])[chosen]

    def kept(self) -> Kept:
        return Kept(self._rows, self._inputs)


def _row_table(table: pa.Table, observed: Observed) -> pa.Table:
    columns = {name: table[name] for name in ROW_COLUMNS}
    columns |= {FEATURE_PREFIX + name: column for name, column in _columns(observed.features)}
    columns[EMBEDDING] = lists(observed.embeddings)
    if observed.predictions is None:
        columns[PROBABILITY] = lists(observed.probabilities)
    else:
        columns[PREDICTION] = pa.array(observed.predictions)
    return pa.table(columns)


def _columns(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    return zip(table.column_names, table.columns, strict=True)


def _mapped(path: Path) -> pa.Table:
    """The rows of a segment, in memory only as far as they are looked at."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
