"""Members of a tar file that nobody vouches for, read in a stream and never extracted.

Python's ``tarfile`` follows sizes, links and extended headers that a hostile file may set as it likes; this reader
knows plain files and the headers that only lengthen a name or a size, and says of everything else what it is.

Source: IEEE Std 1003.1-2017, "pax", and the GNU tar manual, "Basic Tar Format".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from datamill.errors import DataError
from datamill.shards.exchange.records import printable, read_up_to, skip

BLOCK_BYTES = 512
MAX_EXTENSION_BYTES = 2**16  # of the extended headers of a member, which hold little more than a name
PLAIN = {b"0", b"\0", b"7"}
FOLDER = b"5"
WITHOUT_CONTENT = {b"1", b"2", b"3", b"4", b"5", b"6"}  # links, devices, folders and pipes
KINDS = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
OLD_SPARSE = b"S"  # followed by maps of its own
LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL = b"L", b"K", b"x", b"g"
EXTENSIONS = {LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL}


@dataclass
class Member:
    """An entry of a tar file; its content can be read until the next one is asked for.

    Attributes:
        name: As the file spells it; not to be trusted.
        size_bytes: Of its content.
        is_folder: Whether it is a folder.
        fault: What it is instead of a plain file or a folder, or ``None``.
    """

    name: str
    size_bytes: int
    is_folder: bool
    fault: str | None
    _stream: IO[bytes]
    num_read: int = 0

    def read(self) -> bytes:
        """The content; fewer than ``size_bytes`` bytes where the file ends."""
        content = read_up_to(self._stream, self.size_bytes - self.num_read)
        self.num_read += len(content)
        return content


def members(stream: IO[bytes], *, name: str) -> Iterator[Member]:
    """Every entry in order; extended headers are applied to the entry they belong to.

    Raises:
        DataError: The file is cut, a header does not match its checksum, or something follows the end.
    """
    start = num_extended = 0
    extended: dict[str, str] = {}
    while any(header := _read(stream, BLOCK_BYTES, name=name, start=start)):
        _check(header, name=name, start=start)
        kind, size = header[156:157], _number(header[124:136], name=name, start=start)
        if kind in EXTENSIONS:
            num_extended += size
            if num_extended > MAX_EXTENSION_BYTES:
                raise DataError(
                    f"{name}: the extended header at byte {start} claims {size} bytes, and all of a member have "
                    f"{MAX_EXTENSION_BYTES} at most; get the file again"
                )
            content = _read(stream, _padded(size), name=name, start=start)[:size]
            extended |= _extension(kind, content, name=name, start=start)
            start += BLOCK_BYTES + _padded(size)
            continue
        member = _member(header, kind=kind, size=size, extended=extended, stream=stream, place=f"{name}: byte {start}")
        extended, num_extended = {}, 0
        yield member
        left = _padded(member.size_bytes) - member.num_read
        if skip(stream, left) < left:
            raise _cut(name, start=start)
        start += BLOCK_BYTES + _padded(member.size_bytes)
    while piece := stream.read(BLOCK_BYTES * 128):
        if any(piece):
            raise DataError(
                f"{name}: data follows the end at byte {start}; unpack files that were joined, or get it again"
            )


def _member(
    header: bytes, *, kind: bytes, size: int, extended: dict[str, str], stream: IO[bytes], place: str
) -> Member:
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and (prefix := _text(header[345:500])):
        name = f"{prefix}/{name}"
    if kind == OLD_SPARSE:
        raise DataError(f"{place} holds a sparse file, which cannot be followed; pack it again without --sparse")
    if "size" in extended:
        size = _size(extended["size"], place=place)
    is_sparse = any(key.startswith("GNU.sparse.") for key in extended)
    is_plain = kind in PLAIN and not is_sparse
    return Member(
        name=extended.get("path", name),
        size_bytes=0 if kind in WITHOUT_CONTENT else size,
        is_folder=kind == FOLDER,
        fault=None
        if is_plain or kind == FOLDER
        else "a sparse file"
        if is_sparse
        else KINDS.get(kind, "no plain file"),
        _stream=stream,
    )


def _extension(kind: bytes, content: bytes, *, name: str, start: int) -> dict[str, str]:
    if kind == LONG_NAME:
        return {"path": _text(content)}
    return _pax(content, place=f"{name}: byte {start}") if kind == PAX else {}


def _pax(content: bytes, *, place: str) -> dict[str, str]:
    """Records ``<length> <key>=<value>`` and a newline."""
    found: dict[str, str] = {}
    while content:
        digits, _, rest = content[:12].partition(b" ")
        length = int(digits) if digits.isdigit() and rest else 0
        key, is_pair, value = content[len(digits) + 1 : max(0, length - 1)].partition(b"=")
        if not is_pair or content[length - 1 : length] != b"\n":
            raise DataError(f"{place} holds a damaged extended header; get the file again")
        found[_text(key)] = value.decode("utf-8", "backslashreplace")
        content = content[length:]
    return found


def _check(header: bytes, *, name: str, start: int) -> None:
    found = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if _number(header[148:156], name=name, start=start) != found:
        raise DataError(f"{name}: the header at byte {start} does not match its checksum; get the file again")


def _number(field: bytes, *, name: str, start: int) -> int:
    """Octal digits, or a big-endian number after a byte of 0x80 (GNU, for 8 GiB and more)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    try:
        number = int(digits or b"0", 8)
    except ValueError:
        number = -1
    if number < 0:
        raise DataError(f"{name}: the header at byte {start} holds the number {field!r}; get the file again")
    return number


def _size(text: str, *, place: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise DataError(f"{place} gives the size {printable(text)[:40]!r}; get the file again")
    return int(text)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _read(stream: IO[bytes], count: int, *, name: str, start: int) -> bytes:
    content = read_up_to(stream, count)
    if len(content) < count:
        raise _cut(name, start=start)
    return content


def _cut(name: str, *, start: int) -> DataError:
    return DataError(f"{name} is truncated: it ends within the entry at byte {start}; get the file again")
