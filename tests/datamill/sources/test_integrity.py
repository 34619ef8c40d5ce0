"""Which bytes are a whole image."""

import struct
import zlib
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.sources import integrity, small_pngs
from datamill.sources.integrity import find_fault

PIXELS = cv2.resize(np.random.default_rng(0).integers(0, 255, (6, 6, 3), dtype=np.uint8), (40, 30))
JPEG_FLAGS = (
    cv2.IMWRITE_JPEG_QUALITY,
    cv2.IMWRITE_JPEG_PROGRESSIVE,
    cv2.IMWRITE_JPEG_RST_INTERVAL,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
)
SAMPLING = (0x411111, 0x221111, 0x211111, 0x121111, 0x111111)  # of grey and the two colours
PAYLOADS = {
    "png": cv2.imencode(".png", PIXELS)[1].tobytes(),
    "jpeg": cv2.imencode(".jpg", PIXELS)[1].tobytes(),
    "progressive": cv2.imencode(".jpg", PIXELS, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(),
    "bmp": cv2.imencode(".bmp", PIXELS)[1].tobytes(),
    "webp": cv2.imencode(".webp", PIXELS)[1].tobytes(),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_whole_image_has_no_fault(name: str) -> None:
    assert find_fault(PAYLOADS[name], max_pixels=1200) is None


@pytest.mark.parametrize("name", PAYLOADS)
def test_bytes_after_the_end_are_no_fault(name: str) -> None:
    assert find_fault(PAYLOADS[name] + b"\0" * 7, max_pixels=1200) is None


@pytest.mark.parametrize("name", PAYLOADS)
@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=60, deadline=None)
def test_an_image_cut_anywhere_is_refused(name: str, share: float) -> None:
    payload = PAYLOADS[name]
    fault = find_fault(payload[: int(share * len(payload))], max_pixels=1200)
    assert fault is not None
    assert fault[0] in {"truncated", "zero_byte", "not_an_image"}
    if share > 0.1:
        assert fault[0] == "truncated"


@given(payload=st.binary(max_size=60), magic=st.sampled_from([b"", *(payload[:30] for payload in PAYLOADS.values())]))
@settings(max_examples=200, deadline=None)
def test_no_bytes_raise(payload: bytes, magic: bytes) -> None:
    assert find_fault(magic + payload, max_pixels=1200) is not None


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG with its checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def plain_png(
    *, header: tuple[int, ...] = (5, 3, 8, 0, 0, 0, 0), rows: bytes, window: int = 15, cuts: tuple[int, ...] = ()
) -> bytes:
    """A PNG of these rows, each with its filter, whose stream is cut into chunks at these places."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, window)
    stream = deflater.compress(rows) + deflater.flush()
    places = [0, *sorted(cut % len(stream) for cut in cuts), len(stream)]
    pixels = b"".join(chunk(b"IDAT", stream[start:stop]) for start, stop in pairwise(places))
    return integrity.PNG_MAGIC + chunk(b"IHDR", struct.pack(">IIBBBBB", *header)) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3)])
def test_a_plain_png_needs_no_decoder(monkeypatch: pytest.MonkeyPatch, colour: int, channels: int) -> None:
    payload = plain_png(header=(5, 3, 8, colour, 0, 0, 0), rows=(b"\4" + bytes(range(5 * channels))) * 3, cuts=(4, 9))
    assert cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_UNCHANGED).shape[:2] == (3, 5)
    monkeypatch.delattr(integrity, "_decoding_fault")
    assert find_fault(payload, max_pixels=15) is None


@given(
    header=st.tuples(
        st.integers(0, 6), st.integers(0, 4), st.sampled_from([8, 8, 1, 16]), st.sampled_from([0, 2, 3, 4, 6]),
        *[st.integers(0, 1)] * 3,
    ),
    filters=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    row_bytes=st.integers(0, 19),
    window=st.integers(9, 15),
    cuts=st.lists(st.integers(0, 40), max_size=3),
    flip=st.none() | st.tuples(st.integers(0, 10_000), st.integers(1, 255)),
)  # fmt: skip
@settings(max_examples=500, deadline=None)
def test_every_decoder_takes_what_passes_as_a_plain_png(
    header: tuple[int, ...], filters: list[int], row_bytes: int, window: int, cuts: list[int], flip: tuple[int, int]
) -> None:
    rows = b"".join(bytes([one]) + bytes(range(row_bytes)) for one in filters)
    payload = bytearray(plain_png(header=header, rows=rows, window=window, cuts=tuple(cuts)))
    if flip is not None:
        payload[flip[0] % len(payload)] ^= flip[1]
    if integrity._is_plain_png(bytes(payload), max_pixels=1000):
        assert cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR) is not None


@pytest.mark.parametrize(
    ("rows", "changes"),
    [
        (b"\5" + bytes(5) + (b"\0" + bytes(5)) * 2, {}),
        ((b"\0" + bytes(5)) * 2, {}),
        ((b"\0" + bytes(5)) * 3, {"header": (5, 3, 8, 0, 0, 0, 1)}),
        ((b"\0" + bytes(5)) * 3, {"header": (5, 3, 8, 0, 1, 0, 0)}),
        ((b"\0" + bytes(5)) * 3, {"header": (5, 3, 16, 0, 0, 0, 0)}),
        ((b"\0" + bytes(5)) * 3, {"header": (2**16, 3, 8, 0, 0, 0, 0)}),
    ],
)
def test_what_is_not_plain_is_left_to_the_decoder(rows: bytes, changes: dict[str, Any]) -> None:
    assert integrity._is_plain_png(plain_png(rows=(b"\0" + bytes(5)) * 3), max_pixels=15)
    assert not integrity._is_plain_png(plain_png(rows=rows, **changes), max_pixels=15)


def test_a_stream_that_reaches_beyond_its_window_is_left_to_the_decoder() -> None:
    noise = np.random.default_rng(0).integers(0, 255, 600, dtype=np.uint8).tobytes()
    rows = (b"\0" + noise) * 2
    sound = plain_png(header=(600, 2, 8, 0, 0, 0, 0), rows=rows, window=11)
    assert integrity._is_plain_png(sound, max_pixels=2000)
    place = sound.index(b"IDAT") + 4
    body = bytearray(sound[place : -len(small_pngs.PNG_END) - 4])
    body[:2] = struct.pack(">H", next(0x0800 | flags for flags in range(256) if (0x0800 | flags) % 31 == 0))
    lying = sound[: place - 8] + chunk(b"IDAT", bytes(body)) + small_pngs.PNG_END
    assert not integrity._is_plain_png(lying, max_pixels=2000)


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3])),
    flags=st.tuples(st.integers(1, 100), st.integers(0, 1), st.integers(0, 3), st.sampled_from(SAMPLING)),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 12), st.binary(max_size=6)), max_size=4),
)
@settings(max_examples=500, deadline=None)
def test_a_jpeg_decodes_at_an_eighth_of_its_size_exactly_where_it_decodes(
    shape: tuple[int, int, int], flags: tuple[int, ...], edits: list[tuple[float, int, bytes]]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    named = zip(JPEG_FLAGS, flags, strict=True)
    payload = cv2.imencode(".jpg", pixels, [one for pair in named for one in pair])[1].tobytes()
    for share, removed, inserted in edits:
        place = int(share * len(payload))
        payload = payload[:place] + inserted + payload[place + removed :]
    small, full = (
        cv2.imdecode(np.frombuffer(payload, np.uint8), flag)
        for flag in (integrity.SMALL_JPEG, cv2.IMREAD_GRAYSCALE if shape[2] == 1 else cv2.IMREAD_COLOR)
    )
    assert (small is None) == (full is None)


def test_reasons_tell_what_is_wrong() -> None:
    assert find_fault(b"", max_pixels=1) == ("zero_byte", "the file is empty")
    assert find_fault(b"BMW is a maker of cars", max_pixels=1) == (
        "not_an_image",
        "no PNG, JPEG, BMP, WEBP image: the first bytes are b'BMW is a'",
    )
    assert find_fault(PAYLOADS["png"], max_pixels=1199) == (
        "too_large",
        "40 x 30 px is more than the limit of 1199 px",
    )


def test_a_claim_of_very_many_pixels_is_refused_before_decoding() -> None:
    grey = cv2.imencode(".png", np.zeros((1, 1), np.uint8))[1].tobytes()
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">II", 50_000, 50_000) + grey[24:29]
    bomb = grey[:12] + header + struct.pack(">I", zlib.crc32(header)) + grey[33:]
    fault = find_fault(bomb, max_pixels=64_000_000)
    assert fault is not None
    assert fault[0] == "too_large"


def test_a_damaged_png_is_unreadable() -> None:
    payload = bytearray(PAYLOADS["png"])
    payload[len(payload) // 2] ^= 0xFF
    fault = find_fault(bytes(payload), max_pixels=1200)
    assert fault is not None
    assert fault[0] == "unreadable"
    assert "does not match its checksum" in fault[1]
