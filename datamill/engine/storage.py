"""Files that travel to workers elsewhere, each stored under the hash of its content."""

import contextlib
import hashlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datamill import files
from datamill.errors import DataError, StageError

BLOCK_BYTES = 2**20
SHARED = "shared"  # folder of the storage


def put(path: Path, *, storage: str) -> str:
    """URL of the copy of ``path`` at ``<storage>/shared/<SHA-256>``, uploaded unless it is there.

    Raises:
        StageError: The storage cannot be reached or written.
    """
    with _reaching(storage):
        filesystem, root = _open(storage)
        place = f"{root.rstrip('/')}/{SHARED}/{files.sha256_file(path)}"
        if not filesystem.exists(place) or filesystem.size(place) != path.stat().st_size:
            _upload(path, place, filesystem=filesystem)
        return str(filesystem.unstrip_protocol(place))


def fetch(url: str, folder: Path) -> Path:
    """A local path of a shared file: itself where the file system is shared, else a checked copy in ``folder``.

    The copy is downloaded in blocks, once per folder. The folder is the caller's, and how long it lives bounds what
    stays on the worker's disk.

    Raises:
        StageError: The storage cannot be read.
        DataError: The bytes are not those that were shared.
    """
    if "://" not in url:
        return Path(url)
    copy = folder / _digest(url)
    if not copy.is_file() or files.sha256_file(copy) != copy.name:
        partial = folder / f"{files.PARTIAL}{uuid.uuid4().hex}"  # other workers may fetch the same
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _download(url, partial)
            partial.replace(copy)
        finally:
            files.remove(partial)
    return copy


def _upload(path: Path, place: str, *, filesystem: Any) -> None:
    from fsspec.implementations.local import LocalFileSystem

    if not isinstance(filesystem, LocalFileSystem):  # object stores show an object once it is whole
        filesystem.put_file(str(path), place)
        return
    partial = Path(place).with_name(f"{files.PARTIAL}{uuid.uuid4().hex}")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(path, partial)
        partial.replace(place)
    finally:
        files.remove(partial)


def _download(url: str, path: Path) -> None:
    total = hashlib.sha256()
    with _reaching(url):
        filesystem, place = _open(url)
        with filesystem.open(place, "rb") as source, path.open("wb") as target:
            while block := source.read(BLOCK_BYTES):
                total.update(block)
                target.write(block)
    if total.hexdigest() != _digest(url):
        raise DataError(f"{url} holds other bytes than its name says; remove it there and run the stage again")


def _digest(url: str) -> str:
    return url.rpartition("/")[2]


def _open(url: str) -> tuple[Any, str]:
    import fsspec

    filesystem, place = fsspec.core.url_to_fs(url)
    return filesystem, str(place)


@contextlib.contextmanager
def _reaching(url: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise StageError(f"{url}: {error}; install the fsspec package of this protocol, here and in workers") from error
    except Exception as error:  # each store has errors of its own
        raise StageError(f"{url}: {type(error).__name__}: {error}; check DATAMILL_STORAGE and its access") from error
