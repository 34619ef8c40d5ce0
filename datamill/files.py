"""Files and folders that are either whole or absent."""

import contextlib
import functools
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"  # begins the name of a path that is still being written; never an input, always safe to delete
REPLACED = ".replaced-"  # begins the name of the previous version during the two renames that swap a folder

_flushing: deque[Future[None]] = deque()


def partial_path(path: Path) -> Path:
    """The sibling that stands for ``path`` while it is written: same folder, so that a rename is atomic."""
    return path.with_name(PARTIAL + path.name)


def publish(path: Path) -> None:
    """Put the finished partial sibling of ``path`` in its place, replacing what was there.

    A file is replaced in one rename. A folder takes two (there is no portable exchange): a kill between them leaves
    the path absent, never half-written, and the next run writes it again.

    Raises:
        OSError: Something could not be written; also of a file that ``flush_soon`` took.
    """
    with contextlib.suppress(IndexError):  # several threads may publish
        while True:
            _flushing.popleft().result()
    partial = partial_path(path)
    fsync_tree(partial)
    if partial.is_dir() or path.is_dir():
        replaced = path.with_name(REPLACED + path.name)
        remove(replaced)
        if path.exists():
            path.rename(replaced)
        partial.rename(path)
        remove(replaced)
    else:
        partial.replace(path)
    fsync_path(path.parent)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write instead of ``path``; it takes the place of ``path`` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    remove(partial)
    try:
        yield partial
        publish(path)
    finally:
        remove(partial)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON that is equal for equal content: indented, UTF-8, one final newline, no NaN."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def link_or_copy(source: Path, target: Path) -> None:
    """Put ``source`` at ``target`` too: a second name of the same bytes where the file system can, else a copy.

    Only for files that are never written in place. Of a link, it is the file that it leads to.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source.resolve())
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def remove(path: Path) -> None:
    """Delete a file, a link or a folder; absent is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fsync_tree(path: Path) -> None:
    """Flush a file, or every file and folder below a folder, to the disk."""
    if path.is_dir():
        for child in path.rglob("*"):
            fsync_path(child)
    fsync_path(path)


def fsync_path(path: Path) -> None:
    """Flush one file, or one folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_soon(path: Path) -> None:
    """Begin to flush a finished file to the disk beside other work: ``publish`` has less to wait for then.

    Linux tells of a failed write once, to the first who asks; so what is told here is raised by the next ``publish``.
    """
    _flushing.append(_flusher().submit(_flush, path))


@functools.cache
def _flusher() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "flusher")


def _flush(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # it is gone, or has its own name by now
        fsync_path(path)


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5_file(path: Path) -> str:
    """Hexadecimal MD5 of a file's bytes: what DVC calls it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
