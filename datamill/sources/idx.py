"""The IDX format of MNIST: a header of big-endian numbers, then unsigned bytes.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", 1998.
"""

import gzip
import hashlib
import math
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.errors import DataError
from datamill.modalities import image
from datamill.samples import Dataset, content_hash, sort_classes
from datamill.sources.batches import BATCH_BYTES, BATCH_ROWS, Batch, Known, Reading, sample_table
from datamill.sources.journal import Journal
from datamill.sources.listing import StoredFile
from datamill.sources.params import IdxSource
from datamill.sources.stores import Store, inflated, open_file, refuse_changes

UINT8_CODE = 0x08
LABELS = 2**20  # read at a time to learn which occur
LABEL_DIMS, IMAGE_DIMS = 1, 3
FILE = "!"  # begins the key of a file in the journal, and sorts before the digits that keys of blocks begin with


@dataclass(frozen=True)
class IdxFile:
    """An IDX file and what its header says."""

    store: Store
    file: StoredFile
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The file's name without ``.gz``, so that unpacking it changes no sample's identity."""
        return self.file.key.removesuffix(".gz")

    def batches(self, rows: int) -> Iterator[NDArray[np.uint8]]:
        """The content, ``rows`` items at a time, shape ``(rows, *shape[1:])``; the last may be shorter."""
        item_bytes = math.prod(self.shape[1:])
        with self.store.reading(self.file) as raw, inflated(raw) as stream:
            stream.read(_header_bytes(len(self.shape)))
            for start in range(0, self.shape[0], rows):
                count = min(rows, self.shape[0] - start)
                content = _read(stream, count * item_bytes, file=self.file)
                if len(content) < count * item_bytes:
                    raise _wrong_size(self, start * item_bytes + len(content))
                yield np.frombuffer(content, np.uint8).reshape(count, *self.shape[1:])
            if _read(stream, 1, file=self.file):
                raise _wrong_size(self, math.prod(self.shape) + 1)


class IdxBlock(NamedTuple):
    """Some images of a file, which follow one another."""

    pair: int
    images: IdxFile
    start: int
    pixels: NDArray[np.uint8]
    labels: list[str]

    @property
    def key(self) -> str:
        """Names it so that blocks in order have keys in order."""
        return f"{self.pair:09d}#{self.start:012d}"

    def stamp(self) -> str:
        """Hash of all that its samples are made from."""
        total = hashlib.blake2b(f"{self.images.name}\0{self.pixels.shape}\0{self.labels}".encode(), digest_size=16)
        total.update(self.pixels.tobytes())
        return total.hexdigest()

    def table(self, dataset: Dataset) -> pa.Table:
        """Its samples."""
        payloads = [image.encode_png(one) for one in self.pixels[..., None]]
        return sample_table(
            dataset=dataset,
            sources=[f"{self.images.name}#{self.start + row}" for row in range(len(payloads))],
            contents=[content_hash(payload) for payload in payloads],
            labels=self.labels,
            payload={"image": pa.array([{"bytes": payload, "path": None} for payload in payloads])},
        )


def read(source: IdxSource, *, max_pixels: int, journal: Journal) -> Reading:
    """The images of IDX files, as PNG; a sample's source key is the image file's name and the row, ``train-images#12``.

    Blocks of images that the last ingest has encoded are not encoded again, even if others of their file changed.

    Raises:
        DataError: A file is missing, damaged or of another size than its header says, images and labels do not match in
            number, an image is too large, or a label has no class name.
    """
    pairs = [
        (open_idx(*open_file(images), num_dims=IMAGE_DIMS), open_idx(*open_file(labels), num_dims=LABEL_DIMS))
        for images, labels in zip(source.images, source.labels, strict=True)
    ]
    for images, labels in pairs:
        check_pair(images, labels, max_pixels=max_pixels)
    pieces = (some for _, labels in pairs for some in labels.batches(LABELS))
    present = sorted({number for some in pieces for number in np.unique(some).tolist()})
    names = _class_names(present, class_names=source.class_names)
    if not names:
        raise DataError(f"{', '.join(source.images)} hold no image; get the files again")
    folder = source.images[0].rpartition("/")[0].rpartition("/")[2]
    dataset = Dataset(name=folder or pairs[0][0].name, modality="image", classes=sort_classes(list(names.values())))
    return Reading(
        dataset=dataset,
        num_items=sum(images.shape[0] for images, _ in pairs),
        batches=_batches(pairs, _blocks(pairs, names=names), dataset=dataset, journal=journal),
    )


def file_items(pairs: Iterable[tuple[StoredFile, StoredFile]]) -> list[tuple[str, str | None]]:
    """Key in the journal and stamp of every file, in the order of the keys; no sample belongs to them."""
    return [
        (f"{FILE}{pair:09d} {role}", file.stamp)
        for pair, both in enumerate(pairs)
        for role, file in zip(("images", "labels"), both, strict=True)
    ]


def _blocks(pairs: Sequence[tuple[IdxFile, IdxFile]], *, names: dict[int, str]) -> Iterator[IdxBlock]:
    for pair, (images, labels) in enumerate(pairs):
        try:
            yield from _blocks_of(pair, images, labels, names=names)
        except DataError as error:
            if error.__cause__ is None:  # what it holds is wrong, which may come of a change
                _refuse_changes(images, labels)
            raise
        _refuse_changes(images, labels)


def _blocks_of(pair: int, images: IdxFile, labels: IdxFile, *, names: dict[int, str]) -> Iterator[IdxBlock]:
    rows = max(1, min(BATCH_ROWS, BATCH_BYTES // math.prod(images.shape[1:])))
    for number, (pixels, own) in enumerate(zip(images.batches(rows), labels.batches(rows), strict=True)):
        new = sorted(set(own.tolist()) - names.keys())
        if new:
            raise DataError(f"{labels.file.key} holds labels {new} that it did not hold at first; run ingest again")
        yield IdxBlock(pair, images, number * rows, pixels, [names[label] for label in own.tolist()])


def _refuse_changes(*files: IdxFile) -> None:
    for one in files:
        refuse_changes(one.store.url, before=[one.file], after=one.store.files())


def _batches(
    pairs: Sequence[tuple[IdxFile, IdxFile]], blocks: Iterable[IdxBlock], *, dataset: Dataset, journal: Journal
) -> Iterator[Batch | Known]:
    files = file_items((images.file, labels.file) for images, labels in pairs)
    journal.record_each([(key, stamp, 0, 0, None) for key, stamp in files])
    waiting: deque[tuple[IdxBlock, str]] = deque()

    def items() -> Iterator[tuple[str, str]]:
        for block in blocks:
            waiting.append((block, block.stamp()))
            yield block.key, waiting[-1][1]

    for memory in journal.recall_each(items()):
        block, stamp = waiting.popleft()
        yield Batch(block.table(dataset)) if memory is None else Known(memory.samples, memory.rejects)
        journal.record_each([(block.key, stamp, len(block.labels), 0, None)])


def open_idx(store: Store, file: StoredFile, *, num_dims: int) -> IdxFile:
    """An IDX file and what its header says.

    Raises:
        DataError: It is damaged, or has another number of dimensions.
    """
    with store.reading(file) as raw:
        stream = inflated(raw)
        head = _read(stream, _header_bytes(num_dims), file=file)
    magic = bytes([0, 0, UINT8_CODE, num_dims])
    if head[:4] != magic:
        wanted = "images" if num_dims == IMAGE_DIMS else "labels"
        raise DataError(
            f"{file.key} starts with bytes {head[:4].hex()} and an IDX file of {wanted} with {magic.hex()}; "
            "check that ingest.source.images and .labels name the right files"
        )
    if len(head) < _header_bytes(num_dims):
        raise DataError(
            f"{file.key} is truncated: it ends after {len(head)} of {_header_bytes(num_dims)} bytes of header"
        )
    opened = IdxFile(store=store, file=file, shape=struct.unpack(f">{num_dims}I", head[4:]))
    content_bytes = file.size_bytes - len(head)
    if stream is raw and content_bytes != math.prod(opened.shape):
        raise _wrong_size(opened, content_bytes)
    return opened


def check_pair(images: IdxFile, labels: IdxFile, *, max_pixels: int) -> None:
    """Refuse files that differ in number, and images that are too large.

    Raises:
        DataError: They are.
    """
    if images.shape[0] != labels.shape[0]:
        raise DataError(
            f"{images.file.key} holds {images.shape[0]} images and {labels.file.key} {labels.shape[0]} labels; "
            "files that belong together have equal counts"
        )
    _, height, width = images.shape
    if not 0 < height * width <= max_pixels:
        raise DataError(f"{images.file.key}: images of {width} x {height} px, but ingest.max_pixels is {max_pixels}")


def _class_names(present: Sequence[int], *, class_names: tuple[str, ...] | None) -> dict[int, str]:
    """Name of each class number that occurs."""
    if class_names is None:
        return {number: str(number) for number in present}
    nameless = [number for number in present if number >= len(class_names)]
    if nameless:
        raise DataError(
            f"labels {nameless} have no name: class_names lists {len(class_names)}; name every class or use null"
        )
    return {number: class_names[number] for number in present}


def _read(stream: IO[bytes], count: int, *, file: StoredFile) -> bytes:
    """At most ``count`` bytes; fewer where the file, or what it decompresses to, ends."""
    pieces: list[bytes] = []
    try:
        while count and (piece := stream.read(count)):
            pieces.append(piece)
            count -= len(piece)
    except EOFError:
        pass  # a gzip file that was cut off; the caller compares sizes
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file.key} is a damaged gzip file: {error}; get the file again") from error
    return b"".join(pieces)


def _header_bytes(num_dims: int) -> int:
    return 4 + 4 * num_dims


def _wrong_size(opened: IdxFile, found: int) -> DataError:
    expected = math.prod(opened.shape)
    state, bound = ("truncated", "") if found < expected else ("too long", " or more")
    return DataError(
        f"{opened.file.key} is {state}: its header says {' x '.join(map(str, opened.shape))} = {expected} bytes, "
        f"it holds {found}{bound}; get the file again"
    )
