"""Opens a shard at an fsspec URL: its files are fetched into a local folder of bounded size, and verified on arrival.

Fields that are larger than the folder come block by block instead, while their rows are in use.

A file in the cache is named by its URL's folder and its content, so that the next version of a shard in the same place
fetches only the segments that changed.
"""

import errno
import functools
import hashlib
import os
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import fsspec
from filelock import FileLock

from datamill import files
from datamill.errors import DataError
from datamill.shards.index import INDEX, MAX_INDEX_BYTES, File, Index, parse_index
from datamill.shards.integrity import opened
from datamill.shards.native import Shard, open_files
from datamill.shards.streaming import Block, Budget, Stream

try:
    import fcntl
except ImportError:  # Windows: there, an open file cannot be deleted anyway
    fcntl = None  # type: ignore[assignment]

CACHE = Path("~/.cache/datamill/shards")
CACHE_BYTES = 64 * 2**30
ATTEMPTS = 4
WAIT_S = 0.5  # before the second attempt; doubles each time
DOWNLOADS = 8  # files or blocks at a time
KEPT = 0.25  # of the limit, for the small fields of a shard that is streamed
LOCK, PINS, SUFFIX = ".lock", "pins", ".bin"

T = TypeVar("T")


def open_remote(url: str, *, cache: Path | None = None, cache_bytes: int = CACHE_BYTES, verify: bool = False) -> Shard:
    """A shard at a URL, memory-mapped from the cache; files that are there already are not fetched again.

    A shard that the cache cannot hold is streamed: its small fields are kept there, blocks of the others come when rows
    of them are wanted, and go again. Each process that does so uses ``cache_bytes`` of its own.

    Args:
        url: Folder of one split, anything that fsspec opens: ``s3://``, ``gs://``, ``https://``, ``memory://``.
        cache: Folder that holds fetched files; by default one in the user's home.
        cache_bytes: Its limit. The files that were opened longest ago make room, but never those of an open shard.
        verify: Compare every block with its checksum, also of files that were fetched earlier.

    Raises:
        DataError: A file cannot be fetched whole after several attempts, or other open shards leave too little room.
    """
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DataError(f"{url} cannot be opened: {error}; install the fsspec package of this protocol") from error
    remote = _Remote(filesystem, root=root.rstrip("/"), url=url.rstrip("/"))
    index = remote.index()
    store = _Store((cache or CACHE).expanduser(), url=remote.url)
    large = _large_fields(index, limit_bytes=cache_bytes)
    kept = list(_files(index, without=large))
    pool = ThreadPoolExecutor(DOWNLOADS, "datamill-blocks")  # starts no thread before it is needed
    budget = Budget(cache_bytes - sum(one.size_bytes for one in kept), name=remote.url, pool=pool)
    with store.lock:
        pin = store.pin(index, kept)
        try:
            store.fetch(kept, remote=remote, block_bytes=index.block_bytes, limit_bytes=cache_bytes)
            streams = {name: _stream(index, name, store=store, remote=remote, budget=budget) for name in large}
            shard = open_files(index, folder=store.folder, locate=store.path, streams=streams, are_copies=True)
        except BaseException:
            os.close(pin)
            raise
    weakref.finalize(shard, os.close, pin)
    weakref.finalize(budget, pool.shutdown, wait=False)
    if verify:
        shard.verify()
    return shard


def _large_fields(index: Index, *, limit_bytes: int) -> list[str]:
    """Fields to stream: none where all fit, else those beyond a share of the limit, the smallest first."""
    if sum(entry.size_bytes for entry in index.files()) <= limit_bytes:
        return []
    sizes = {name: sum(one.data.size_bytes for one in segments) for name, segments in index.segments.items()}
    room, large = limit_bytes * KEPT, []
    for name in sorted(sizes, key=lambda name: (sizes[name], name)):
        if sizes[name] > room:
            large.append(name)
        else:
            room -= sizes[name]
    return large


def _files(index: Index, *, without: Sequence[str]) -> Iterator[File]:
    """Every file but the data of some fields."""
    for name, segments in index.segments.items():
        for segment in segments:
            if name not in without:
                yield segment.data
            if segment.offsets is not None:
                yield segment.offsets


def _stream(index: Index, name: str, *, store: "_Store", remote: "_Remote", budget: Budget) -> Stream:
    return Stream(
        [segment.data for segment in index.segments[name]],
        block_bytes=index.block_bytes,
        folder=store.folder,
        fetch=functools.partial(remote.block, block_bytes=index.block_bytes),
        budget=budget,
    )


@dataclass(frozen=True)
class _Remote:
    """A folder elsewhere; every failure but absence is tried again."""

    filesystem: Any
    root: str
    url: str

    def index(self) -> Index:
        """The index as it is now."""

        def attempt() -> Index:
            self.filesystem.invalidate_cache()  # sizes of the previous version
            with self.filesystem.open(f"{self.root}/{INDEX}", "rb") as stream:
                return parse_index(bytes(_read(stream, MAX_INDEX_BYTES)), where=f"{self.url}/{INDEX}")

        return self._persistently(attempt, name=INDEX, wanted="the index")

    def download(self, entry: File, *, target: Path, block_bytes: int) -> None:
        """Put one whole, verified file at ``target``, or nothing."""

        def attempt() -> None:
            with (
                files.atomic_write(target) as partial,
                self.filesystem.open(f"{self.root}/{entry.name}", "rb") as stream,
                partial.open("wb") as file,
            ):
                _copy(stream, file, entry=entry, block_bytes=block_bytes)

        self._persistently(attempt, name=entry.name, wanted=f"{entry.size_bytes} bytes")

    def block(self, entry: File, block: Block, *, block_bytes: int) -> bytes:
        """One block of a file, verified."""

        def attempt() -> bytes:
            stop = block.start + block.size_bytes
            content: bytes = self.filesystem.cat_file(f"{self.root}/{entry.name}", start=block.start, end=stop)
            _require_block(content, number=block.start // block_bytes, entry=entry, block_bytes=block_bytes)
            return content

        name = f"{entry.name} from byte {block.start}"
        return self._persistently(attempt, name=name, wanted=f"{block.size_bytes} bytes")

    def _persistently(self, attempt: Callable[[], T], *, name: str, wanted: str) -> T:
        for number in range(1, ATTEMPTS + 1):
            try:
                return attempt()
            except FileNotFoundError as error:
                raise DataError(f"{self.url}/{name} is missing; upload the shard again, whole") from error
            except Exception as error:  # every remote store raises errors of its own
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise  # here, not there
                if number == ATTEMPTS and isinstance(error, DataError):
                    raise
                if number == ATTEMPTS:
                    raise DataError(
                        f"{self.url}/{name}: {wanted} could not be fetched in {ATTEMPTS} attempts: "
                        f"{str(error) or type(error).__name__}; check the connection, or upload the shard again"
                    ) from error
                time.sleep(WAIT_S * 2 ** (number - 1))
        raise AssertionError


class _Store:
    """Fetched files by content, and pins that say which of them an open shard needs."""

    def __init__(self, folder: Path, *, url: str) -> None:
        self.folder = folder
        self._url = url
        (folder / PINS).mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(folder / LOCK)

    def path(self, entry: File) -> Path:
        """Where the file lies once it is here."""
        content = repr((self._url, entry.size_bytes, entry.crc32, entry.probe)).encode()
        return self.folder / (hashlib.blake2b(content, digest_size=16).hexdigest() + SUFFIX)

    def pin(self, index: Index, kept: Sequence[File]) -> int:
        """A descriptor; until it is closed, or this process ends, no file of this shard is evicted."""
        path = (
            self.folder / PINS / hashlib.blake2b((self._url + index.fingerprint).encode(), digest_size=16).hexdigest()
        )
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        names = "\n".join(sorted({self.path(entry).name for entry in kept}))
        path.write_text(names, encoding="utf-8")
        return descriptor

    def fetch(self, entries: Sequence[File], *, remote: _Remote, block_bytes: int, limit_bytes: int) -> None:
        """Have some files, within the limit; the lock must be held."""
        wanted = {self.path(entry): entry for entry in entries}
        missing = {path: entry for path, entry in wanted.items() if not _is_here(path, entry=entry)}
        for path in wanted.keys() - missing.keys():
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))  # the time of reading alone
        self._make_room(sum(entry.size_bytes for entry in missing.values()), limit_bytes=limit_bytes)
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            jobs = [
                pool.submit(remote.download, entry, target=path, block_bytes=block_bytes)
                for path, entry in missing.items()
            ]
            try:
                for job in jobs:
                    job.result()
            finally:
                for job in jobs:
                    job.cancel()

    def _make_room(self, needed_bytes: int, *, limit_bytes: int) -> None:
        for partial in self.folder.glob(files.PARTIAL + "*"):
            files.remove(partial)
        pinned = {name for names in self._pins() for name in names}
        status = {path: path.stat() for path in self.folder.glob(f"*{SUFFIX}")}
        excess = sum(one.st_size for one in status.values()) + needed_bytes - limit_bytes
        for path in sorted(status, key=lambda path: status[path].st_atime_ns):
            if excess <= 0:
                return
            if path.name not in pinned:
                path.unlink()
                excess -= status[path].st_size
        if excess > 0:
            raise DataError(
                f"{self._url}: its files and those of other open shards need {limit_bytes + excess} bytes, the cache "
                f"{self.folder} may hold {limit_bytes}; raise cache_bytes"
            )

    def _pins(self) -> Iterator[list[str]]:
        """Files of every shard that is open somewhere; pins of others are deleted."""
        for path in (self.folder / PINS).iterdir():
            with path.open("rb") as file:
                if _is_held(file):
                    yield file.read().decode().split("\n")
                else:
                    path.unlink()


def _is_here(path: Path, *, entry: File) -> bool:
    """Whether a file is in the cache; one that was cut or altered there is deleted, and counts as absent."""
    if not path.exists():
        return False
    try:
        with opened(path, entry=entry):
            return True
    except DataError:
        files.remove(path)
        return False


def _is_held(file: IO[bytes]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _copy(stream: IO[bytes], file: IO[bytes], *, entry: File, block_bytes: int) -> None:
    """Copy block by block, each compared with its checksum."""
    for number in range(len(entry.crc32)):
        block = _read(stream, min(block_bytes, entry.size_bytes - number * block_bytes))
        _require_block(block, number=number, entry=entry, block_bytes=block_bytes)
        file.write(block)
    if stream.read(1):
        raise ValueError(f"it has more than the {entry.size_bytes} bytes that the index says")


def _require_block(block: bytes | bytearray, *, number: int, entry: File, block_bytes: int) -> None:
    """Pass when a block came as it was written."""
    start = number * block_bytes
    if len(block) != min(block_bytes, entry.size_bytes - start):
        raise EOFError(f"only {start + len(block)} of {entry.size_bytes} bytes came")
    found, expected = zlib.crc32(block), entry.crc32[number]
    if found != expected:
        raise ValueError(f"block {number} came with CRC-32 {found:08x}, the index says {expected:08x}")


def _read(stream: IO[bytes], count: int) -> bytearray:
    """The next ``count`` bytes, fewer at the end; one call of a remote stream may give fewer."""
    block = bytearray()
    while len(block) < count and (piece := stream.read(count - len(block))):
        block += piece
    return block
