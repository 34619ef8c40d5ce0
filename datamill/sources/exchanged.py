"""Images that were packed for training: WebDataset tar files, TFRecords, Parquet of the Hugging Face hub, MDS.

Files are read twice: once to count their samples and learn the classes, once to check and take the images. Files that
have not changed since the last ingest are not opened; of those that have, images that were there before are not
checked again.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.errors import DataError
from datamill.hashes import hash_each
from datamill.overlap import drawn
from datamill.samples import Dataset, sort_classes
from datamill.shards.exchange.packed import BATCH_BYTES, Packed, open_packed
from datamill.shards.exchange.records import Wanted
from datamill.sources.batches import Batch, Known, Reading
from datamill.sources.entries import EMPTY, Checked, Hashes, Settled, check_payloads, entries_of, is_candidate, settle
from datamill.sources.journal import Journal, Memory
from datamill.sources.listing import StoredFile
from datamill.sources.params import ExchangedSource
from datamill.sources.stretches import Stretches, cut, stretches_of
from datamill.stage import Context

BATCH_IMAGES = 8_192
WORTH_BYTES = 2**22  # of images to check, from which on workers gain something


@dataclass
class _File:
    """A file, what its classes are called, and what the last ingest made of it or this one finds in it."""

    stored: StoredFile
    memory: Memory | None
    class_names: tuple[str, ...] | None
    num_items: int = 0
    labels: set[str] = field(default_factory=set)
    stretches: range = range(0)

    @property
    def facts(self) -> str:
        """What the journal keeps of it."""
        stretches = [self.stretches.start, self.stretches.stop]
        counted = {"num_items": self.num_items, "labels": sorted(self.labels), "stretches": stretches}
        return json.dumps({"class_names": self.class_names, **counted})


class _Chunk(NamedTuple):
    """Entries that are checked together.

    Attributes:
        entries: With the columns of ``ENTRIES``.
        stretches: Where they are cut, and the hashes of the pieces.
        known: Hashes of images that were checked by the last ingest.
        is_last: Whether they are the last of their file.
    """

    entries: pa.RecordBatch
    stretches: Stretches
    known: Hashes
    is_last: bool

    @property
    def unknown(self) -> NDArray[np.int64]:
        """Rows that must be checked."""
        return np.flatnonzero(is_candidate(self.entries) & ~self.known.contents.any(axis=1))


def read(
    source: ExchangedSource, *, max_pixels: int, max_file_bytes: int, context: Context, journal: Journal
) -> Reading:
    """The images of packed files; a sample's source key is its file and its key, path or row, ``train-0.tar#cat/7``.

    Nothing is unpacked to a disk, and no name, length or count in a file is believed. An entry that is damaged, has no
    image, no class, or a class beyond those that are named becomes a reject.

    Raises:
        DataError: There is no such file, or one is damaged or cut so that its other entries cannot be found.
    """
    wanted = Wanted(image=source.image, label=source.label, max_bytes=max_file_bytes)
    packed = open_packed(source.path, format=source.format, wanted=wanted, class_names=source.class_names)
    found = _profiled(packed, wanted=replace(wanted, payloads=False), journal=journal)
    labels = {label for file in found for label in file.labels}
    num_items = sum(file.num_items for file in found)
    if not labels:
        raise DataError(f"{source.path}: none of its {num_items} entries is a sample of a known class")
    name = packed.store.name.partition(".")[0]
    dataset = Dataset(name=name or "images", modality="image", classes=sort_classes(list(labels)))
    check = partial(check_payloads, max_pixels=max_pixels)
    return Reading(
        dataset=dataset,
        num_items=num_items,
        batches=_batches(packed, found, wanted=wanted, check=check, context=context, journal=journal),
    )


def _profiled(packed: Packed, *, wanted: Wanted, journal: Journal) -> list[_File]:
    """Every file with the number of its entries and its classes, read where they are not remembered.

    Names of classes may come from another file, such as ``dataset.json``; under others nothing is remembered.
    """
    names = packed.class_names
    memories = journal.recall_each([(file.key, file.stamp) for file in packed.files])
    found = []
    for stored, memory in zip(packed.files, memories, strict=True):
        facts = json.loads(memory.facts) if memory is not None and memory.facts else None
        if facts is None or facts["class_names"] != (None if names is None else list(names)):
            file = _File(stored, None, names, *packed.profile(wanted, files=[stored]))
        else:
            file = _File(stored, memory, names, facts["num_items"], set(facts["labels"]), range(*facts["stretches"]))
        found.append(file)
    return found


def _batches(
    packed: Packed,
    found: Sequence[_File],
    *,
    wanted: Wanted,
    check: Callable[[pa.Array], Checked],
    context: Context,
    journal: Journal,
) -> Iterator[Batch | Known]:
    under_way: deque[_Chunk] = deque()
    fresh = (file.stored for file in found if file.memory is None)
    chunks = chain.from_iterable(_chunks(packed, file, wanted=wanted, journal=journal) for file in fresh)

    def unknown() -> Iterator[pa.Array]:
        for chunk in drawn(chunks, is_ahead=context.num_workers > 1):
            under_way.append(chunk)
            rows = chunk.unknown
            payloads = chunk.entries["payload"]
            yield payloads if len(rows) == len(payloads) else payloads.take(pa.array(rows))

    is_much = _new_bytes(found, journal=journal) >= WORTH_BYTES
    apply = partial(context.engine.map, is_lockless=True) if is_much else map
    checked = iter(apply(check, unknown()))
    for file in found:
        if file.memory is not None:
            num_samples, num_rejects = len(file.memory.samples), len(file.memory.rejects)
            stretches = journal.record_stretches(journal.stretches.rows(file.stretches))
            yield Known(file.memory.samples, file.memory.rejects)
        else:
            num_samples, num_rejects, stretches = 0, 0, range(0)
            for settled, rows in _settled(checked, under_way, journal=journal):
                num_samples, num_rejects = num_samples + settled.table.num_rows, num_rejects + len(settled.rejects)
                stretches = range(stretches.start if stretches else rows.start, rows.stop)
                yield Batch(settled.table, settled.rejects)
        facts = replace(file, stretches=stretches).facts
        journal.record_each([(file.stored.key, file.stored.stamp, num_samples, num_rejects, facts)])
    packed.refuse_changes()


def _settled(
    checked: Iterator[Checked], under_way: deque[_Chunk], *, journal: Journal
) -> Iterator[tuple[Settled, range]]:
    """What became of the chunks of one file, and where their stretches are recorded."""
    is_last = False
    while not is_last:
        one = next(checked)
        chunk = under_way.popleft()
        is_last = chunk.is_last
        settled = settle(chunk.entries, rows=chunk.unknown, checked=one, known=chunk.known)
        yield settled, journal.record_stretches(chunk.stretches.table(*settled.hashes))


def _new_bytes(found: Sequence[_File], *, journal: Journal) -> float:
    """About how much must be checked, if changed files still hold all that they held."""
    fresh = [file for file in found if file.memory is None]
    num_read = sum(file.num_items for file in fresh)
    num_known = journal.num_samples - sum(len(file.memory.samples) for file in found if file.memory is not None)
    return sum(file.stored.size_bytes for file in fresh) * max(0, num_read - num_known) / max(1, num_read)


def _chunks(packed: Packed, file: StoredFile, *, wanted: Wanted, journal: Journal) -> Iterator[_Chunk]:
    """Runs of entries, of about ``BATCH_IMAGES`` or ``BATCH_BYTES``; the last may be empty."""
    named = "a number from 0" if packed.class_names is None else f"one of the {len(packed.class_names)} named"
    waiting = [EMPTY]
    for columns in packed.read_columns(file, wanted=wanted):
        waiting.append(entries_of(columns, name_of=packed.class_of, named=named))
        if sum(map(len, waiting)) >= BATCH_IMAGES or sum(some.nbytes for some in waiting) >= BATCH_BYTES:
            chunk, rest = _chunk(waiting, journal=journal, is_last=False)
            waiting = [rest]
            yield chunk
    yield _chunk(waiting, journal=journal, is_last=True)[0]


def _chunk(waiting: Sequence[pa.RecordBatch], *, journal: Journal, is_last: bool) -> tuple[_Chunk, pa.RecordBatch]:
    """The entries up to the end of the last stretch, and those after it."""
    entries = pa.concat_batches(waiting)
    stops = cut(entries["payload"], is_end=is_last)
    count = int(stops[-1]) if len(stops) else 0
    entries, rest = entries.slice(0, count), entries.slice(count)
    stretches = stretches_of(entries["payload"], keys=entries["place"], stops=stops)
    contents, identities, near = journal.stretches.find(stretches, num_rows=count)
    chunk = _Chunk(entries, stretches, Hashes(contents, identities), is_last)
    if journal.samples is not None:
        rows = chunk.unknown
        hashes = hash_each(entries["payload"].take(pa.array(rows)))
        hashes[~journal.stretches.has_content(hashes, near=near)] = 0
        contents[rows] = hashes
    return chunk, rest
