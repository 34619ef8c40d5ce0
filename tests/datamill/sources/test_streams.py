"""Files of stores that fail while they are read, or give half."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from datamill.errors import DataError
from datamill.sources.stores import open_store
from datamill.sources.streams import remote_stream
from tests.datamill.shards.exchange.made import export
from tests.datamill.sources.drain import drain, drain_table

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been waited."""
    waited: list[float] = []
    monkeypatch.setattr("datamill.sources.retrying.time.sleep", waited.append)
    return waited


@pytest.fixture
def memory() -> Iterator[Any]:
    store = fsspec.filesystem("memory")
    store.pipe({"/streams/a": CONTENT, "/streams/empty": b""})
    yield store
    store.rm("/streams", recursive=True)


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Any]], None]:
    """From now on files open as these functions of their content say, one after the other, and then as they are."""
    real = MemoryFileSystem._open

    def become(answers: list[Any]) -> None:
        def _open(self: Any, path: str, mode: str = "rb", **words: Any) -> Any:
            content = real(self, path, mode, **words).read()
            return answers.pop(0)(content) if answers else io.BytesIO(content)

        monkeypatch.setattr(MemoryFileSystem, "_open", _open)

    return become


class Failing(io.BytesIO):
    """Fails after its first piece with an error that is none of the system's."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise RuntimeError("payload is not completed")
        return super().read(size)


def half(content: bytes) -> IO[bytes]:
    return io.BytesIO(content[: len(content) // 2])


def stream(memory: Any) -> IO[bytes]:
    return remote_stream(memory, "/streams/a", size_bytes=len(CONTENT))


def test_a_stream_gives_what_the_file_holds_from_anywhere(memory: Any) -> None:
    with stream(memory) as file:
        assert file.read() == CONTENT
        assert (file.seek(-3, io.SEEK_END), file.read(9)) == (len(CONTENT) - 3, b"\xfd\xfe\xff")
        assert (file.seek(700_000), file.read(2), file.tell()) == (700_000, CONTENT[700_000:700_002], 700_002)
    with remote_stream(memory, "/streams/empty", size_bytes=0) as file:
        assert file.read() == b""


@pytest.mark.parametrize("fault", [Failing, half])
def test_what_fails_once_is_read_from_where_it_failed(
    memory: Any, opening: Callable[[list[Any]], None], pauses: list[float], fault: Callable[[bytes], IO[bytes]]
) -> None:
    opening([fault])
    with stream(memory) as file:
        assert file.read() == CONTENT
    assert pauses == [0.5]


def test_what_goes_on_failing_is_an_error_of_the_system(
    memory: Any, opening: Callable[[list[Any]], None], pauses: list[float]
) -> None:
    opening([half] * 9)
    with stream(memory) as file, pytest.raises(OSError, match=r"the store gave 524288 of 1048576 bytes"):
        file.read()
    assert pauses == [0.5, 2.0, 8.0]
    opening([Failing] * 9)
    with stream(memory) as file, pytest.raises(OSError, match="RuntimeError: payload is not completed"):
        file.readlines()


def test_half_a_table_is_refused_even_if_it_ends_with_a_row(memory: Any, opening: Callable[[list[Any]], None]) -> None:
    memory.pipe({"/streams/t.csv": b"a,class\n" + b"1,x\n2,y\n" * 7})
    opening([lambda content: io.BytesIO(content[:40])] * 9)
    with pytest.raises(
        DataError, match=r"t\.csv cannot be read: the store gave 40 of 64 bytes; correct that, run again"
    ):
        drain_table("memory://streams/t.csv")


def test_half_a_file_of_records_is_refused_even_if_it_ends_with_one(
    memory: Any, opening: Callable[[list[Any]], None], tmp_path: Path
) -> None:
    content = (export(tmp_path, "tfrecord") / "train-000000.tfrecord").read_bytes()
    memory.pipe({"/streams/t.tfrecord": content})
    first = 16 + int.from_bytes(content[:8], "little")
    opening([lambda content: io.BytesIO(content[:first])] * 9)
    source = {"kind": "exchanged", "format": "tfrecord", "path": "memory://streams/t.tfrecord"}
    with pytest.raises(
        DataError, match=rf"t\.tfrecord cannot be read: the store gave {first} of {len(content)} bytes;"
    ):
        drain({**source, "image": None, "label": None, "class_names": None})


def test_a_store_that_cannot_open_a_file_is_told_in_one_line(memory: Any, opening: Callable[[list[Any]], None]) -> None:
    def broken(content: bytes) -> IO[bytes]:
        raise RuntimeError("no such bucket today")

    memory.pipe({"/streams/t.csv": b"a,class\n1,x\n"})
    opening([broken] * 9)
    store = open_store("memory://streams/t.csv")
    message = r"^t\.csv cannot be read: RuntimeError: no such bucket today; correct that, run again$"
    with pytest.raises(DataError, match=message), store.reading(store.files()[0]):
        pass
