"""Images that were packed for training: WebDataset tar files, TFRecords, Parquet of the Hugging Face hub, MDS.

Files are read twice: once to count their samples and learn the classes, once to check and take the images. Files that
have not changed since the last ingest are not opened; of those that have, images that were there before are not
checked again.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill.errors import DataError
from datamill.hashes import digits, hash_each
from datamill.samples import IMAGE_TYPE, Dataset, sort_classes
from datamill.shards.exchange.packed import BATCH_BYTES, Packed, open_packed
from datamill.shards.exchange.records import Columns, Label, Wanted
from datamill.sources.batches import Batch, Known, Reading, Reject, sample_table
from datamill.sources.image_folder import IMAGES
from datamill.sources.integrity import Fault, find_fault
from datamill.sources.journal import Journal, Memory
from datamill.sources.listing import StoredFile
from datamill.sources.params import ExchangedSource
from datamill.stage import Context

BATCH_IMAGES = 2_048
WORTH_IMAGES = 10_000  # to check, from which on workers gain more than their start costs

ENTRIES = pa.schema(
    [
        pa.field("place", pa.string()),
        pa.field("payload", pa.binary()),
        pa.field("label", pa.string()),
        pa.field("reason", pa.string()),  # why it is no sample; null for what may be one
        pa.field("message", pa.string()),
    ]
)


class Checked(NamedTuple):
    """What a look at encoded images found: their content hashes, shape ``(N, 2)``, and the faults of some of them."""

    contents: NDArray[np.uint64]
    faults: dict[int, Fault]


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
    """Entries that are checked together, and the file they belong to.

    Attributes:
        file: The file.
        entries: With the columns of ``ENTRIES``.
        contents: Content hash of each, shape ``(N, 2)``; zeros where it is not known.
        is_last: Whether they are the last of their file.
    """

    file: _File
    entries: pa.RecordBatch
    contents: NDArray[np.uint64]
    is_last: bool

    @property
    def is_unknown(self) -> NDArray[np.bool_]:
        """Which entries must be checked."""
        return _is_candidate(self.entries) & ~self.contents.any(axis=1)

    @property
    def unknown(self) -> pa.Array:
        """Images that must be checked."""
        return self.entries["payload"].filter(pa.array(self.is_unknown))


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
    """Every file with the number of its entries and its classes, read where they are not remembered."""
    memories = journal.recall_each([(file.key, file.stamp) for file in packed.files])
    found = []
    for stored, memory in zip(packed.files, memories, strict=True):
        facts = json.loads(memory.facts) if memory is not None and memory.facts else None
        if facts is None:
            file = _File(stored, None, *packed.profile(wanted, files=[stored]))
        else:
            file = _File(stored, memory, facts["num_items"], set(facts["labels"]))
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

    def unknown() -> Iterator[pa.Array]:
        for file in found:
            for chunk in _chunks(packed, file, wanted=wanted, journal=journal) if file.memory is None else ():
                under_way.append(chunk)
                yield chunk.unknown

    num_fresh = sum(file.num_items for file in found if file.memory is None)
    apply = context.engine.map if num_fresh >= WORTH_IMAGES else map
    checked = iter(apply(check, unknown()))
    for file in found:
        if file.memory is not None:
            yield Known(file.memory.samples, file.memory.rejects)
            num_samples, num_rejects = len(file.memory.samples), len(file.memory.rejects)
        else:
            num_samples = num_rejects = 0
            is_last = False
            while not is_last:
                one = next(checked)
                chunk = under_way.popleft()
                is_last = chunk.is_last
                batch = _batch(chunk, checked=one)
                num_samples, num_rejects = num_samples + batch.table.num_rows, num_rejects + len(batch.rejects)
                yield batch
        journal.record_each([(file.stored.key, file.stored.stamp, num_samples, num_rejects, file.facts)])
    packed.refuse_changes()


def _chunks(packed: Packed, file: _File, *, wanted: Wanted, journal: Journal) -> Iterator[_Chunk]:
    """Runs of entries, of about ``BATCH_IMAGES`` or ``BATCH_BYTES``; the last may be empty."""
    named = "a number from 0" if packed.class_names is None else f"one of the {len(packed.class_names)} named"
    waiting = [pa.RecordBatch.from_pylist([], ENTRIES)]
    for columns in packed.read_columns(file.stored, wanted=wanted):
        waiting.append(entries_of(columns, name_of=packed.class_of, named=named))
        if sum(map(len, waiting)) >= BATCH_IMAGES or sum(some.nbytes for some in waiting) >= BATCH_BYTES:
            yield _chunk(file, waiting, journal=journal, is_last=False)
            waiting = waiting[:1]
    yield _chunk(file, waiting, journal=journal, is_last=True)


def _chunk(file: _File, waiting: Sequence[pa.RecordBatch], *, journal: Journal, is_last: bool) -> _Chunk:
    """A chunk with the content hashes of the images that were checked by the last ingest."""
    entries = pa.concat_batches(waiting)
    contents = np.zeros((len(entries), 2), np.uint64)
    if journal.samples is not None:
        is_candidate = _is_candidate(entries)
        found = hash_each(entries["payload"].filter(pa.array(is_candidate)))
        found[~journal.has_passed(found)] = 0
        contents[is_candidate] = found
    return _Chunk(file, entries, contents, is_last)


def entries_of(columns: Columns, *, name_of: Callable[[Label], str | None], named: str = "known") -> pa.RecordBatch:
    """Entries with the names of their classes, as ``ENTRIES``.

    Args:
        columns: Entries as they were read.
        name_of: Name of a class, ``None`` for one that there is not.
        named: What a class must be, for the reject of one that is not.
    """
    names = [name_of(label) for label in columns.labels]
    faults = dict(columns.faults)
    is_unknown = np.array([name is None for name in names] + [False])[columns.codes]
    for row in np.flatnonzero(is_unknown).tolist():
        faults[row] = "unknown_class", f"class {columns.labels[columns.codes[row]]!r} is not {named}"
    codes = pa.array(columns.codes, mask=columns.codes < 0)
    reasons, messages = _texts(faults, count=len(columns.codes))
    labels = pa.array(names, pa.string()).take(codes)
    return pa.RecordBatch.from_arrays([columns.places, columns.payloads, labels, reasons, messages], schema=ENTRIES)


def check_images(entries: pa.RecordBatch, *, max_pixels: int) -> tuple[pa.Table, list[Reject]]:
    """The samples among some entries, and the rejects."""
    is_candidate = _is_candidate(entries)
    checked = check_payloads(entries["payload"].filter(pa.array(is_candidate)), max_pixels=max_pixels)
    return _settled(entries, is_checked=is_candidate, checked=checked)


def check_payloads(payloads: pa.Array, *, max_pixels: int) -> Checked:
    """Hashes and faults of encoded images; in a worker."""
    found = enumerate(find_fault(payload, max_pixels=max_pixels) for payload in payloads.to_pylist())
    return Checked(hash_each(payloads), {row: fault for row, fault in found if fault is not None})


def _batch(chunk: _Chunk, *, checked: Checked) -> Batch:
    return Batch(*_settled(chunk.entries, is_checked=chunk.is_unknown, checked=checked, contents=chunk.contents))


def _settled(
    entries: pa.RecordBatch,
    *,
    is_checked: NDArray[np.bool_],
    checked: Checked,
    contents: NDArray[np.uint64] | None = None,
) -> tuple[pa.Table, list[Reject]]:
    """Samples and rejects.

    Args:
        entries: As ``ENTRIES``.
        is_checked: Which of them were checked.
        checked: What was found of these.
        contents: Content hashes of the others that have no fault; ``None`` where there are none.
    """
    contents = np.zeros((len(entries), 2), np.uint64) if contents is None else contents.copy()
    contents[is_checked] = checked.contents
    rows = np.flatnonzero(is_checked)
    faults = {int(rows[place]): fault for place, fault in checked.faults.items()}
    for row in np.flatnonzero(~_is_candidate(entries)).tolist():
        faults[row] = entries["reason"][row].as_py(), entries["message"][row].as_py()
    rejects = [Reject(entries["place"][row].as_py(), *faults[row]) for row in sorted(faults)]
    if faults:
        is_good = np.ones(len(entries), bool)
        is_good[list(faults)] = False
        entries, contents = entries.filter(pa.array(is_good)), contents[is_good]
    return _table(entries, contents=contents), rejects


def _is_candidate(entries: pa.RecordBatch) -> NDArray[np.bool_]:
    """Which entries may be samples."""
    return np.asarray(pc.is_null(entries["reason"]).to_numpy(zero_copy_only=False), bool)


def _table(entries: pa.RecordBatch, *, contents: NDArray[np.uint64]) -> pa.Table:
    paths = pa.nulls(len(entries), pa.string())
    images: Any = pa.StructArray.from_arrays([entries["payload"], paths], fields=list(IMAGE_TYPE))
    return sample_table(
        dataset=IMAGES,
        sources=entries["place"],
        contents=digits(contents),
        labels=entries["label"],
        payload={"image": images},
    )


def _texts(faults: Mapping[int, Fault], *, count: int) -> list[pa.Array]:
    """Reasons and messages of faults, null where there is none."""
    if not faults:
        return [pa.nulls(count, pa.string())] * 2
    return [pa.array([faults[row][part] if row in faults else None for row in range(count)]) for part in (0, 1)]
