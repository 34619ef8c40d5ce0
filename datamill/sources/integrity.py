"""Whether the bytes of an image file are all there and can be decoded.

Decoders disagree about damage: some return the part of a picture that arrived, filled with grey. So the end of the file
is looked for in the file's own structure before a decoder sees it.
"""

import re
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pyarrow as pa

from datamill.errors import DataError
from datamill.modalities import image
from datamill.sources.small_pngs import LAST_FILTER, PLAIN_CHANNELS, PNG_END, PNG_START, are_plain

Fault = tuple[str, str]  # reason code, message

PNG_MAGIC = PNG_START[:8]
PLAIN_SIDE = 2**15  # px; any decoder takes images up to here
JPEG_MAGIC = b"\xff\xd8\xff"
BMP_HEADER_BYTES = {12, 40, 52, 56, 64, 108, 124}  # sizes of the second header, by version of the format
BMP_UNCOMPRESSED = {0, 3, 6}  # plain pixels, or plain pixels with channel masks
# Grey, at an eighth of its size, all of a JPEG is read and refused for the same faults, in half of the time.
SMALL_JPEG = cv2.IMREAD_REDUCED_GRAYSCALE_8
JPEG_END = 0xD9
JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # 00 escapes a byte of pixels, D0 to D7 restart inside them


def find_faults(payloads: pa.Array, *, max_pixels: int) -> dict[int, Fault]:
    """``find_fault`` of many encoded images, binary without null: the faults of those that have one, by place."""
    rows = np.flatnonzero(~are_plain(payloads, max_pixels=max_pixels))
    found = ((row, find_fault(payloads[row].as_py(), max_pixels=max_pixels)) for row in rows.tolist())
    return {row: fault for row, fault in found if fault is not None}


def find_fault(payload: bytes, *, max_pixels: int) -> Fault | None:
    """Why ``payload`` cannot become a sample, or ``None`` if it is a whole image that decodes.

    Reasons: ``zero_byte``, ``not_an_image`` (none of ``image.FORMATS``, whatever the file is called), ``truncated``,
    ``too_large`` (more than ``max_pixels``; found before decoding), ``unreadable`` (damaged).
    """
    if not payload:
        return "zero_byte", "the file is empty"
    if _is_plain_png(payload, max_pixels=max_pixels):
        return None
    find_end = _structure(payload)
    if find_end is None:
        return "not_an_image", f"no {', '.join(image.FORMATS)} image: the first bytes are {payload[:8]!r}"
    try:
        fault = find_end(payload)
    except struct.error:
        return "truncated", f"the file ends after {len(payload)} bytes, inside its header"
    return fault or _decoding_fault(payload, max_pixels=max_pixels)


def _is_plain_png(payload: bytes, *, max_pixels: int) -> bool:
    """Whether it is a PNG of 8 bits with all its pixels and nothing else, so that every decoder takes it.

    To see that takes half the time of decoding. Of other files it says nothing.
    """
    if not payload.startswith(PNG_START) or not payload.endswith(PNG_END) or len(payload) < 57:
        return False
    width, height, depth, colour, *rest, crc = struct.unpack_from(">IIBBBBBI", payload, 16)
    channels = PLAIN_CHANNELS.get(colour)
    if channels is None or depth != 8 or rest != [0, 0, 0] or zlib.crc32(payload[12:29]) != crc:
        return False
    if not 0 < width <= PLAIN_SIDE or not 0 < height <= PLAIN_SIDE or width * height > max_pixels:
        return False
    row_bytes = 1 + width * channels
    pixels = _inflated(_pixel_chunks(payload), size=height * row_bytes)
    return pixels is not None and max(pixels[::row_bytes]) <= LAST_FILTER


def _pixel_chunks(payload: bytes) -> bytes:
    """What the chunks between the header and the end hold, if they are chunks of pixels with their checksums."""
    start, stop = 33, len(payload) - len(PNG_END)
    pieces = []
    while start < stop:
        length, name = struct.unpack_from(">I4s", payload, start)
        end = start + 8 + length
        if name != b"IDAT" or not length or end + 4 > stop:
            return b""
        if zlib.crc32(payload[start + 4 : end]) != struct.unpack_from(">I", payload, end)[0]:
            return b""
        pieces.append(payload[start + 8 : end])
        start = end + 4
    return b"".join(pieces)


def _inflated(deflated: bytes, *, size: int) -> bytes | None:
    """What a stream holds, if it is whole, of this size, and looks back no further than decoders need allow."""
    if not deflated or 256 << (deflated[0] >> 4) < min(size, 2**15):
        return None
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(deflated, size + 1)
    except zlib.error:
        return None
    return content if inflater.eof and not inflater.unused_data and len(content) == size else None


def _decoding_fault(payload: bytes, *, max_pixels: int) -> Fault | None:
    try:
        header = image.read_header(payload, max_pixels=max_pixels)
    except DataError as error:
        return "too_large" if error.__cause__ is None else "unreadable", str(error)
    flags = SMALL_JPEG if header.format == "JPEG" else None
    try:
        image.decode_blue_first(payload, header=header, flags=flags)
    except (DataError, cv2.error) as error:
        return "unreadable", str(error)
    return None


def _structure(payload: bytes) -> Callable[[bytes], Fault | None] | None:
    if payload.startswith(PNG_MAGIC):
        return _png_fault
    if payload.startswith(JPEG_MAGIC):
        return _jpeg_fault
    if payload.startswith(b"BM") and (len(payload) < 18 or _uint32(payload, 14) in BMP_HEADER_BYTES):
        return _bmp_fault
    if payload.startswith(b"RIFF") and payload[8:12] == b"WEBP":
        return _webp_fault
    return None


def _png_fault(payload: bytes) -> Fault | None:
    """Walk the chunks to the last one, ``IEND``; a critical chunk must have its checksum."""
    start = len(PNG_MAGIC)
    while True:
        length, name = struct.unpack_from(">I4s", payload, start)
        body_end = start + 8 + length
        if body_end + 4 > len(payload):
            return _too_short(payload, body_end + 4)
        is_critical = name[:1].isupper()
        if is_critical and zlib.crc32(payload[start + 4 : body_end]) != struct.unpack_from(">I", payload, body_end)[0]:
            return "unreadable", f"damaged PNG: chunk {name!r} at byte {start} does not match its checksum"
        if name == b"IEND":
            return None
        start = body_end + 4


def _jpeg_fault(payload: bytes) -> Fault | None:
    """Go from marker to marker, over thumbnails and comments, to the end-of-image marker."""
    start = 2
    while (found := JPEG_MARKER.search(payload, start)) is not None:
        marker = found[1][0]
        if marker == JPEG_END:
            return None
        start = found.end() + struct.unpack_from(">H", payload, found.end())[0]
    return "truncated", f"the JPEG's {len(payload)} bytes hold no end-of-image marker"


def _bmp_fault(payload: bytes) -> Fault | None:
    """Compare the size of an uncompressed picture with the bytes that follow its headers."""
    offset, header_bytes = _uint32(payload, 10), _uint32(payload, 14)
    if header_bytes == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", payload, 18)
        compression = 0
    else:
        width, height, _, depth, compression = struct.unpack_from("<iiHHI", payload, 18)
    expected = offset + (abs(width) * depth + 31) // 32 * 4 * abs(height)
    return _too_short(payload, expected) if compression in BMP_UNCOMPRESSED and expected > len(payload) else None


def _webp_fault(payload: bytes) -> Fault | None:
    expected = _uint32(payload, 4) + 8
    return _too_short(payload, expected) if expected > len(payload) else None


def _too_short(payload: bytes, expected: int) -> Fault:
    return "truncated", f"the file has {len(payload)} bytes and needs at least {expected}"


def _uint32(payload: bytes, start: int) -> int:
    return int(struct.unpack_from("<I", payload, start)[0])
