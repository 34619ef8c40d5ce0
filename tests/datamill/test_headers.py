"""Headers of ordinary images, read without Pillow."""

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

from datamill.errors import DataError
from datamill.modalities import image
from datamill.modalities.headers import Found, find_header

PIXELS = cv2.resize(np.random.default_rng(0).integers(0, 255, (5, 5, 3), dtype=np.uint8), (30, 20))


def saved(mode: str, form: str, **fields: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(stream, form, **fields)
    return stream.getvalue()


ORDINARY = {
    "grey.png": (cv2.imencode(".png", PIXELS[..., 0])[1].tobytes(), Found("PNG", 20, 30, 1)),
    "colour.png": (cv2.imencode(".png", PIXELS)[1].tobytes(), Found("PNG", 20, 30, 3)),
    "deep.png": (cv2.imencode(".png", PIXELS[..., 0].astype(np.uint16) * 257)[1].tobytes(), Found("PNG", 20, 30, 1)),
    "palette.png": (saved("P", "PNG", dpi=(72, 72)), Found("PNG", 20, 30, 3)),
    "bits.png": (saved("1", "PNG"), Found("PNG", 20, 30, 1)),
    "grey.jpg": (cv2.imencode(".jpg", PIXELS[..., 0])[1].tobytes(), Found("JPEG", 20, 30, 1)),
    "colour.jpg": (saved("RGB", "JPEG", comment=b"hello"), Found("JPEG", 20, 30, 3)),
    "progressive.jpg": (saved("RGB", "JPEG", progressive=True), Found("JPEG", 20, 30, 3)),
}
ODD = {
    "text.png": saved("RGB", "PNG", icc_profile=b"profile"),
    "four.jpg": saved("CMYK", "JPEG"),
    "exif.jpg": saved("RGB", "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
    "x.bmp": saved("RGB", "BMP"),
    "x.webp": saved("RGB", "WEBP"),
}
PAYLOADS = [*(payload for payload, _ in ORDINARY.values()), *ODD.values()]


def pillow(payload: bytes) -> tuple[object, ...] | None:
    try:
        with Image.open(io.BytesIO(payload), formats=image.FORMATS) as opened:
            width, height = opened.size
            return opened.format, height, width, 1 if opened.mode in {"1", "L", "I;16", "I"} else 3
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_headers_are_read_at_once(name: str) -> None:
    payload, expected = ORDINARY[name]
    assert find_header(payload) == expected


@pytest.mark.parametrize("name", ODD)
def test_odd_headers_are_left_to_pillow(name: str) -> None:
    assert find_header(ODD[name]) is None
    assert image.read_header(ODD[name]).height == 20


@given(
    payload=st.sampled_from(PAYLOADS),
    edits=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=3),
    cut=st.integers(0, 400),
    mended=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_whatever_is_read_is_what_pillow_reads(
    payload: bytes, edits: list[tuple[int, int]], cut: int, mended: bool
) -> None:
    damaged = bytearray(payload)
    for place, value in edits:
        damaged[place % len(damaged)] = value
    whole = mend(bytes(damaged)) if mended else bytes(damaged[: max(1, len(damaged) - cut)])
    found = find_header(whole)
    assert found is None or found.height * found.width > image.MAX_PIXELS or found == pillow(whole)


def mend(payload: bytes) -> bytes:
    """A PNG with right checksums, so that an edit is not found by them."""
    if not payload.startswith(b"\x89PNG\r\n\x1a\n"):
        return payload
    mended, start = payload[:8], 8
    while start + 8 <= len(payload):
        end = start + 8 + struct.unpack_from(">I", payload, start)[0]
        mended += payload[start:end] + struct.pack(">I", zlib.crc32(payload[start + 4 : end]))
        start = end + 4
    return mended


@pytest.mark.parametrize("pixels", [65_000_000, 120_000_000, 4_000_000_000])
def test_very_many_pixels_are_refused_without_a_warning(pixels: int) -> None:
    bmp = bytearray(ODD["x.bmp"])
    struct.pack_into("<ii", bmp, 18, pixels // 20_000, 20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match="is more than the limit of 64000000 px"):
            image.read_header(bytes(bmp))


def test_what_follows_the_first_chunk_does_not_matter_but_its_own_checksum_does() -> None:
    payload, expected = ORDINARY["grey.png"]
    assert find_header(payload[:33] + b"\xff\xff\xff\xffIDAT") == expected  # a length that no file has
    for place in (8, 16, 23, 24, 32):
        bent = bytearray(payload)
        bent[place] ^= 1
        assert find_header(bytes(bent)) is None
    assert find_header(payload) == expected
