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
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from datamill.errors import DataError
from datamill.samples import Dataset, content_hash, sort_classes
from datamill.shards.exchange.packed import Packed, open_packed
from datamill.shards.exchange.records import Fault, Record, Wanted
from datamill.sources.batches import BATCH_BYTES, Batch, Known, Reading, Reject, sample_table
from datamill.sources.integrity import find_fault
from datamill.sources.journal import Journal, Memory
from datamill.sources.listing import StoredFile
from datamill.sources.params import ExchangedSource
from datamill.stage import Context

BATCH_IMAGES = 1024
WORTH_IMAGES = 10_000  # to check, from which on workers gain more than their start costs


class PackedImage(NamedTuple):
    """An image that has a class."""

    place: str
    payload: bytes
    label: str
    is_known: bool = False


@dataclass
class _File:
    """A file, and what the last ingest made of it or this one finds in it."""

    stored: StoredFile
    memory: Memory | None
    num_items: int = 0
    labels: set[str] = field(default_factory=set)

    @property
    def facts(self) -> str:
        """What the journal keeps of it."""
        return json.dumps({"num_items": self.num_items, "labels": sorted(self.labels)})


class _Chunk(NamedTuple):
    """Entries that are checked together, and the file they belong to."""

    file: _File
    entries: list[PackedImage | Reject]
    is_last: bool


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
    check = partial(check_images, dataset=dataset.model_copy(update={"classes": ()}), max_pixels=max_pixels)
    return Reading(
        dataset=dataset,
        num_items=num_items,
        batches=_batches(packed, found, wanted=wanted, check=check, context=context, journal=journal),
    )


def _profiled(packed: Packed, *, wanted: Wanted, journal: Journal) -> list[_File]:
    """Every file with the number of its entries and its classes, read where they are not remembered."""
    memories = journal.recall_each([(file.key, file.stamp) for file in packed.files])
    found = []
    for stored, memory in zip(packed.files, memories, strict=True):
        facts = json.loads(memory.facts) if memory is not None and memory.facts else None
        if facts is None:
            file = _File(stored, None, *packed.profile(wanted, file=stored))
        else:
            file = _File(stored, memory, facts["num_items"], set(facts["labels"]))
        found.append(file)
    return found


def _batches(
    packed: Packed,
    found: Sequence[_File],
    *,
    wanted: Wanted,
    check: Callable[[list[PackedImage | Reject]], tuple[pa.Table, list[Reject]]],
    context: Context,
    journal: Journal,
) -> Iterator[Batch | Known]:
    under_way: deque[_Chunk] = deque()

    def entries() -> Iterator[list[PackedImage | Reject]]:
        for file in found:
            for chunk in _chunks(packed, file, wanted=wanted, journal=journal) if file.memory is None else ():
                under_way.append(chunk)
                yield chunk.entries

    num_fresh = sum(file.num_items for file in found if file.memory is None)
    apply = context.engine.map if num_fresh >= WORTH_IMAGES else map
    checked = iter(apply(check, entries()))
    for file in found:
        if file.memory is not None:
            yield Known(file.memory.samples, file.memory.rejects)
            num_samples, num_rejects = len(file.memory.samples), len(file.memory.rejects)
        else:
            num_samples = num_rejects = 0
            is_last = False
            while not is_last:
                table, rejects = next(checked)
                is_last = under_way.popleft().is_last
                num_samples, num_rejects = num_samples + table.num_rows, num_rejects + len(rejects)
                yield Batch(table, rejects)
        journal.record_each([(file.stored.key, file.stored.stamp, num_samples, num_rejects, file.facts)])
    packed.refuse_changes()


def _chunks(packed: Packed, file: _File, *, wanted: Wanted, journal: Journal) -> Iterator[_Chunk]:
    """Runs of entries of at most ``BATCH_IMAGES`` and about ``BATCH_BYTES``; the last may be empty."""
    chunk: list[PackedImage | Reject] = []
    size = 0
    for record in packed.read_file(file.stored, wanted=wanted):
        entry = _entry(record, packed=packed)
        chunk.append(entry)
        size += len(entry.payload) if isinstance(entry, PackedImage) else 0
        if len(chunk) == BATCH_IMAGES or size >= BATCH_BYTES:
            yield _Chunk(file, _recognised(chunk, journal=journal), is_last=False)
            chunk, size = [], 0
    yield _Chunk(file, _recognised(chunk, journal=journal), is_last=True)


def _recognised(entries: list[PackedImage | Reject], *, journal: Journal) -> list[PackedImage | Reject]:
    """The entries, each image with whether its content was checked by the last ingest."""
    if journal.samples is None:
        return entries
    places = [place for place, entry in enumerate(entries) if isinstance(entry, PackedImage)]
    contents = [content_hash(entry.payload) for entry in entries if isinstance(entry, PackedImage)]
    for place in np.asarray(places, int)[journal.has_passed(pa.array(contents, pa.string()))]:
        entry = entries[place]
        assert isinstance(entry, PackedImage)
        entries[place] = entry._replace(is_known=True)
    return entries


def check_images(
    entries: list[PackedImage | Reject], *, dataset: Dataset, max_pixels: int
) -> tuple[pa.Table, list[Reject]]:
    """The samples among some entries, and the rejects; in a worker."""
    results = [_checked(entry, max_pixels=max_pixels) for entry in entries]
    good = [result for result in results if isinstance(result, PackedImage)]
    return _table(good, dataset=dataset), [result for result in results if isinstance(result, Reject)]


def _checked(entry: PackedImage | Reject, *, max_pixels: int) -> PackedImage | Reject:
    if isinstance(entry, Reject) or entry.is_known:
        return entry
    fault = find_fault(entry.payload, max_pixels=max_pixels)
    return entry if fault is None else Reject(entry.place, *fault)


def _entry(record: Record | Fault, *, packed: Packed) -> PackedImage | Reject:
    if isinstance(record, Fault):
        return Reject(*record)
    label = packed.class_of(record.label)
    if label is None:
        known = "a number from 0" if packed.class_names is None else f"one of the {len(packed.class_names)} named"
        return Reject(record.place, "unknown_class", f"class {record.label!r} is not {known}")
    if not isinstance(record.payload, bytes):
        return Reject(record.place, "not_an_image", "holds a row of numbers, not an encoded image")
    return PackedImage(record.place, record.payload, label)


def _table(images: Sequence[PackedImage], *, dataset: Dataset) -> pa.Table:
    payloads = [{"bytes": image.payload, "path": None} for image in images]
    return sample_table(
        dataset=dataset,
        sources=[image.place for image in images],
        contents=[content_hash(image.payload) for image in images],
        labels=[image.label for image in images],
        payload={"image": pa.array(payloads, dataset.arrow_schema().field("image").type)},
    )
