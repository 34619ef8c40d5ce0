"""Headers of tar files that lie."""

import io
import tarfile
import tracemalloc

import pytest

from datamill.errors import DataError
from datamill.shards.exchange import tar

BODY = b"content" * 100


def header(name: str = "a.png", *, kind: bytes = b"0", size: bytes | None = None, num_bytes: int = len(BODY)) -> bytes:
    """A header with any field for the size and a checksum that fits."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, num_bytes
    block = bytearray(member.tobuf(tarfile.USTAR_FORMAT)[:512])
    if size is not None:
        block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def names(content: bytes) -> list[str]:
    return [member.name for member in tar.members(io.BytesIO(content), name="f")]


WHOLE = header() + padded(BODY) + bytes(1024)


def test_content_is_read_while_its_member_is_current() -> None:
    members = tar.members(io.BytesIO(WHOLE), name="f")
    assert next(members).read() == BODY


def test_sizes_beyond_octal_digits_are_understood() -> None:
    big = header(size=b"\x80" + len(BODY).to_bytes(11, "big"))
    assert names(big + padded(BODY) + bytes(512)) == ["a.png"]


def test_extended_headers_rename_and_resize_the_next_member_only() -> None:
    record = b"16 path=x/b.png\n" + b"12 size=700\n"
    extended = header(kind=b"x", num_bytes=len(record)) + padded(record)
    second = header("c.png", num_bytes=0)
    assert names(extended + header(size=b"00000000001\0") + padded(BODY) + second + bytes(512)) == ["x/b.png", "c.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (WHOLE[:-1024], "f is truncated: it ends within the entry at byte 1536"),
        (WHOLE[:700], "f is truncated: it ends within the entry at byte 0"),
        (WHOLE[:100], "f is truncated"),
        (b"b" + WHOLE[1:], "the header at byte 0 does not match its checksum"),
        (WHOLE + WHOLE, "data follows the end at byte 1536"),
        (header(size=b"-0000000700\0"), "the header at byte 0 holds the number"),
        (header(size=b"nonsense!!!\0"), "the header at byte 0 holds the number"),
        (header(size=b"\x80" + b"\xff" * 11), "f is truncated"),
        (header(size=b"77777777777\0"), "f is truncated"),
        (header(kind=b"x", size=b"77777777777\0"), "the extended header at byte 0 claims 8589934591 bytes"),
        (header(kind=b"L", size=b"77777777777\0"), "the extended header at byte 0 claims 8589934591 bytes"),
        (header(kind=b"x", num_bytes=12) + padded(b"99 size=700\n"), "a damaged extended header"),
        (header(kind=b"x", num_bytes=12) + padded(b"x\0 size=700\n"), "a damaged extended header"),
        (header(kind=b"x", num_bytes=11) + padded(b"11 size=-1\n") + WHOLE, "gives the size '-1'"),
        (header(kind=b"S") + padded(BODY), "holds a sparse file, which cannot be followed"),
    ],
)
def test_what_cannot_be_trusted_is_refused_with_its_place(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        names(content)


def test_a_claimed_size_takes_no_memory() -> None:
    tracemalloc.start()
    member = next(tar.members(io.BytesIO(header(size=b"77777777777\0") + BODY), name="f"))
    assert (member.size_bytes, member.read()) == (8589934591, BODY)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_extended_headers_of_one_member_are_bounded_together() -> None:
    record = b"32768 comment=" + b"x" * (32768 - 15) + b"\n"
    one = header(kind=b"x", num_bytes=len(record)) + padded(record)
    assert names(one * 2 + WHOLE) == ["a.png"]
    with pytest.raises(
        DataError, match="the extended header at byte 66560 claims 32768 bytes, and all of a member have"
    ):
        names(one * 3 + WHOLE)
    assert names((one + header(num_bytes=0)) * 3 + bytes(512)) == ["a.png"] * 3
