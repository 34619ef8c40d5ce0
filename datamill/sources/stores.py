"""Where a source's files are: a local disk, or whatever an fsspec URL names."""

import contextlib
import functools
import gzip
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from datamill.errors import DataError
from datamill.sources.addresses import local_path
from datamill.sources.listing import (
    LISTING,
    StoredFile,
    files_of,
    local_files,
    local_tables,
    remote_files,
    remote_tables,
    table_of,
)
from datamill.sources.retrying import patiently
from datamill.sources.streams import remote_stream

GZIP_MAGIC = b"\x1f\x8b"
COMPARED = ("key", "size_bytes", "version")  # columns of a listing that tell whether a file is the same

_NOTHING = LISTING.empty_table().append_column("is_exempt", pa.array([], pa.bool_()))  # stands for an empty listing


@dataclass(frozen=True)
class Store:
    """A file, a folder or a glob, and the file system it is in (``None`` for the local disk)."""

    url: str
    root: str
    filesystem: Any | None

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.root.rstrip("/").rpartition("/")[2]

    def tables(self) -> Iterator[pa.Table]:
        """Every file of a folder, in the order of the keys, some at a time; see ``listing.LISTING`` for the columns.

        Names that start with a dot are left out, and so are folders of such names.

        Raises:
            DataError: It cannot be listed.
        """
        with self._listing():
            if self.filesystem is None:
                yield from local_tables(Path(self.root))
            else:
                self.filesystem.invalidate_cache()
                yield from remote_tables(self.filesystem, self.root)

    def files(self) -> list[StoredFile]:
        """The same as a list, also for a file or a glob: for sources of few files.

        Raises:
            DataError: There is nothing at the URL, or it cannot be listed.
        """
        if self.is_folder():
            return [file for table in self.tables() for file in files_of(table, folder=self.root.rstrip("/"))]
        with self._listing():
            if self.filesystem is None:
                found = list(local_files(Path(self.root)))
            else:
                self.filesystem.invalidate_cache()
                found = list(remote_files(self.filesystem, self.root))
        if not found:
            raise DataError(f"{self.url} does not exist; relative paths start at the workspace, correct ingest.source")
        return sorted(found, key=lambda file: file.key)

    def is_folder(self) -> bool:
        """Whether it is a folder.

        Raises:
            DataError: The store cannot be reached.
        """
        if self.filesystem is None:
            return Path(self.root).is_dir()
        with self._listing():
            return bool(patiently(functools.partial(self.filesystem.isdir, self.root)))

    def open(self, file: StoredFile) -> IO[bytes]:
        """The file's bytes as a stream.

        Raises:
            OSError: It cannot be opened; reading raises it when a store fails, or gives fewer bytes than it listed.
        """
        if self.filesystem is None:
            return Path(file.path).open("rb")
        return remote_stream(self.filesystem, file.path, size_bytes=file.size_bytes)

    def read(self, file: StoredFile) -> bytes | None:
        """The whole file, or ``None`` if it no longer is what the listing found.

        Raises:
            FileNotFoundError: It is gone.
            PermissionError: It may not be read.
            OSError: The disk failed. A remote store raises errors of its own, after several attempts.
        """
        if self.filesystem is None:
            return _read_local(file)
        if not file.size_bytes:
            return b""  # some stores refuse to read nothing
        try:
            return patiently(functools.partial(_read_remote, self.filesystem, file))
        except _ShortError:
            return None

    @contextlib.contextmanager
    def reading(self, file: StoredFile) -> Iterator[IO[bytes]]:
        """A stream of a file without which the source cannot be read.

        Raises:
            DataError: It is gone, or cannot be read.
        """
        try:
            with self.open(file) as stream:
                yield stream
        except OSError as error:
            raise DataError(f"{file.key} cannot be read: {error.strerror or error}; correct that, run again") from error

    def is_unchanged(self, file: StoredFile) -> bool:
        """Whether a local file still is what the listing found.

        A remote one passes: stores answer for one file in other words than in a listing, so ``refuse_changes`` compares
        two listings at the end instead.
        """
        if self.filesystem is not None:
            return True
        try:
            return _is_listed(Path(file.path).stat(), file)
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def _listing(self) -> Iterator[None]:
        try:
            yield
        except DataError:
            raise
        except Exception as error:  # every remote store raises errors of its own
            raise DataError(f"{self.url} cannot be listed: {error}; check the path and your access to it") from error


class _ShortError(Exception):
    """A store gave fewer or more bytes than it had listed."""


def refuse_changes(url: str, *, before: Iterable[StoredFile], after: Iterable[StoredFile]) -> None:
    """Refuse a source whose files are not those that were listed before reading.

    Raises:
        DataError: A file came, went, or has another size or version.
    """
    listed = {file.key: file for file in before}
    found = {file.key: file for file in after}
    differing = sorted(key for key in listed.keys() | found.keys() if listed.get(key) != found.get(key))
    if differing:
        raise _changed(url, count=len(differing), first=differing[0])


def refuse_other_listing(url: str, *, before: Iterable[pa.Table], after: Iterable[pa.Table]) -> None:
    """The same for two listings as tables in the order of the keys; memory does not grow with them.

    Args:
        url: What was listed.
        before: The first, with a column ``is_exempt``: whether a file's change is accounted for already.
        after: The second.

    Raises:
        DataError: A file came, went, or has another size or version.
    """
    count, first = 0, ""
    for listed, found in in_step(iter(before), iter(after)):
        if listed.select(COMPARED).equals(found.select(COMPARED)):
            continue
        rows, others = ({tuple(row.values()) for row in one.select(COMPARED).to_pylist()} for one in (listed, found))
        exempt = set(listed["key"].filter(listed["is_exempt"]).to_pylist())
        differing = {row[0] for row in rows ^ others} - exempt
        first = first or min(differing, default="")
        count += len(differing)
    if count:
        raise _changed(url, count=count, first=first)


def in_step(before: Iterator[pa.Table], after: Iterator[pa.Table]) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Two lists of items in the order of their column ``key``, a range of keys at a time."""
    heads = [next(before, _NOTHING), next(after, _NOTHING)]
    while any(head.num_rows for head in heads):
        bound = min(head["key"][-1].as_py() for head in heads if head.num_rows)
        counts = [pc.sum(pc.less_equal(head["key"], bound)).as_py() or 0 for head in heads]
        yield heads[0].slice(0, counts[0]), heads[1].slice(0, counts[1])
        heads = [head.slice(count) for head, count in zip(heads, counts, strict=True)]
        heads = [head if head.num_rows else next(rest, head) for head, rest in zip(heads, (before, after), strict=True)]


def open_store(url: str) -> Store:
    """The store that a path or a URL names.

    Raises:
        DataError: No file system is installed for the URL's protocol.
    """
    path = local_path(url)
    if path is not None:
        return Store(url=url, root=str(Path.cwd() / path), filesystem=None)
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DataError(f"{url} cannot be opened: {error}; install the fsspec package of this protocol") from error
    return Store(url=url, root=root, filesystem=filesystem)


def open_file(url: str) -> tuple[Store, StoredFile]:
    """The store and the one file that a path or a URL names.

    Raises:
        DataError: It is missing, or not a file.
    """
    store = open_store(url)
    files = store.files()
    if store.is_folder() or len(files) != 1 or files[0].fault is not None:
        raise DataError(f"{url} is not a file; name one file")
    return store, files[0]


def inflated(stream: IO[bytes]) -> IO[bytes]:
    """``stream``, decompressed if its content is gzip, whatever its name."""
    magic = stream.read(len(GZIP_MAGIC))
    stream.seek(0)
    return cast("IO[bytes]", gzip.GzipFile(fileobj=stream)) if magic == GZIP_MAGIC else stream


def fingerprint(urls: Sequence[str]) -> str:
    """Hash of the names, sizes and versions of all files below ``urls`` (32 hexadecimal digits)."""
    digest = hashlib.blake2b(digest_size=16)
    for url in urls:
        store = open_store(url)
        tables = store.tables() if store.is_folder() else [table_of(store.files())]
        for file in itertools.chain.from_iterable(files_of(table, folder=store.root) for table in tables):
            digest.update(f"{url}\0{file.key}\0{file.size_bytes}\0{file.version}\n".encode())
    return digest.hexdigest()


def _read_local(file: StoredFile) -> bytes | None:
    # Without waiting: what was a file may have become a pipe that nobody writes to.
    descriptor = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        payload = os.read(descriptor, file.size_bytes + 1)  # a file that grows must not fill the memory
        while len(payload) < file.size_bytes and (more := os.read(descriptor, file.size_bytes + 1 - len(payload))):
            payload += more
        is_whole = len(payload) == file.size_bytes and _is_listed(os.fstat(descriptor), file)
        return payload if is_whole else None
    except (BlockingIOError, IsADirectoryError):
        return None
    finally:
        os.close(descriptor)


def _read_remote(filesystem: Any, file: StoredFile) -> bytes:
    payload = bytes(filesystem.cat_file(file.path, start=0, end=file.size_bytes + 1))
    if len(payload) != file.size_bytes:
        raise _ShortError
    return payload


def _is_listed(status: os.stat_result, file: StoredFile) -> bool:
    return status.st_size == file.size_bytes and str(status.st_mtime_ns) == file.version


def _changed(url: str, *, count: int, first: str) -> DataError:
    return DataError(
        f"{url}: {count} of its files came, changed or went while it was read, first {first}; "
        "let the writer finish and run ingest again"
    )
