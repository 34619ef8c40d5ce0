"""Files of a source, local or behind any fsspec URL: their names, their versions, their bytes."""

import glob
import gzip
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import fsspec

from datamill.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
VERSION_FIELDS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "created",
)


@dataclass(frozen=True)
class StoredFile:
    """A file as the listing found it.

    Attributes:
        key: Its path relative to what was listed, POSIX; its name when it was named itself.
        path: What the store opens.
        size_bytes: Its size.
        version: Changes when the content changes: the store's entity tag or time of change.
        fault: Why it must not be opened, as (reason, message), if it must not.
    """

    key: str
    path: str
    size_bytes: int
    version: str
    fault: tuple[str, str] | None = None


@dataclass(frozen=True)
class Store:
    """A file, a folder or a glob, and the file system it is in."""

    url: str
    filesystem: Any
    root: str
    is_local: bool

    def files(self) -> list[StoredFile]:
        """Every file, sorted by key; names that start with a dot are left out, here and in folders above.

        Raises:
            DataError: There is nothing at the URL, or it cannot be listed.
        """
        try:
            self.filesystem.invalidate_cache()
            found = list(_local_files(self.root) if self.is_local else _remote_files(self.filesystem, self.root))
        except OSError as error:
            raise DataError(f"{self.url} cannot be listed: {error.strerror or error}") from error
        if not found and not self.is_folder():
            raise DataError(f"{self.url} does not exist; relative paths start at the workspace, correct ingest.source")
        return sorted(found, key=lambda file: file.key)

    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return bool(self.filesystem.isdir(self.root))

    def open(self, file: StoredFile) -> IO[bytes]:
        """The file's bytes as a stream."""
        return open(file.path, "rb") if self.is_local else self.filesystem.open(file.path, "rb")

    def is_unchanged(self, file: StoredFile) -> bool:
        """Whether the file still is what the listing found."""
        try:
            if self.is_local:
                status = os.stat(file.path)
                return (status.st_size, str(status.st_mtime_ns)) == (file.size_bytes, file.version)
            self.filesystem.invalidate_cache()
            info = self.filesystem.info(file.path)
        except FileNotFoundError:
            return False
        return (int(info["size"] or 0), _version(info)) == (file.size_bytes, file.version)

    def require_unchanged(self, files: Sequence[StoredFile]) -> None:
        """Refuse files that changed since they were listed.

        Raises:
            DataError: A file has another size or version, or is gone.
        """
        changed = [file.key for file in files if not self.is_unchanged(file)]
        if changed:
            raise DataError(
                f"{', '.join(changed)} changed while being read; let the writer finish and run ingest again"
            )


def open_store(url: str) -> Store:
    """The store that a path or a URL names.

    Raises:
        DataError: No file system is installed for the URL's protocol.
    """
    path = local_path(url)
    if path is not None:
        return Store(url=url, filesystem=fsspec.filesystem("file"), root=os.path.abspath(path), is_local=True)
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DataError(f"{url} cannot be opened: {error}; install the fsspec package of this protocol") from error
    return Store(url=url, filesystem=filesystem, root=root, is_local=False)


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
    return cast(IO[bytes], gzip.GzipFile(fileobj=stream)) if magic == GZIP_MAGIC else stream


def local_path(url: str) -> str | None:
    """The local path that ``url`` names, or ``None`` for a remote one."""
    bare = url.removeprefix("file://").removeprefix("local://")
    return None if "://" in bare or "::" in bare else os.path.expanduser(bare)


def watched(path: str) -> list[str]:
    """Files and folders whose change may change what a local path or glob holds."""
    if not glob.has_magic(path):
        return [path]
    folder = _glob_base(path)
    return [folder] if Path(folder) != Path() else sorted(glob.glob(path))


def fingerprint(urls: Sequence[str]) -> str:
    """Hash of the names, sizes and versions of all files below ``urls`` (32 hexadecimal digits)."""
    digest = hashlib.blake2b(digest_size=16)
    for url in urls:
        for file in open_store(url).files():
            digest.update(f"{url}\0{file.key}\0{file.size_bytes}\0{file.version}\n".encode())
    return digest.hexdigest()


def _glob_base(pattern: str) -> str:
    parts = pattern.split("/")
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:fixed]) or ("/" if pattern.startswith("/") else ".")


def _local_files(root: str) -> Iterator[StoredFile]:
    if os.path.isfile(root):
        yield _local_file(root, key=os.path.basename(root), root=None)
    elif glob.has_magic(root) and not os.path.exists(root):
        base = _glob_base(root)
        for path in glob.glob(root, recursive=True):
            if os.path.isfile(path):
                yield _local_file(path, key=_key(os.path.relpath(path, base)), root=None)
    elif os.path.isdir(root):
        yield from _walk(root)


def _walk(root: str) -> Iterator[StoredFile]:
    for folder, folders, names in os.walk(root, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in [*links, *(name for name in names if not name.startswith("."))]:
            path = os.path.join(folder, name)
            yield _local_file(path, key=_key(os.path.relpath(path, root)), root=os.path.realpath(root))


def _local_file(path: str, *, key: str, root: str | None) -> StoredFile:
    target = os.path.realpath(path)
    if root is not None and os.path.commonpath([root, target]) != root:
        return StoredFile(key, path, 0, "", ("outside_source", "a link that leads out of the source's folder"))
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return StoredFile(key, path, 0, "", ("vanished", "gone since it was listed, or a link that leads to nothing"))
    fault = None
    if stat.S_ISDIR(status.st_mode):
        fault = ("linked_folder", "a link to a folder of the same source, whose files are listed where they are")
    elif not stat.S_ISREG(status.st_mode):
        fault = ("not_a_file", "a device, pipe or socket")
    return StoredFile(key, path, status.st_size, str(status.st_mtime_ns), fault)


def _remote_files(filesystem: Any, root: str) -> Iterator[StoredFile]:
    found: dict[str, Any]
    if glob.has_magic(root) and not filesystem.exists(root):
        base, found = _glob_base(root), filesystem.glob(root, detail=True)
    else:
        base, found = root, filesystem.find(root, detail=True)
    for path, info in found.items():
        key = path.removeprefix(base).lstrip("/") or path.rpartition("/")[2]
        if info["type"] == "file" and not any(part.startswith(".") for part in key.split("/")):
            yield StoredFile(_key(key), path, int(info["size"] or 0), _version(info))


def _version(info: dict[str, Any]) -> str:
    return next((str(info[field]) for field in VERSION_FIELDS if info.get(field) is not None), "")


def _key(path: str) -> str:
    # A file name need not be text; what is not is spelt out, so that it can be stored.
    return path.replace(os.sep, "/").encode("utf-8", "backslashreplace").decode()


def _raise(error: OSError) -> None:
    raise error
