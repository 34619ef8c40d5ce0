"""The files of a folder or a glob, local or in a store that fsspec reaches.

Folders are walked in the order of the keys, so that a listing can be streamed: memory holds the names of one folder
at a time, packed. A listing as tables has one row per file and the columns of ``LISTING``.
"""

import glob
import itertools
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datamill.sources.addresses import glob_base
from datamill.sources.retrying import patiently

TAG_FIELDS = ("ETag", "etag", "md5Hash", "content_md5")  # of a remote file, made from its content
TIME_FIELDS = ("mtime", "LastModified", "last_modified", "updated", "created")
SETTLED_S, REMOTE_SETTLED_S = 2.0, 60.0  # age from which a time of change tells any later change; clocks differ
LISTED_ROWS = 16_384  # files listed at a time; bounds memory, not results

LISTING = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("path", pa.binary()),  # null where it is the folder's path and the key
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("stamp", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("message", pa.string()),
    ]
)

OUTSIDE = ("outside_source", "a link that leads out of the source's folder")
VANISHED = ("vanished", "gone since it was listed, or a link that leads to nothing")
LINKED_FOLDER = ("linked_folder", "a link to a folder of the same source, whose files are listed where they are")
NOT_A_FILE = ("not_a_file", "a device, pipe or socket")

_LOCAL = pa.schema(
    [
        LISTING.field("key"),
        LISTING.field("path"),
        LISTING.field("size_bytes"),
        pa.field("modified_ns", pa.int64()),  # since 1970, of the content
        pa.field("changed_ns", pa.int64()),  # of anything, a name or a mode too; no program can set it back
        LISTING.field("reason"),
        LISTING.field("message"),
    ]
)
_Row = tuple[str, bytes | None, int, int, int, str | None, str | None]


@dataclass(frozen=True)
class StoredFile:
    """A file as the listing found it.

    Attributes:
        key: Its path relative to what was listed, POSIX; its name when it was named itself.
        path: What the store opens.
        size_bytes: Its size.
        version: Changes when the content changes: the store's entity tag or time of change.
        fault: Why it must not be opened, as (reason, message), if it must not.
        stamp: Size, version and, locally, the time of any change: while it stays the same, so does the content, however
            much later one looks. ``None`` where that is not certain, as for a file that was changed a moment ago.
    """

    key: str
    path: str
    size_bytes: int
    version: str
    fault: tuple[str, str] | None = None
    stamp: str | None = field(default=None, compare=False)


def local_tables(root: Path) -> Iterator[pa.Table]:
    """All files below the folder ``root``, ordered by key, as tables.

    Names that start with a dot are left out, and so are folders of such names. Links are resolved: one that leads out
    of the folder has a fault, and so has one to a folder within, because its files are listed where they are.

    Raises:
        OSError: A folder cannot be listed.
    """
    before_ns = _settled_ns()
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    rows = _walk(descriptor, folder=str(root), prefix="", is_text=True, real_root=root.resolve())
    while some := list(itertools.islice(rows, LISTED_ROWS)):
        yield _table(some, before_ns=before_ns)


def local_files(root: Path) -> Iterator[StoredFile]:
    """The file that ``root`` names, or the files of the glob, in no order; none if there is nothing."""
    before_ns = _settled_ns()
    rows: list[_Row] = []
    if root.is_file():
        rows.append(_row(_storable(root.name), os.fsencode(root), root.stat()))
    elif glob.has_magic(str(root)):
        base = Path(glob_base(str(root)))
        for path in base.glob(str(root.relative_to(base))):
            if path.is_file() and not _is_hidden(key := path.relative_to(base).as_posix()):
                rows.append(_row(_storable(key), os.fsencode(path), path.stat()))
    yield from files_of(_table(rows, before_ns=before_ns), folder="")


def remote_tables(filesystem: Any, root: str) -> Iterator[pa.Table]:
    """``local_tables`` for a folder in an fsspec file system; such stores have no links."""
    files = _remote_walk(filesystem, root.rstrip("/"), prefix="", before_s=time.time() - REMOTE_SETTLED_S)
    while some := list(itertools.islice(files, LISTED_ROWS)):
        yield table_of(some)


def remote_files(filesystem: Any, root: str) -> Iterator[StoredFile]:
    """``local_files`` for a path in an fsspec file system."""
    before_s = time.time() - REMOTE_SETTLED_S
    if patiently(partial(filesystem.isfile, root)):
        yield _remote_file(
            patiently(partial(filesystem.info, root)), key=root.rpartition("/")[2], path=root, before_s=before_s
        )
    elif glob.has_magic(root) and not filesystem.exists(root):
        base = glob_base(root)
        for path, info in patiently(partial(filesystem.glob, root, detail=True)).items():
            key = path.removeprefix(base).lstrip("/")
            if info["type"] == "file" and not _is_hidden(key):
                yield _remote_file(info, key=key, path=path, before_s=before_s)


def table_of(files: Iterable[StoredFile]) -> pa.Table:
    """Files as a table."""
    rows = [
        (one.key, os.fsencode(one.path), one.size_bytes, one.version, one.stamp, *(one.fault or (None, None)))
        for one in files
    ]
    columns = [pa.array([row[place] for row in rows], kind.type) for place, kind in enumerate(LISTING)]
    return pa.Table.from_arrays(columns, schema=LISTING)


def files_of(table: pa.Table, *, folder: str) -> list[StoredFile]:
    """The files of a table that lists ``folder``."""
    return [
        StoredFile(
            key,
            f"{folder}/{key}" if path is None else os.fsdecode(path),
            size_bytes,
            version,
            None if reason is None else (reason, message),
            stamp,
        )
        for key, path, size_bytes, version, stamp, reason, message in zip(
            *(table[name].to_pylist() for name in LISTING.names), strict=True
        )
    ]


def version(info: dict[str, Any]) -> str:
    """What the store says of a file that changes with its content; empty if it says nothing but the size."""
    return next((str(info[name]) for name in (*TAG_FIELDS, *TIME_FIELDS) if info.get(name) is not None), "")


def _walk(descriptor: int, *, folder: str, prefix: str, is_text: bool, real_root: Path) -> Iterator[_Row]:
    """Files below an open folder, which is closed at the end.

    Args:
        descriptor: The folder.
        folder: Its path.
        prefix: What its files' keys begin with.
        is_text: Whether the prefix is the folder's path below the root, letter for letter.
        real_root: Where links must not lead out of.
    """
    try:
        for shown, name, kind in _names(descriptor):
            key = prefix + shown
            is_plain = is_text and shown == name
            path = None if is_plain else os.fsencode(f"{folder}/{name}")
            if kind == "d":
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                below = f"{folder}/{name}"
                yield from _walk(inner, folder=below, prefix=f"{key}/", is_text=is_plain, real_root=real_root)
            elif kind == "l" and not Path(folder, name).resolve().is_relative_to(real_root):
                yield key, path, 0, 0, 0, *OUTSIDE
            else:
                try:
                    yield _row(key, path, os.stat(name, dir_fd=descriptor))
                except FileNotFoundError:
                    yield key, path, 0, 0, 0, *VANISHED
    finally:
        os.close(descriptor)


def _names(descriptor: int) -> Iterator[tuple[str, str, str]]:
    """What an open folder holds, but for names that start with a dot: name in keys, name, and kind (d, l or f).

    It comes in the order of the keys below it: as if the names of folders ended with a slash.
    """
    with os.scandir(descriptor) as entries:
        packed = map(_packed, entries)
        runs = [pa.array(some) for some in iter(lambda: list(itertools.islice(packed, LISTED_ROWS)), [])]
    names = pa.concat_arrays([pa.array([], pa.string()), *runs])
    order = pc.array_sort_indices(names)
    for start in range(0, len(names), LISTED_ROWS):
        for text in names.take(order.slice(start, LISTED_ROWS)).to_pylist():
            if text.endswith("\0f"):
                name = text[:-2]
                yield name, name, "f"
            elif not text.startswith("."):
                shown, rest = text.split("\0")
                shown = shown.removesuffix("/")
                yield shown, os.fsdecode(bytes.fromhex(rest[1:])) if len(rest) > 1 else shown, rest[0]


def _packed(entry: os.DirEntry[str]) -> str:
    """Name in keys and kind, and the name itself where it is not text; sorts as the keys do."""
    name = entry.name
    if name.startswith("."):
        return "."
    if name.isascii() and entry.is_file(follow_symlinks=False):
        return f"{name}\0f"
    shown = _storable(name)
    odd = "" if shown == name else os.fsencode(name).hex()
    kind = "l" if entry.is_symlink() else "d" if entry.is_dir() else "f"
    return f"{shown}/\0{kind}{odd}" if kind == "d" else f"{shown}\0{kind}{odd}"


def _row(key: str, path: bytes | None, status: os.stat_result) -> _Row:
    reason, message = None, None
    if not stat.S_ISREG(status.st_mode):
        reason, message = LINKED_FOLDER if stat.S_ISDIR(status.st_mode) else NOT_A_FILE
    return key, path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, reason, message


def _table(rows: Sequence[_Row], *, before_ns: int) -> pa.Table:
    """Local files as a table; only those that were last changed before that time have a stamp."""
    columns = zip(*rows, strict=True) if rows else [()] * len(_LOCAL)
    local = dict(zip(_LOCAL.names, map(pa.array, columns, _LOCAL.types), strict=True))
    modified, changed = local["modified_ns"], local["changed_ns"]
    texts = [one.cast(pa.string()) for one in (local["size_bytes"], modified, changed)]
    is_settled = pc.and_(pc.less(modified, before_ns), pc.less(changed, before_ns))
    local["version"] = texts[1]
    local["stamp"] = pc.if_else(
        pc.and_(is_settled, pc.is_null(local["reason"])),
        pc.binary_join_element_wise(*texts, ":"),
        pa.scalar(None, pa.string()),
    )
    return pa.Table.from_arrays([local[name] for name in LISTING.names], schema=LISTING)


def _remote_walk(filesystem: Any, folder: str, *, prefix: str, before_s: float) -> Iterator[StoredFile]:
    found: dict[str, dict[str, Any]] = {}
    for info in patiently(partial(filesystem.ls, folder, detail=True)):
        path = info["name"].rstrip("/")
        name = path.removeprefix(f"{folder}/")
        if name and name != path and "/" not in name and not name.startswith("."):
            found[f"{name}/" if info["type"] == "directory" else name] = info
    filesystem.invalidate_cache(folder)
    for name, info in sorted(found.items()):
        path = info["name"].rstrip("/")
        if name.endswith("/"):
            yield from _remote_walk(filesystem, path, prefix=f"{prefix}{name}", before_s=before_s)
        else:
            yield _remote_file(info, key=f"{prefix}{name}", path=path, before_s=before_s)


def _remote_file(info: dict[str, Any], *, key: str, path: str, before_s: float) -> StoredFile:
    size, current = int(info["size"] or 0), version(info)
    is_certain = _is_tagged(info) or _changed_s(info) < before_s
    return StoredFile(_storable(key), path, size, current, stamp=f"{size}:{current}" if is_certain else None)


def _is_tagged(info: dict[str, Any]) -> bool:
    return any(info.get(name) is not None for name in TAG_FIELDS)


def _changed_s(info: dict[str, Any]) -> float:
    """When a remote file was changed, seconds since 1970; infinity where that is not told as a point in time."""
    value = next((info[name] for name in TIME_FIELDS if info.get(name) is not None), None)
    if isinstance(value, datetime):
        return value.timestamp()
    return float(value) if isinstance(value, int | float) else float("inf")


def _settled_ns() -> int:
    return time.time_ns() - int(SETTLED_S * 1e9)


def _is_hidden(key: str) -> bool:
    return any(part.startswith(".") for part in key.split("/"))


def _storable(key: str) -> str:
    # A file name need not be text; what is not is spelt out.
    return key.encode("utf-8", "backslashreplace").decode()
