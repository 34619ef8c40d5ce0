"""A file of a remote store as a stream that gives all of its bytes or says that it cannot."""

import contextlib
import io
from collections.abc import Callable
from functools import partial
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

from datamill.sources.retrying import FINAL, patiently

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER_BYTES = 2**18

T = TypeVar("T")


def remote_stream(filesystem: Any, path: str, *, size_bytes: int) -> IO[bytes]:
    """The first ``size_bytes`` of a file; what failed is tried again, and an end that comes too early is a failure.

    Without this a table or a file of records that a store gives half of would be one of half as many rows. A file of
    no bytes is one whose size the store does not say, and comes as the store gives it.

    Raises:
        OSError: The file cannot be opened.
    """
    if not size_bytes:
        return cast("IO[bytes]", _patiently(partial(filesystem.open, path, "rb")))
    return cast("IO[bytes]", io.BufferedReader(_Remote(filesystem, path, size_bytes=size_bytes), BUFFER_BYTES))


def _patiently(action: Callable[[], T]) -> T:
    """What ``action`` gives after some attempts; an error of any other kind comes as an ``OSError``."""
    try:
        return patiently(action)
    except OSError:
        raise
    except Exception as error:  # every store raises errors of its own
        raise OSError(f"{type(error).__name__}: {error}") from error


class _Remote(io.RawIOBase):
    """The bytes as the store gives them; an attempt after a failure opens the file anew."""

    def __init__(self, filesystem: Any, path: str, *, size_bytes: int) -> None:
        self._filesystem = filesystem
        self._path = path
        self._size_bytes = size_bytes
        self._position = 0
        self._file = _patiently(partial(filesystem.open, path, "rb"))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._size_bytes - self._position)
        if wanted <= 0:
            return 0
        content = _patiently(partial(self._read, wanted))
        view[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._file.close()
        super().close()

    def _read(self, count: int) -> bytes:
        """At least one byte."""
        try:
            if self._file.closed:
                self._file = self._filesystem.open(self._path, "rb")
            if self._file.tell() != self._position:
                self._file.seek(self._position)
            content = bytes(self._file.read(count))
        except FINAL:
            raise
        except Exception:
            self._file.close()
            raise
        if not content:
            self._file.close()
            raise OSError(f"the store gave {self._position} of {self._size_bytes} bytes")
        return content
