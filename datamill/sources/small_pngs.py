"""Many small PNG images checked at once, so that Python's lock is free for most of that time.

The streams of their pixels are inflated by one call, as one file of many streams. That call proves of each that it is
whole and holds as much as the image's header says, because of what is put around it. A few random bytes come out
first, and the checksum at its end is the one of these bytes and of as many pixels as there must be, which follows from
the checksum in the image. A stream that ended early or late, or in two pieces, would need another one; one that looks
back beyond its own beginning would have to guess a random byte.
"""

import secrets
import zlib
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\0\0\0\0IEND\xaeB`\x82"
PLAIN_CHANNELS = {0: 1, 2: 3}  # by colour type: grey, and red, green and blue
LAST_FILTER = 4  # of those that a row of pixels may begin with
GROUP = 512  # images inflated by one call; where one of them is damaged, nothing is said of the others
MAX_BYTES = 2**14  # of an image's pixels; bounds memory
MAX_WINDOW = 2**15  # how far any stream may look back
SALT_BYTES = 16
STREAM = bytes([0x78, 0x01, 0, SALT_BYTES, 0, 0xFF ^ SALT_BYTES, 0xFF])  # begins one, and in it a block that is stored
ADLER = 65_521  # modulus of a stream's checksum
HEAD = np.dtype(
    [
        ("start", f"S{len(PNG_START)}"),
        ("width", ">u4"),
        ("height", ">u4"),
        ("depth", "u1"),
        ("colour", "u1"),
        ("methods", "u1", 3),
        ("checksum", ">u4"),
        ("length", ">u4"),
        ("chunk", "S4"),
        ("stream", ">u2"),
    ]
)
TAIL = np.dtype([("sums", ">u2", 2), ("checksum", ">u4"), ("end", f"S{len(PNG_END)}")])


def are_plain(payloads: pa.Array, *, max_pixels: int) -> NDArray[np.bool_]:
    """Which are PNGs of 8 bits with all their pixels in one chunk and nothing else, so that any decoder takes them.

    Of larger and other ones it says nothing, nor of sound ones beside one that is damaged.

    Args:
        payloads: Encoded images of any format, binary without null.
        max_pixels: Largest image (pixels).

    Returns:
        Shape ``(N,)``.
    """
    _, offsets, content = payloads.buffers()
    places = np.frombuffer(offsets, np.int32)[payloads.offset : payloads.offset + len(payloads) + 1].astype(np.int64)
    data = np.frombuffer(content if content is not None else b"", np.uint8)
    is_plain = np.zeros(len(payloads), bool)
    for start in range(0, len(payloads), GROUP):
        rows = start + np.flatnonzero(np.diff(places[start : start + GROUP + 1]) >= HEAD.itemsize + TAIL.itemsize)
        like, head, tail = _alike(data, places[rows], places[rows + 1], max_pixels)
        rows = rows[like]
        is_plain[rows] = _inflates(data, places[rows], places[rows + 1], head[like], tail[like])
    return is_plain


def _alike(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], max_pixels: int
) -> tuple[NDArray[np.bool_], NDArray[np.void], NDArray[np.void]]:
    """Which look like such images, as their first and last bytes say, and those."""
    head = data[starts[:, None] + np.arange(HEAD.itemsize)].view(HEAD)[:, 0]
    tail = data[ends[:, None] + np.arange(-TAIL.itemsize, 0)].view(TAIL)[:, 0]
    width, height = head["width"].astype(np.int64), head["height"].astype(np.int64)
    size, stream = _sizes(head), head["stream"].astype(np.int64)
    is_alike = (
        (head["start"] == PNG_START)
        & (head["chunk"] == b"IDAT")
        & (tail["end"] == PNG_END)
        & (head["length"] == ends - starts - HEAD.itemsize + 2 - TAIL.itemsize + 4)
        & (head["depth"] == 8)
        & np.isin(head["colour"], list(PLAIN_CHANNELS))
        & ~head["methods"].any(axis=1)
        & (np.minimum(width, height) > 0)
        & (np.maximum(width, height) <= MAX_BYTES)
        & (width * height <= max_pixels)
        & (size <= MAX_BYTES)
        & (stream % 31 == 0)
        & (stream & 0x8F20 == 0x0800)
        & (256 << (stream >> 12) >= np.minimum(size, MAX_WINDOW))
        & (tail["sums"] < ADLER).all(axis=1)
    )
    return is_alike, head, tail


def _inflates(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    head: NDArray[np.void],
    tail: NDArray[np.void],
) -> bool:
    """Whether checksums and streams of all these images are right, and the filters of their rows are known."""
    view = data.data
    spans = list(zip(starts.tolist(), ends.tolist(), strict=True))
    heads = [zlib.crc32(view[start + 12 : start + 29]) for start, _ in spans]
    chunks = [zlib.crc32(view[start + 37 : end - 16]) for start, end in spans]
    if heads != head["checksum"].tolist() or chunks != tail["checksum"].tolist():
        return False
    salt = secrets.token_bytes(SALT_BYTES)
    sizes = _sizes(head)
    sums = _sums(salt, tail["sums"].astype(np.int64), sizes=sizes)
    streams = (
        (STREAM, salt, view[start + 43 : end - 20], total) for (start, end), total in zip(spans, sums, strict=True)
    )
    inflated = _inflated(b"".join(chain.from_iterable(streams)), size=int(sizes.sum()) + SALT_BYTES * len(sizes))
    return inflated is not None and bool((inflated[_filters(head, sizes)] <= LAST_FILTER).all())


def _sizes(head: NDArray[np.void]) -> NDArray[np.int64]:
    """Bytes of the pixels of each, with a filter before each row."""
    return np.asarray(_row_bytes(head) * head["height"], np.int64)


def _row_bytes(head: NDArray[np.void]) -> NDArray[np.int64]:
    channels = np.where(head["colour"] == 0, PLAIN_CHANNELS[0], PLAIN_CHANNELS[2])
    return np.asarray(1 + head["width"].astype(np.int64) * channels)


def _sums(salt: bytes, sums: NDArray[np.int64], *, sizes: NDArray[np.int64]) -> list[bytes]:
    """Checksum of the salt and the pixels of each, given that of the pixels alone, shape ``(N, 2)``."""
    second, first = divmod(zlib.adler32(salt), 2**16)
    both = np.stack([sums[:, 0] + second + sizes * (first - 1), sums[:, 1] + first - 1], axis=1) % ADLER
    return [row.tobytes() for row in both.astype(">u2")]


def _inflated(streams: bytes, *, size: int) -> NDArray[np.uint8] | None:
    """What streams that follow one another hold, if they are sound and hold this much together."""
    try:
        with pa.CompressedInputStream(pa.BufferReader(streams), "gzip") as stream:  # it takes zlib's streams as well
            content = np.frombuffer(stream.read(size + 1), np.uint8)
    except OSError:
        return None
    return content if len(content) == size else None


def _filters(head: NDArray[np.void], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each row of pixels begins in what was inflated."""
    height = head["height"].astype(np.int64)
    ends = np.cumsum(height)
    begins = np.cumsum(sizes + SALT_BYTES) - sizes
    number = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - height, height)
    return np.asarray(np.repeat(begins, height) + number * np.repeat(_row_bytes(head), height))
