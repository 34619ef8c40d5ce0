"""Labels that come after their items were judged: taken once each, written to the items, judged once a window.

A label is known by its key and its text, so that the same one is taken once however often it comes. Labels whose item
was not judged yet wait for it; the first label of an item holds, and others are counted as contradictions.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.errors import DataError
from datamill.monitoring.answers import ANSWERS, BY_CONTENT, BY_NAME, LABELS, fill
from datamill.monitoring.cursor import Cursor
from datamill.monitoring.feeds import Feed, Unit
from datamill.monitoring.records import ID_BYTES, Advance, Labelled
from datamill.monitoring.verdicts import window_folder


@dataclass(frozen=True)
class News:
    """What came of labels in a pass.

    Attributes:
        num_new: Items that got their label.
        num_contradicting: Labels that differ from the one their item has; that one holds.
        num_unknown: Labels that name no item that waits for one. They are kept in case that it comes.
        notes: What could not be read, and why.
    """

    num_new: int = 0
    num_contradicting: int = 0
    num_unknown: int = 0
    notes: tuple[str, ...] = ()

    def __add__(self, other: "News") -> "News":
        """Both together."""
        return News(
            self.num_new + other.num_new,
            self.num_contradicting + other.num_contradicting,
            self.num_unknown + other.num_unknown,
            (*self.notes, *other.notes),
        )

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return self != News()

    def __str__(self) -> str:
        """The counts in words."""
        told = f"{self.num_new} items got their label"
        if self.num_contradicting:
            told += f", {self.num_contradicting} labels contradict an earlier one, which holds"
        if self.num_unknown:
            told += f", {self.num_unknown} name no item that waits for a label"
        return told


def label_events(labels: pa.Table) -> NDArray[np.uint8]:
    """What makes a label the same: digests of key and text, shape ``(N, 16)``."""
    pairs = zip(labels["key"].to_pylist(), labels["label"].to_pylist(), strict=True)
    raw = (hashlib.blake2b(f"label\0{key}\0{label}".encode(), digest_size=ID_BYTES).digest() for key, label in pairs)
    return np.frombuffer(b"".join(raw), np.uint8).reshape(-1, ID_BYTES)


def with_early_labels(table: pa.Table, *, cursor: Cursor) -> tuple[pa.Table, list[str]]:
    """New samples with labels that came before them, and the keys of these labels."""
    arrived: list[str] = []
    if not cursor.num_early():
        return table, arrived
    labels = table["label"].to_pylist()
    for name in (*BY_NAME, *BY_CONTENT):
        keys = table[name].to_pylist()
        known = cursor.early(keys)
        for row, key in enumerate(keys):
            if key in known:
                arrived.append(key)
                labels[row] = labels[row] or known[key]
    place = table.column_names.index("label")
    return table.set_column(place, table.schema.field("label"), pa.array(labels, pa.string())), arrived


def fill_windows(
    root: Path, labels: pa.Table, *, by: Sequence[str], cursor: Cursor
) -> tuple[News, tuple[Labelled, ...], pa.Table]:
    """Write labels to the items they name, from the newest window on, until each has found its item.

    Doing so again changes nothing, so a pass may be cut off between this and the cursor's advance.

    Args:
        root: The workspace.
        labels: Key and label; of several for one key the first holds.
        by: Columns that a key may be a value of.
        cursor: Knows the windows that wait.

    Returns:
        Counts, of which ``num_unknown`` is left at 0; how many labels each window with some of the items has now; and
        the labels that found no item.
    """
    left, num_twice = _first_of_each(labels)
    news, labelled = News(num_contradicting=num_twice), []
    for one in cursor.labelled():
        folder = window_folder(root, f"{one.number:06d}")
        if not left.num_rows:
            break
        if not (folder / ANSWERS).exists():
            continue
        filled = fill(folder, labels=left, by=by)
        if filled is not None:
            news += News(filled.num_new, filled.num_contradicting)
            labelled.append(Labelled(one.number, one.num_samples, filled.num_labels, filled.num_contradicting))
            left = left.filter(pa.array(~filled.is_found))
    return news, tuple(labelled), left


def take_labels(root: Path, feed: Feed, *, by: Sequence[str], cursor: Cursor, most: int) -> tuple[News, Advance]:
    """Read labels that come by themselves, and write them to their items.

    A file that is damaged waits for the next pass; if it stays as it is, it is passed over with a note.

    Args:
        root: The workspace.
        feed: Where the labels come from.
        by: Columns that their keys may be values of.
        cursor: Knows which labels were taken.
        most: Labels of a pass at most (count); the others come with the next.

    Raises:
        DataError: The source is missing or failed as a whole.
    """
    reading = _Reading(feed, cursor=cursor, most=most)
    for unit in feed.units():
        if not reading.take(unit):
            break
    labels = pa.concat_tables([LABELS.empty_table(), *reading.labels])
    news, labelled, left = fill_windows(root, labels, by=by, cursor=cursor)
    early = dict(zip(left["key"].to_pylist(), left["label"].to_pylist(), strict=True))
    known = cursor.early(list(early))
    contradicting = sum(known.get(key, label) != label for key, label in early.items())
    news += News(num_contradicting=contradicting, num_unknown=len(early) - contradicting, notes=tuple(reading.notes))
    items = np.concatenate([np.empty((0, ID_BYTES), np.uint8), *reading.events])
    waiting = {**feed.waiting, **reading.waiting}
    return news, Advance(feed.origin, items, reading.done, waiting, reading.place, labelled=labelled, early=early)


@dataclass
class _Reading:
    """Labels of a feed that never came before."""

    feed: Feed
    cursor: Cursor
    most: int
    labels: list[pa.Table] = field(default_factory=list)
    events: list[NDArray[np.uint8]] = field(default_factory=list)
    done: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    place: str | None = None

    def take(self, unit: Unit) -> bool:
        """Read a unit; whether there is room for more.

        Raises:
            DataError: It is no file, and failed.
        """
        num_before = len(self.labels)
        try:
            for portion in unit.portions:
                self._add(portion.table)
                self.waiting |= portion.waiting
                self.place = portion.place or self.place
                if sum(map(len, self.labels)) >= self.most:
                    return False
        except DataError as error:
            if not unit.files:
                raise
            del self.labels[num_before:], self.events[num_before:]
            if not unit.is_second_look:
                self.waiting |= unit.files
                return True
            self.notes.append(f"labels of {', '.join(unit.files)} cannot be read: {error}")
        self.done |= {key: stamp for key, stamp in unit.files.items() if key not in self.waiting}
        return True

    def _add(self, labels: pa.Table) -> None:
        events = label_events(labels) ^ np.frombuffer(bytes.fromhex(self.feed.origin) * 2, np.uint8)
        fresh = np.flatnonzero(~self.cursor.is_known(events))
        self.labels.append(labels.take(pa.array(fresh)))
        self.events.append(events[fresh])


def _first_of_each(labels: pa.Table) -> tuple[pa.Table, int]:
    """Each key once with its first label, and how many others contradict it."""
    first: dict[str, str] = {}
    num_other = 0
    for key, label in zip(labels["key"].to_pylist(), labels["label"].to_pylist(), strict=True):
        num_other += first.setdefault(key, label) != label
    return pa.table([pa.array(list(first), pa.string()), pa.array(list(first.values()), pa.string())], schema=LABELS), (
        num_other
    )
