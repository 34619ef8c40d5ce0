"""Images in a folder per class, on a local disk or in any store that fsspec reaches.

The folder is listed into a file, and read back from it a few thousand files at a time. Files that the last ingest has
read and that have not changed are not opened.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill.errors import DataError
from datamill.hashes import digits, hash_each
from datamill.samples import IMAGE_TYPE, Dataset, sort_classes
from datamill.sources.batches import BATCH_BYTES, Batch, Known, Reading, Reject, sample_table
from datamill.sources.integrity import find_fault, find_faults
from datamill.sources.journal import RECALLED, Journal
from datamill.sources.listing import LISTING, StoredFile, files_of
from datamill.sources.params import ImageFolderSource
from datamill.sources.stores import COMPARED, Store, open_store, refuse_other_listing
from datamill.stage import Context

BATCH_FILES = 512
REMOTE_READERS = 16  # files of a remote store that a worker waits for at a time
WORTH_FILES, WORTH_BYTES = 2_048, 2**24  # to read, from which on workers gain something
PASSING = ("vanished", "changed_while_read")  # reasons that say nothing of the file that the next ingest finds
IMAGES = Dataset(name="images", modality="image", classes=())  # for the columns, which are those of all images

Apply = Callable[[Callable[[pa.Table], "Checked"], Iterable[pa.Table]], Iterable["Checked"]]
"""``map``, here or on the workers of an engine."""


def read(
    source: ImageFolderSource, *, max_pixels: int, max_file_bytes: int, context: Context, journal: Journal
) -> Reading:
    """The images below a folder; a sample's source key is its path below that folder.

    Every file is an item, except names that start with a dot. Names and endings say nothing: a file is an image if its
    content is one. Its bytes are kept as they are, after it was decoded once to show that it can be.

    Raises:
        DataError: The folder is missing or empty, or has no sub-folder with files.
    """
    store = open_store(source.path)
    if not store.is_folder():
        store.files()  # says so if there is nothing at all
        raise DataError(f"{source.path} is not a folder; name the folder that holds one sub-folder per class")
    listing = _Listing(context.scratch / "listing.arrow", store=store, journal=journal)
    if not listing.num_files:
        raise DataError(f"{source.path} is empty; put one sub-folder with images per class into it")
    if not listing.classes:
        raise DataError(
            f"{source.path} holds {listing.num_files} files and no sub-folder; put the images of a class into one"
        )
    check = partial(
        check_files,
        url=store.url,
        local_root=store.root if store.filesystem is None else None,
        max_pixels=max_pixels,
        max_file_bytes=max_file_bytes,
        grouped=source.group_from == "folder",
    )
    is_much = listing.num_fresh >= WORTH_FILES or listing.fresh_bytes >= WORTH_BYTES
    apply: Apply = partial(context.engine.map, is_lockless=True) if is_much else map
    return Reading(
        dataset=Dataset(name=store.name or "images", modality="image", classes=sort_classes(list(listing.classes))),
        num_items=listing.num_files,
        batches=_batches(listing, check=check, apply=apply, journal=journal),
    )


class _Listing:
    """The files of a folder and what the journal says of them, kept in a file of its own.

    Attributes:
        store: The folder.
        num_files: Files listed.
        num_fresh: Files to read.
        fresh_bytes: Their size together.
        classes: Names of the folders at the top that hold a file.
    """

    def __init__(self, path: Path, *, store: Store, journal: Journal) -> None:
        self.store = store
        self.num_files = self.num_fresh = self.fresh_bytes = 0
        self.classes: set[str] = set()
        self._path = path
        schema = pa.schema([*LISTING, *RECALLED])
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema, options=options) as stream:
            for table in journal.recall(store.tables()):
                fresh = pc.is_null(table["sample"])
                self.num_files += table.num_rows
                self.num_fresh += pc.sum(fresh).as_py()
                self.fresh_bytes += pc.sum(table["size_bytes"].filter(fresh)).as_py() or 0
                keys = table["key"].filter(pc.match_substring(table["key"], "/"))
                self.classes.update(pc.unique(_first_folders(keys)).to_pylist())
                stream.write_table(table.combine_chunks())

    def tables(self) -> Iterator[pa.Table]:
        """The files in the order of their keys."""
        with pa.OSFile(str(self._path)) as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                yield pa.Table.from_batches([batch])


@dataclass(frozen=True)
class Checked:
    """What became of some files: the good ones as samples, the others as rejects, and which are which."""

    table: pa.Table
    rejects: list[Reject]
    is_sample: NDArray[np.bool_]


def check_files(
    files: pa.Table, *, url: str, local_root: str | None, max_pixels: int, max_file_bytes: int, grouped: bool
) -> Checked:
    """Read and check files, wherever this runs.

    Args:
        files: Files as they were listed.
        url: What was listed; a remote store is opened again, with the credentials of this process.
        local_root: Its path, if it is local.
        max_pixels: Largest image (pixels).
        max_file_bytes: Largest file (bytes).
        grouped: Whether the folder below the class is the group.

    Raises:
        DataError: The source cannot be read here.
    """
    store = open_store(url) if local_root is None else Store(url=url, root=local_root, filesystem=None)
    listed = files_of(files, folder=store.root.rstrip("/"))
    read = partial(_read_of_class, store=store, max_file_bytes=max_file_bytes)
    if store.filesystem is None:
        results = [read(file) for file in listed]
    else:
        with ThreadPoolExecutor(max_workers=REMOTE_READERS) as pool:
            results = list(pool.map(read, listed))
    places = [place for place, result in enumerate(results) if isinstance(result, bytes)]
    payloads = _joined([result for result in results if isinstance(result, bytes)])
    faults = find_faults(payloads, max_pixels=max_pixels)
    for row, fault in faults.items():
        results[places[row]] = Reject(listed[places[row]].key, *fault)
    is_sample = np.array([isinstance(result, bytes) for result in results], bool)
    if faults:
        payloads = payloads.take(pa.array(np.delete(np.arange(len(payloads)), list(faults))))
    return Checked(
        table=_table(files["key"].filter(pa.array(is_sample)), payloads=payloads, grouped=grouped),
        rejects=[result for result in results if isinstance(result, Reject)],
        is_sample=is_sample,
    )


def _read_of_class(file: StoredFile, *, store: Store, max_file_bytes: int) -> bytes | Reject:
    """The file's bytes, if it lies in the folder of a class."""
    if file.fault is None and "/" not in file.key:
        return Reject(file.key, "no_class", "lies beside the class folders; move it into the folder of its class")
    return _read(file, store=store, max_file_bytes=max_file_bytes)


def read_image(file: StoredFile, *, store: Store, max_pixels: int, max_file_bytes: int) -> bytes | Reject:
    """The file's bytes, if it is an image.

    Raises:
        DataError: The store is not there, or failed.
    """
    payload = _read(file, store=store, max_file_bytes=max_file_bytes)
    fault = find_fault(payload, max_pixels=max_pixels) if isinstance(payload, bytes) else None
    return payload if fault is None else Reject(file.key, *fault)


def _read(file: StoredFile, *, store: Store, max_file_bytes: int) -> bytes | Reject:
    if file.fault is not None:
        return Reject(file.key, *file.fault)
    if file.size_bytes > max_file_bytes:
        return Reject(file.key, "too_large", f"{file.size_bytes} bytes are more than {max_file_bytes}")
    try:
        payload = store.read(file)
    except FileNotFoundError as error:
        if not store.is_folder():
            raise DataError(
                f"{store.url} is not there, as seen from where its files are read; on a cluster, put it into a file "
                "system or a store that all workers reach"
            ) from error
        return Reject(file.key, "vanished", "was listed and is gone")
    except PermissionError:
        return Reject(file.key, "unreadable", "permission to read it was denied")
    except Exception as error:  # every remote store raises errors of its own
        told = getattr(error, "strerror", None) or error
        raise DataError(f"{file.key} cannot be read: {told}; run ingest again") from error
    if payload is None:
        return Reject(file.key, "changed_while_read", f"was listed with {file.size_bytes} bytes and then changed")
    return payload


def _batches(
    listing: _Listing, *, check: Callable[[pa.Table], Checked], apply: Apply, journal: Journal
) -> Iterator[Batch | Known]:
    waiting: deque[pa.Table] = deque()
    is_reject: list[NDArray[np.bool_]] = []

    def fresh() -> Iterator[pa.Table]:
        for block in _blocks(listing.tables()):
            waiting.append(block)
            yield block.filter(pc.is_null(block["sample"])).select(LISTING.names)

    for checked in apply(check, fresh()):
        block = waiting.popleft()
        items = _items(block, checked)
        journal.record(items)
        is_reject.append(items["num_rejects"].to_numpy() > 0)
        yield from _spliced(block, checked)
    # What was rejected is accounted for; any other change would be missing from the samples.
    before = _exempted(listing.tables(), np.concatenate(is_reject))
    refuse_other_listing(listing.store.url, before=before, after=listing.store.tables())


def _blocks(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Runs of files of which at most ``BATCH_FILES``, of about ``BATCH_BYTES``, are to be read."""
    for table in tables:
        is_fresh = pc.is_null(table["sample"]).to_numpy()
        counts = np.cumsum(is_fresh)
        sizes = np.cumsum(np.where(is_fresh, table["size_bytes"].to_numpy(), 0))
        start, count, size = 0, 0, 0  # first file of the block, and what lies before it
        while start < table.num_rows:
            by_count = np.searchsorted(counts, count + BATCH_FILES, side="right")
            by_size = np.searchsorted(sizes, size + BATCH_BYTES, side="right")
            stop = max(start + 1, int(min(by_count, by_size)))
            yield table.slice(start, stop - start)
            start, count, size = stop, counts[stop - 1], sizes[stop - 1]


def _spliced(block: pa.Table, checked: Checked) -> Iterator[Batch | Known]:
    """A block's files in order: runs that are known, and between them those that were read."""
    if len(checked.is_sample) == block.num_rows:
        yield Batch(checked.table, checked.rejects)
        return
    is_known = pc.is_valid(block["sample"]).to_numpy()
    sample, sample_end = _ranges(block, "sample", "num_samples")
    reject, reject_end = _ranges(block, "reject", "num_rejects")
    follows = (sample[1:] == sample_end[:-1]) & (reject[1:] == reject_end[:-1])
    goes_on = (is_known[1:] == is_known[:-1]) & (follows | ~is_known[1:])
    num_read, num_good = 0, 0
    for start, stop in pairwise([0, *(np.flatnonzero(~goes_on) + 1).tolist(), block.num_rows]):
        if is_known[start]:
            yield Known(range(sample[start], sample_end[stop - 1]), range(reject[start], reject_end[stop - 1]))
            continue
        good = int(checked.is_sample[num_read : num_read + stop - start].sum())
        num_bad = num_read - num_good
        rejects = checked.rejects[num_bad : num_bad + stop - start - good]
        yield Batch(checked.table.slice(num_good, good), rejects)
        num_read, num_good = num_read + stop - start, num_good + good


def _ranges(block: pa.Table, start: str, count: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    starts, counts = (pc.fill_null(block[name], 0).to_numpy() for name in (start, count))
    return starts, starts + counts


def _items(block: pa.Table, checked: Checked) -> pa.Table:
    """The block's files as the journal records them."""
    is_fresh = pc.is_null(block["sample"]).to_numpy()
    num_samples, num_rejects = (
        pc.fill_null(block[name], 0).to_numpy().copy() for name in ("num_samples", "num_rejects")
    )
    num_samples[is_fresh] = checked.is_sample
    num_rejects[is_fresh] = ~checked.is_sample
    is_passing = np.zeros(block.num_rows, bool)
    bad = np.flatnonzero(is_fresh)[~checked.is_sample]
    is_passing[bad] = [reject.reason in PASSING for reject in checked.rejects]
    return pa.table(
        {
            "key": block["key"],
            "stamp": pc.if_else(pa.array(is_passing), pa.scalar(None, pa.string()), block["stamp"]),
            "num_samples": num_samples,
            "num_rejects": num_rejects,
            "facts": block["facts"],
        }
    )


def _exempted(tables: Iterable[pa.Table], is_reject: NDArray[np.bool_]) -> Iterator[pa.Table]:
    start = 0
    for table in tables:
        flags = pa.array(is_reject[start : start + table.num_rows])
        yield table.select(COMPARED).append_column("is_exempt", flags)
        start += table.num_rows


def _table(keys: pa.ChunkedArray, *, payloads: pa.Array, grouped: bool) -> pa.Table:
    images: Any = pa.StructArray.from_arrays([payloads, keys.combine_chunks()], fields=list(IMAGE_TYPE))
    sources = keys.to_pylist()
    return sample_table(
        dataset=IMAGES,
        sources=sources,
        contents=digits(hash_each(payloads)),
        labels=_first_folders(keys),
        payload={"image": images},
        groups=pa.array([_group_of(key) for key in sources], pa.string()) if grouped else None,
    )


def _joined(payloads: Sequence[bytes]) -> pa.Array:
    """Payloads as a column; Arrow would copy them again and again while it grows."""
    ends = np.cumsum([0, *map(len, payloads)], dtype=np.int32)
    return pa.Array.from_buffers(
        pa.binary(), len(payloads), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(payloads))]
    )


def _first_folders(keys: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.replace_substring_regex(keys, r"(?s)/.*", "")


def _group_of(key: str) -> str | None:
    below_class = key.split("/")[1:-1]
    return below_class[0] if below_class else None
