"""Native shards to the files of other tools, and back."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamill import samples
from datamill.errors import DataError
from datamill.modalities import image
from datamill.samples import HASH_BYTES, Dataset, sort_classes
from datamill.shards.entries import Field
from datamill.shards.exchange import MAX_SAMPLES, npy, writer
from datamill.shards.exchange.packed import MAX_CLASSES, Packed, open_packed
from datamill.shards.exchange.records import Fault, Payload, Record, Wanted
from datamill.shards.fields import BytesField
from datamill.shards.native import Shard, open_shard
from datamill.shards.writing import ShardWriter
from datamill.sources.integrity import find_fault

BATCH_ROWS = 1_024
BATCH_BYTES = 16 * 2**20
MAX_DIMS = 8  # of a row of a native shard

Kind = str | tuple[str, tuple[int, ...]]


def export_shard(
    shard_folder: Path,
    out_folder: Path,
    *,
    format: str,  # noqa: A002 - the word a user looks for
    max_samples: int = MAX_SAMPLES,
    max_bytes: int | None = None,
) -> int:
    """Write a native shard as files of another format; every byte that is read is verified.

    Encoded images (field ``image``) stay as they are; images of pixels (``x``, uint8 of shape (H, W, 1 or 3)) become
    PNG, which loses nothing; other rows of ``x`` stay rows.

    Args:
        shard_folder: A shard with the fields ``image`` or ``x``, and ``label``.
        out_folder: Where the files go; several splits may share it.
        format: One of ``exchange.FORMATS``.
        max_samples: Samples per file at most (count).
        max_bytes: Payload after which a file ends; ``None`` takes the format's own.

    Returns:
        Number of files.

    Raises:
        DataError: The shard is damaged or has no such fields, or there is no such format.
    """
    shard = open_shard(shard_folder)
    missing = "label" if "label" not in shard.fields else "image or x" if not {"image", "x"} & set(shard.fields) else ""
    if missing:
        raise DataError(f"{shard_folder} has no field {missing} but {sorted(shard.fields)}; it cannot be exported")
    dataset = shard.index.dataset
    with writer(
        format, out_folder, split=shard.split, dataset=dataset, max_samples=max_samples, max_bytes=max_bytes
    ) as out:
        labels = shard.label.tolist()
        for row, payload in enumerate(_payloads(shard)):
            out.write(_id(shard, row), payload, labels[row])
    return out.num_files


def import_shard(
    path: Path | str,
    folder: Path,
    *,
    format: str,  # noqa: A002
    split: str | None = None,
    wanted: Wanted | None = None,
    class_names: tuple[str, ...] | None = None,
    max_pixels: int = image.MAX_PIXELS,
) -> None:
    """Write files of another format as one native shard: ``image`` (bytes) or ``x`` (array), ``label``, ``sample_id``.

    Unlike ingest, which lists what is bad and goes on, this stops at the first entry that is no whole sample.

    Args:
        path: A file, a folder or a glob, or an fsspec URL of these.
        folder: Where the shard goes; must not hold anything yet.
        format: One of ``exchange.FORMATS``.
        split: Name of the split, and in a folder the beginning of the names of its files; ``None`` takes all as train.
        wanted: Fields of the payload and the class, and the largest payload; ``None`` takes the usual ones.
        class_names: Names of classes 0, 1, ...; ``None`` takes those the files come with, or else the numbers.
        max_pixels: Largest image (pixels).

    Raises:
        DataError: There is no such file, or an entry is damaged, incomplete, of an unknown class, or unlike the first.
    """
    wanted = wanted or Wanted()
    packed = open_packed(str(path), format=format, wanted=wanted, class_names=class_names, split=split)
    classes = packed.class_names or _classes(packed, wanted=wanted)
    batches = _batches(packed, wanted=wanted, max_pixels=max_pixels)
    first = next(batches, None)
    if first is None:
        raise DataError(f"{path} holds no sample; a shard needs one at least")
    sample = first[0].payload
    dataset = Dataset(
        name=packed.store.name.partition(".")[0] or "imported",
        modality="image" if isinstance(sample, bytes) else "tabular",
        classes=classes,
    )
    field = Field.bytes() if isinstance(sample, bytes) else Field.array(sample.dtype, sample.shape)
    name = "image" if isinstance(sample, bytes) else "x"
    fields = {name: field, "label": Field.array("int32"), "sample_id": Field.array("uint8", (HASH_BYTES,))}
    numbers = {one: number for number, one in enumerate(classes)}
    with ShardWriter(folder, split=split or "train", dataset=dataset, fields=fields) as target:
        for batch in itertools.chain([first], batches):
            target.write(
                {
                    name: [entry.payload for entry in batch],
                    "label": np.array([numbers[entry.label] for entry in batch], np.int32),
                    "sample_id": np.stack([entry.sample_id for entry in batch]),
                }
            )
    packed.refuse_changes()


class _Entry(NamedTuple):
    """A sample that was checked."""

    payload: Payload
    label: str
    sample_id: NDArray[np.uint8]


def _batches(packed: Packed, *, wanted: Wanted, max_pixels: int) -> Iterator[list[_Entry]]:
    """All samples, about ``BATCH_BYTES`` at a time."""
    batch: list[_Entry] = []
    size = 0
    kind: Kind | None = None
    for record in packed.records(wanted):
        entry = _entry(record, packed=packed, max_pixels=max_pixels)
        kind = kind or _kind(entry.payload)
        if _kind(entry.payload) != kind:
            raise DataError(f"{record.place} holds {_kind(entry.payload)}, and the first sample {kind}")
        batch.append(entry)
        size += len(entry.payload) if isinstance(entry.payload, bytes) else entry.payload.nbytes
        if len(batch) == BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _entry(record: Record | Fault, *, packed: Packed, max_pixels: int) -> _Entry:
    if isinstance(record, Fault):
        raise DataError(f"{record.place}: {record.reason}, {record.message}; repair it or ingest the files instead")
    payload = record.payload
    assert payload is not None
    fault = find_fault(payload, max_pixels=max_pixels) if isinstance(payload, bytes) else _row_fault(payload)
    if fault is not None:
        raise DataError(f"{record.place}: {fault[0]}, {fault[1]}; repair it or ingest the files instead")
    label = packed.class_of(record.label)
    if label is None:
        raise DataError(f"{record.place}: class {record.label!r} is none of those that are named")
    content = payload if isinstance(payload, bytes) else payload.tobytes()
    identity = record.sample_id or samples.sample_id(record.place, samples.content_hash(content))
    return _Entry(payload, label, np.frombuffer(bytes.fromhex(identity), np.uint8))


def _row_fault(row: NDArray[Any]) -> tuple[str, str] | None:
    is_row = row.size and row.ndim <= MAX_DIMS and row.dtype.kind in npy.KINDS
    return None if is_row else ("unreadable", f"no row of numbers but {row.dtype} of shape {row.shape}")


def _kind(payload: Payload) -> Kind:
    return "an image" if isinstance(payload, bytes) else (payload.dtype.str, payload.shape)


def _classes(packed: Packed, *, wanted: Wanted) -> tuple[str, ...]:
    """The classes that occur; numbers stand for themselves, so that none below the largest is left out."""
    _, labels = packed.profile(replace(wanted, payloads=False))
    if all(label.isdecimal() for label in labels):
        highest = max(map(int, labels), default=0)
        if highest >= MAX_CLASSES:
            raise DataError(f"{packed.store.url} has class {highest}, and at most {MAX_CLASSES} are possible")
        return tuple(str(number) for number in range(highest + 1))
    return sort_classes(list(labels))


def _payloads(shard: Shard) -> Iterator[Payload]:
    images = shard.fields.get("image")
    if isinstance(images, BytesField):
        for row in range(shard.num_rows):
            images.touch([row])
            yield bytes(images.view(row))
        return
    is_image = shard.x.dtype == np.uint8 and len(shard.shape) == 3 and shard.shape[2] in (1, 3)
    for start in range(0, shard.num_rows, BATCH_ROWS):
        for pixels in shard.x[start : start + BATCH_ROWS]:
            yield image.encode_png(pixels) if is_image else pixels


def _id(shard: Shard, row: int) -> str:
    """The sample's identity, or its row where the shard has none."""
    return shard.sample_id[row].tobytes().hex() if "sample_id" in shard.fields else f"{row:0{2 * HASH_BYTES}x}"
