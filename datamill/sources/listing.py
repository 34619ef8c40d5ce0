"""The files of a folder or a glob, local or in a store that fsspec reaches."""

import glob
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def local_files(root: Path) -> Iterator[StoredFile]:
    """The file, the files of the glob, or all files below the folder ``root``; none if there is nothing.

    In a folder, links are resolved: one that leads out of it has a fault, and so has one to a folder within, because
    its files are listed where they are.

    Raises:
        OSError: A folder cannot be listed.
    """
    if root.is_file():
        yield _local_file(root, key=root.name)
    elif root.is_dir():
        yield from _walk(root)
    elif glob.has_magic(str(root)):
        base = Path(glob_base(str(root)))
        for path in base.glob(str(root.relative_to(base))):
            if path.is_file() and not _is_hidden(key := path.relative_to(base).as_posix()):
                yield _local_file(path, key=key)


def remote_files(filesystem: Any, root: str) -> Iterator[StoredFile]:
    """The same for a path in an fsspec file system; such stores have no links."""
    is_glob = glob.has_magic(root) and not filesystem.exists(root)
    base = glob_base(root) if is_glob else root
    found = filesystem.glob(root, detail=True) if is_glob else filesystem.find(root, detail=True)
    for path, info in found.items():
        key = path.removeprefix(base).lstrip("/") or path.rpartition("/")[2]
        if info["type"] == "file" and not _is_hidden(key):
            yield StoredFile(_storable(key), path, int(info["size"] or 0), version(info))


def version(info: dict[str, Any]) -> str:
    """What the store says of a file that changes with its content; empty if it says nothing but the size."""
    return next((str(info[field]) for field in VERSION_FIELDS if info.get(field) is not None), "")


def glob_base(pattern: str) -> str:
    """The folder a glob searches: what stands before its first wildcard."""
    parts = pattern.split("/")
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:fixed]) or ("/" if pattern.startswith("/") else ".")


def _walk(root: Path) -> Iterator[StoredFile]:
    real_root = root.resolve()
    for folder, folders, names in os.walk(root, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in [*links, *(name for name in names if not name.startswith("."))]:
            path = Path(folder, name)
            key = path.relative_to(root).as_posix()
            if path.is_symlink() and not path.resolve().is_relative_to(real_root):
                fault = ("outside_source", "a link that leads out of the source's folder")
                yield StoredFile(_storable(key), str(path), 0, "", fault)
            else:
                yield _local_file(path, key=key)


def _local_file(path: Path, *, key: str) -> StoredFile:
    try:
        status = path.stat()
    except FileNotFoundError:
        fault = ("vanished", "gone since it was listed, or a link that leads to nothing")
        return StoredFile(_storable(key), str(path), 0, "", fault)
    reason = None
    if stat.S_ISDIR(status.st_mode):
        reason = ("linked_folder", "a link to a folder of the same source, whose files are listed where they are")
    elif not stat.S_ISREG(status.st_mode):
        reason = ("not_a_file", "a device, pipe or socket")
    return StoredFile(_storable(key), str(path), status.st_size, str(status.st_mtime_ns), reason)


def _is_hidden(key: str) -> bool:
    return any(part.startswith(".") for part in key.split("/"))


def _storable(key: str) -> str:
    # A file name need not be text; what is not is spelt out.
    return key.encode("utf-8", "backslashreplace").decode()


def _raise(error: OSError) -> None:
    raise error
