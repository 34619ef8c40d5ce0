"""Where a source's files are: a local disk, or whatever an fsspec URL names."""

import contextlib
import glob
import gzip
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import fsspec

from datamill.errors import DataError
from datamill.sources.listing import StoredFile, glob_base, local_files, remote_files

GZIP_MAGIC = b"\x1f\x8b"


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

    def files(self) -> list[StoredFile]:
        """Every file, sorted by key; names that start with a dot are left out, and so are folders of such names.

        Raises:
            DataError: There is nothing at the URL, or it cannot be listed.
        """
        try:
            if self.filesystem is None:
                found = list(local_files(Path(self.root)))
            else:
                self.filesystem.invalidate_cache()
                found = list(remote_files(self.filesystem, self.root))
        except Exception as error:  # every remote store raises errors of its own
            raise DataError(f"{self.url} cannot be listed: {error}; check the path and your access to it") from error
        if not found and not self.is_folder():
            raise DataError(f"{self.url} does not exist; relative paths start at the workspace, correct ingest.source")
        return sorted(found, key=lambda file: file.key)

    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return Path(self.root).is_dir() if self.filesystem is None else bool(self.filesystem.isdir(self.root))

    def open(self, file: StoredFile) -> IO[bytes]:
        """The file's bytes as a stream."""
        return Path(file.path).open("rb") if self.filesystem is None else self.filesystem.open(file.path, "rb")

    @contextlib.contextmanager
    def reading(self, file: StoredFile) -> Iterator[IO[bytes]]:
        """The same for a file without which the source cannot be read.

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
            status = Path(file.path).stat()
        except FileNotFoundError:
            return False
        return (status.st_size, str(status.st_mtime_ns)) == (file.size_bytes, file.version)


def refuse_changes(url: str, *, before: Iterable[StoredFile], after: Iterable[StoredFile]) -> None:
    """Refuse a source whose files are not those that were listed before reading.

    Raises:
        DataError: A file came, went, or has another size or version.
    """
    listed = {file.key: file for file in before}
    found = {file.key: file for file in after}
    differing = sorted(key for key in listed.keys() | found.keys() if listed.get(key) != found.get(key))
    if differing:
        raise DataError(
            f"{url}: {len(differing)} of its files came, changed or went while it was read, first {differing[0]}; "
            "let the writer finish and run ingest again"
        )


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


def local_path(url: str) -> str | None:
    """The local path that ``url`` names, or ``None`` for a remote one."""
    bare = url.removeprefix("file://").removeprefix("local://")
    return None if "://" in bare or "::" in bare else str(Path(bare).expanduser())


def watched(path: str) -> list[str]:
    """Files and folders whose change may change what a local path or glob holds."""
    if not glob.has_magic(path) or Path(path).exists():
        return [path]
    folder = Path(glob_base(path))
    return [str(folder)] if folder != Path() else sorted(str(file) for file in folder.glob(path) if file.is_file())


def fingerprint(urls: Sequence[str]) -> str:
    """Hash of the names, sizes and versions of all files below ``urls`` (32 hexadecimal digits)."""
    digest = hashlib.blake2b(digest_size=16)
    for url in urls:
        for file in open_store(url).files():
            digest.update(f"{url}\0{file.key}\0{file.size_bytes}\0{file.version}\n".encode())
    return digest.hexdigest()
