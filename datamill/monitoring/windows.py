"""A window: what is new since the last one, as the model sees it. Memory does not grow with the payload."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill import files, samples
from datamill.drift.observations import Observations
from datamill.errors import DataError
from datamill.monitoring.answers import LABELS
from datamill.monitoring.cursor import Cursor
from datamill.monitoring.feeds import Feed, Schema, Unit
from datamill.monitoring.keeping import Keeper, Kept
from datamill.monitoring.labelling import label_events, with_early_labels
from datamill.monitoring.observing import WatchedModel, observe
from datamill.monitoring.params import SourceParams
from datamill.monitoring.records import ID_BYTES, Advance
from datamill.monitoring.redelivery import Redelivery
from datamill.monitoring.segments import ROW_COLUMNS, Segment, as_observations, read_segments
from datamill.sources.batches import Reject


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


@dataclass(frozen=True)
class Watcher:
    """Who looks at a feed, and what was seen before.

    Attributes:
        model: Sees the items.
        cursor: Knows what was judged.
        redelivery: Knows items that come again with a label.
        params: Limits.
        scratch: A folder for what does not fit into memory; emptied first.
        seed: Chooses the samples to keep.
        device: Where to compute.
    """

    model: WatchedModel
    cursor: Cursor
    redelivery: Redelivery
    params: SourceParams
    scratch: Path
    seed: int
    device: str


def read_window(feed: Feed, *, watcher: Watcher) -> Window:
    """Everything new in a feed, up to the limit of a window.

    A file that turns out to be damaged is taken back and waits for the next pass; if an earlier pass has found it as it
    is now, what can be read of it counts and the rest is a reject.

    Raises:
        DataError: The source is missing or failed as a whole; nothing has advanced then.
    """
    files.remove(watcher.scratch)
    watcher.scratch.mkdir(parents=True)
    gathering = _Gathering(feed, watcher=watcher)
    has_more = False
    for unit in feed.units():
        if gathering.is_full:
            has_more = True
            break
        has_more = not gathering.take(unit)
    return gathering.window(has_more=has_more)


@dataclass
class _Found:
    """What was read besides the samples; that of a unit stays apart until it counts."""

    items: list[NDArray[np.uint8]] = field(default_factory=list)
    relabelled: list[pa.Table] = field(default_factory=list)
    arrived: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    def add(self, other: "_Found") -> None:
        self.items += other.items
        self.relabelled += other.relabelled
        self.arrived += other.arrived
        self.rejects += other.rejects


@final
class _Gathering:
    """What has been read so far; the last unit can be taken back."""

    def __init__(self, feed: Feed, *, watcher: Watcher) -> None:
        self._feed = feed
        self._watcher = watcher
        self._keeper = Keeper(watcher.params.keep_samples, key=f"window {watcher.seed}")
        self._salt = np.frombuffer(bytes.fromhex(feed.origin) * 2, np.uint8)
        self._segments: list[Path] = []
        self._num_samples = 0
        self._found = _Found()
        self._done: dict[str, str] = {}
        self._waiting: dict[str, str] = {}
        self._place: str | None = None

    @property
    def is_full(self) -> bool:
        """Whether a window may hold no more."""
        return self._num_samples >= self._watcher.params.max_items

    def take(self, unit: Unit) -> bool:
        """Read a unit; whether all of it fitted.

        Raises:
            DataError: It is no file, and failed.
        """
        schema = self._feed.schema
        before = self._num_samples, self._keeper.kept, schema.missing.copy(), schema.unknown.copy()
        found = _Found()
        waiting: dict[str, str] = {}
        is_whole = True
        path = self._watcher.scratch / f"{len(self._segments):06d}.arrow"
        try:
            with Segment(path) as segment:
                for portion in unit.portions:
                    waiting |= portion.waiting
                    is_whole = self._add(portion.table, segment=segment, found=found)
                    self._add_rejects(portion.rejects, found=found)
                    if not is_whole:
                        break
                    self._place = portion.place or self._place
        except DataError as error:
            if not unit.files:
                raise
            if not unit.is_second_look:
                self._num_samples, self._keeper.kept, schema.missing, schema.unknown = before
                self._waiting |= unit.files
                files.remove(path)
                return True
            self._add_rejects([Reject(key, "damaged_file", str(error)) for key in unit.files], found=found)
        self._found.add(found)
        if path.exists():
            self._segments.append(path)
        if is_whole:
            self._done |= {key: stamp for key, stamp in unit.files.items() if key not in waiting}
            self._waiting |= waiting
        return is_whole

    def window(self, *, has_more: bool) -> Window:
        """All that was read."""
        found, model = self._found, self._watcher.model
        table = read_segments(self._segments, reference=model.reference)
        items = np.concatenate([np.empty((0, ID_BYTES), np.uint8), *found.items])
        waiting = {**self._feed.waiting, **self._waiting}
        return Window(
            rows=table.select(list(ROW_COLUMNS)),
            observations=as_observations(table, model=model),
            kept=self._keeper.kept,
            rejects=found.rejects,
            schema=self._feed.schema,
            advance=Advance(self._feed.origin, items, self._done, waiting, self._place, arrived=found.arrived),
            has_more=has_more,
            relabelled=pa.concat_tables([LABELS.empty_table(), *found.relabelled]),
        )

    def _add(self, table: pa.Table, *, segment: Segment, found: _Found) -> bool:
        """Observe the samples that were never judged; whether there was room for all of them."""
        if not table.num_rows:
            return True
        watcher = self._watcher
        items = samples.id_bytes(table["sample_id"]) ^ self._salt
        again = watcher.redelivery.find(table, is_known=watcher.cursor.is_known(items))
        fresh = np.flatnonzero(~again.is_known)
        some = fresh[: watcher.params.max_items - self._num_samples]
        self._relabel(again.labels, found=found)
        found.items.append(items[again.is_moved])
        if len(some):
            chosen, arrived = with_early_labels(table.take(pa.array(some)), cursor=watcher.cursor)
            found.arrived += arrived
            size, device = watcher.params.batch_size, watcher.device
            observed = observe(chosen, model=watcher.model, batch_size=size, device=device)
            segment.write(chosen, observed)
            self._keeper.add(chosen["sample_id"], inputs=observed.inputs, first_row=self._num_samples)
            found.items.append(items[some])
            self._num_samples += len(some)
        return len(some) == len(fresh)

    def _relabel(self, labels: pa.Table, *, found: _Found) -> None:
        """Take the labels that never came before."""
        if labels.num_rows:
            events = label_events(labels) ^ self._salt
            fresh = np.flatnonzero(~self._watcher.cursor.is_known(events))
            found.items.append(events[fresh])
            found.relabelled.append(labels.take(pa.array(fresh)))

    def _add_rejects(self, rejects: Sequence[Reject], *, found: _Found) -> None:
        """Take the rejects that were never told before."""
        if not rejects:
            return
        texts = ["reject\0" + "\0".join(reject) for reject in rejects]
        raw = b"".join(hashlib.blake2b(text.encode(), digest_size=ID_BYTES).digest() for text in texts)
        items = np.frombuffer(raw, np.uint8).reshape(-1, ID_BYTES) ^ self._salt
        fresh = np.flatnonzero(~self._watcher.cursor.is_known(items))
        found.items.append(items[fresh])
        found.rejects += [rejects[place] for place in fresh.tolist()]
