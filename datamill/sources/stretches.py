"""Stretches of images that follow one another as they did in the last ingest, each told by one hash.

To hash every image of a file in which few have changed takes longer than to read it. So the images are cut into
stretches of about ``MEAN_ROWS``, where the images themselves say, and a stretch that is known brings with it what is
known of its images::

    stretches.arrow   one row per stretch, in the order in which they were read
      payloads        hash of the payloads
      named           hash of the payloads and of the source keys
      hashes          of each image its content hash and its sample id, 32 bytes together; zeros if it became no sample

The file is an Arrow file of which a batch is read at a time: pages of a mapped one would stay in memory.
Source of the cutting rule: as in ``datamill.parts``.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.hashes import HashIndex
from datamill.samples import HASH_BYTES

MEAN_ROWS, MAX_ROWS = 64, 512
REACH = 4  # stretches beside one that is known, among whose images those of a changed one are looked for first
MANY = 0.25  # of the images that are not found there, for which all others are looked through
DIGESTS = ["payloads", "named"]
FIELDS = pa.schema(
    [
        pa.field("payloads", pa.binary(HASH_BYTES)),
        pa.field("named", pa.binary(HASH_BYTES)),
        pa.field("hashes", pa.binary()),
    ]
)


class Found(NamedTuple):
    """What is known of some images.

    Attributes:
        contents: Content hash of each, shape ``(N, 2)``; zeros where it is not known.
        identities: Sample id of each, shape ``(N, 2)``; likewise.
        rows: The known stretches they lie in, as rows of the file.
    """

    contents: NDArray[np.uint64]
    identities: NDArray[np.uint64]
    rows: NDArray[np.int64]


class Stretches(NamedTuple):
    """Where stretches end, and their hashes.

    Attributes:
        stops: Row after the last one of each, ascending, shape ``(S,)``.
        payloads: Hash of the payloads of each, shape ``(S, 2)``.
        named: Hash of the payloads and the source keys of each, shape ``(S, 2)``.
    """

    stops: NDArray[np.int64]
    payloads: NDArray[np.uint64]
    named: NDArray[np.uint64]

    def table(self, contents: NDArray[np.uint64], identities: NDArray[np.uint64]) -> pa.Table:
        """What is recorded of them, given both hashes of each image, shape ``(N, 2)``; zeros if it is no sample."""
        hashes = np.concatenate([contents, identities], axis=1)
        some = [hashes[start:stop].tobytes() for start, stop in pairwise([0, *self.stops.tolist()])]
        digests = (pa.array([row.tobytes() for row in one], pa.binary(HASH_BYTES)) for one in self[1:])
        return pa.Table.from_arrays([*digests, pa.array(some, pa.binary())], schema=FIELDS)


def cut(payloads: pa.Array, *, is_end: bool) -> NDArray[np.int64]:
    """Row after the last one of each stretch, ascending; rows after the last of these belong to one that goes on.

    Args:
        payloads: Binary, null where an entry has none.
        is_end: Whether nothing comes after them, so that the last stretch ends too.
    """
    offsets, content = _buffers(payloads)
    sizes = np.diff(offsets)
    middle = np.minimum(offsets[:-1] + sizes // 2, max(0, len(content) - 4))
    mixed = sizes * 0x9E3779B1
    for place in range(4 if len(content) >= 4 else 0):
        mixed = (mixed ^ content[middle + place]) * 0x01000193 & 0xFFFFFFFF
    count = len(payloads)
    chosen = (np.flatnonzero(mixed % MEAN_ROWS == 0) + 1).tolist()
    stops = {*chosen, *(one for start, stop in pairwise([0, *chosen, count]) for one in range(start, stop, MAX_ROWS))}
    stops |= {count} if is_end or len(stops) < 2 else set()
    return np.array(sorted(stops - {0}), np.int64)


def stretches_of(payloads: pa.Array, *, keys: pa.Array, stops: NDArray[np.int64]) -> Stretches:
    """The stretches that end at these rows, of images with these source keys."""
    offsets, content = _buffers(payloads)
    key_offsets, key_content = _buffers(keys)
    sizes = np.diff(offsets)
    sizes[payloads.is_null().to_numpy(zero_copy_only=False)] = -1
    key_sizes = np.diff(key_offsets)
    digests = []
    start = 0
    for stop in stops.tolist():
        total = sha256((stop - start).to_bytes(8, "little"))  # so that sizes cannot be taken for content
        total.update(sizes[start:stop].data)
        total.update(content[offsets[start] : offsets[stop]].data)
        digests.append(total.digest()[:HASH_BYTES])
        total.update(key_sizes[start:stop].data)
        total.update(key_content[key_offsets[start] : key_offsets[stop]].data)
        digests.append(total.digest()[:HASH_BYTES])
        start = stop
    both = np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 4)
    return Stretches(stops, both[:, :2], both[:, 2:])


@final
class KnownStretches:
    """Those of the last ingest; takes about 100 bytes of memory per stretch, and 24 per image where many are new."""

    def __init__(self, path: Path | None) -> None:
        """Open the file; ``None`` stands for one without a stretch."""
        self._file = None if path is None else pa.ipc.open_file(pa.OSFile(str(path)))
        digests = [np.zeros((2, 0, 2), np.uint64), *(_digests(batch) for batch in self._batches())]
        self._starts = list(accumulate(one.shape[1] for one in digests))  # first row of each batch; the end
        self._payloads, self._named = map(HashIndex, np.concatenate(digests, axis=1))
        self._read: tuple[int, list[NDArray[np.uint64]]] = -1, []  # number of a batch, and the hashes of its stretches
        self._everywhere: HashIndex | None = None

    def rows(self, span: range) -> pa.Table:
        """Some of them, as they were recorded."""
        numbers = range(self._batch_of(span.start), self._batch_of(span.stop - 1) + 1) if span else range(0)
        batches = [self._batch(number) for number in numbers]
        return pa.Table.from_batches(batches, FIELDS).slice(span.start - self._starts[numbers.start], len(span))

    def find(self, stretches: Stretches, *, num_rows: int) -> Found:
        """What is known of the images of these stretches."""
        hashes = np.zeros((num_rows, 4), np.uint64)
        whole, others = self._named.find(stretches.named), self._payloads.find(stretches.payloads)
        rows = np.where(whole >= 0, whole, others)
        start = 0
        for stop, row, is_named in zip(stretches.stops.tolist(), rows.tolist(), (whole >= 0).tolist(), strict=True):
            if row >= 0:
                hashes[start:stop] = self._hashes(row)
            if not is_named:
                hashes[start:stop, 2:] = 0
            start = stop
        return Found(hashes[:, :2], hashes[:, 2:], rows[rows >= 0])

    def has_content(self, contents: NDArray[np.uint64], *, near: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these content hashes, shape ``(N, 2)``, are those of a sample.

        Args:
            contents: The hashes.
            near: Rows of the file where they are looked for first. If most are there, the others count as new.
        """
        beside = np.unique(near[:, None] + np.arange(-REACH, REACH + 1))
        rows = np.setdiff1d(beside[(beside >= 0) & (beside < self._starts[-1])], near)
        has = _contents([self._hashes(row) for row in rows.tolist()]).find(contents) >= 0
        if np.count_nonzero(~has) <= MANY * len(contents):
            return has
        if self._everywhere is None:
            self._everywhere = _contents([one for batch in self._batches() for one in _hashes_of_each(batch["hashes"])])
        return has | (self._everywhere.find(contents) >= 0)

    def _hashes(self, row: int) -> NDArray[np.uint64]:
        number = self._batch_of(row)
        if self._read[0] != number:
            self._read = number, _hashes_of_each(self._batch(number)["hashes"])
        return self._read[1][row - self._starts[number]]

    def _batch_of(self, row: int) -> int:
        return bisect_right(self._starts, row) - 1

    def _batch(self, number: int) -> pa.RecordBatch:
        assert self._file is not None
        return self._file.get_batch(number)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        return map(self._batch, range(0 if self._file is None else self._file.num_record_batches))


@final
class StretchWriter:
    """Appends stretches to a file."""

    def __init__(self, path: Path) -> None:
        """Start ``path``."""
        self._num_rows = 0
        self._sink = pa.OSFile(str(path), "wb")
        self._stream = pa.ipc.new_file(self._sink, FIELDS)

    def write(self, table: pa.Table) -> range:
        """Append some; which rows they are."""
        self._stream.write_table(table)
        self._num_rows += table.num_rows
        return range(self._num_rows - table.num_rows, self._num_rows)

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()
        self._sink.close()


def _digests(batch: pa.RecordBatch) -> NDArray[np.uint64]:
    """Hashes of the payloads of each stretch, and of its payloads and keys, shape ``(2, S, 2)``."""
    text = b"".join(digest for name in DIGESTS for digest in batch[name].to_pylist())
    return np.frombuffer(text, np.uint64).reshape(2, len(batch), 2)


def _contents(hashes: Sequence[NDArray[np.uint64]]) -> HashIndex:
    """The content hashes of samples among these."""
    return HashIndex(
        np.concatenate([np.zeros((0, 2), np.uint64), *(one[one[:, 2:].any(axis=1), :2] for one in hashes)])
    )


def _hashes_of_each(hashes: pa.Array) -> list[NDArray[np.uint64]]:
    """The hashes of the images of each stretch, shape ``(N, 4)``."""
    offsets, content = _buffers(hashes)
    rows = content[offsets[0] : offsets[-1]].view(np.uint64).reshape(-1, 4)
    return [rows[start:stop] for start, stop in pairwise(((offsets - offsets[0]) // rows.itemsize // 4).tolist())]


def _buffers(values: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Where each value begins and the last one ends, and the bytes."""
    _, offsets, content = values.buffers()
    starts = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1].astype(np.int64)
    return starts, np.frombuffer(content if content is not None else b"", np.uint8)
