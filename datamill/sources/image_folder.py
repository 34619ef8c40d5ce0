"""Images in a folder per class, on a local disk or in any store that fsspec reaches."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from datamill.errors import DataError
from datamill.samples import Dataset, content_hash, sort_classes
from datamill.sources.batches import BATCH_BYTES, Batch, Reading, Reject, sample_table
from datamill.sources.integrity import find_fault
from datamill.sources.listing import StoredFile
from datamill.sources.params import ImageFolderSource
from datamill.sources.stores import Store, open_store, refuse_changes

BATCH_FILES = 512


def read(source: ImageFolderSource, *, max_pixels: int, max_file_bytes: int, num_workers: int) -> Reading:
    """The images below a folder; a sample's source key is its path below that folder.

    Every file is an item, except names that start with a dot. Names and endings say nothing: a file is an image if its
    content is one. Its bytes are kept as they are, after it was decoded once to show that it can be.

    Raises:
        DataError: The folder is missing or empty, or has no sub-folder with files.
    """
    store = open_store(source.path)
    files = store.files()
    if not store.is_folder():
        raise DataError(f"{source.path} is not a folder; name the folder that holds one sub-folder per class")
    if not files:
        raise DataError(f"{source.path} is empty; put one sub-folder with images per class into it")
    classes = sort_classes([_class_of(file) for file in files if "/" in file.key])
    if not classes:
        raise DataError(f"{source.path} holds {len(files)} files and no sub-folder; put the images of a class into one")
    dataset = Dataset(name=store.name or "images", modality="image", classes=classes)
    checker = _Checker(store=store, max_pixels=max_pixels, max_file_bytes=max_file_bytes)
    batches = _batches(
        files, dataset=dataset, checker=checker, num_workers=num_workers, grouped=source.group_from == "folder"
    )
    return Reading(dataset=dataset, num_items=len(files), batches=batches)


class _Checker:
    """Turns a file into its bytes or into a reject; safe to call from several threads."""

    def __init__(self, *, store: Store, max_pixels: int, max_file_bytes: int) -> None:
        self.store = store
        self._max_pixels = max_pixels
        self._max_file_bytes = max_file_bytes

    def __call__(self, file: StoredFile) -> bytes | Reject:
        if file.fault is not None:
            return Reject(file.key, *file.fault)
        if "/" not in file.key:
            return Reject(file.key, "no_class", "lies beside the class folders; move it into the folder of its class")
        if file.size_bytes > self._max_file_bytes:
            return Reject(file.key, "too_large", f"{file.size_bytes} bytes are more than {self._max_file_bytes}")
        payload = self._bytes(file)
        if isinstance(payload, Reject):
            return payload
        fault = find_fault(payload, max_pixels=self._max_pixels)
        return payload if fault is None else Reject(file.key, *fault)

    def _bytes(self, file: StoredFile) -> bytes | Reject:
        try:
            with self.store.open(file) as stream:
                payload = stream.read(file.size_bytes + 1)  # a file that grows must not fill the memory
        except FileNotFoundError:
            return Reject(file.key, "vanished", "was listed and is gone")
        except PermissionError:
            return Reject(file.key, "unreadable", "permission to read it was denied")
        except OSError as error:
            raise DataError(f"{file.key} cannot be read: {error.strerror or error}; run ingest again") from error
        if len(payload) != file.size_bytes or not self.store.is_unchanged(file):
            return Reject(file.key, "changed_while_read", f"was listed with {file.size_bytes} bytes and then changed")
        return payload


def _batches(
    files: Sequence[StoredFile], *, dataset: Dataset, checker: _Checker, num_workers: int, grouped: bool
) -> Iterator[Batch]:
    rejected: set[str] = set()
    with ThreadPoolExecutor(max_workers=num_workers) as pool:
        for chunk in _chunks(files):
            results = list(pool.map(checker, chunk))
            rejects = [result for result in results if isinstance(result, Reject)]
            rejected.update(reject.source for reject in rejects)
            good = [(file, result) for file, result in zip(chunk, results, strict=True) if isinstance(result, bytes)]
            yield Batch(_table(good, dataset=dataset, grouped=grouped), rejects)
    # What was rejected meanwhile is accounted for; any other change would be missing from the samples.
    before, after = ([file for file in each if file.key not in rejected] for each in (files, checker.store.files()))
    refuse_changes(checker.store.url, before=before, after=after)


def _chunks(files: Sequence[StoredFile]) -> Iterator[list[StoredFile]]:
    """Runs of files of at most ``BATCH_FILES`` and about ``BATCH_BYTES``."""
    chunk: list[StoredFile] = []
    size = 0
    for file in files:
        if chunk and (len(chunk) == BATCH_FILES or size + file.size_bytes > BATCH_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(file)
        size += file.size_bytes
    yield chunk


def _table(good: Sequence[tuple[StoredFile, bytes]], *, dataset: Dataset, grouped: bool) -> pa.Table:
    files = [file for file, _ in good]
    images = [{"bytes": payload, "path": file.key} for file, payload in good]
    return sample_table(
        dataset=dataset,
        sources=[file.key for file in files],
        contents=[content_hash(payload) for _, payload in good],
        labels=[_class_of(file) for file in files],
        payload={"image": pa.array(images, dataset.arrow_schema().field("image").type)},
        groups=pa.array([_group_of(file) for file in files], pa.string()) if grouped else None,
    )


def _class_of(file: StoredFile) -> str:
    return file.key.partition("/")[0]


def _group_of(file: StoredFile) -> str | None:
    below_class = file.key.split("/")[1:-1]
    return below_class[0] if below_class else None
