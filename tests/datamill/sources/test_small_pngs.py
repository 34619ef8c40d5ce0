import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.sources import integrity, small_pngs
from datamill.sources.integrity import find_fault, find_faults
from datamill.sources.small_pngs import PNG_END, PNG_START, are_plain
from tests.datamill.sources.test_integrity import chunk, plain_png

ROWS = (b"\0" + bytes(range(5))) * 3
SOUND = plain_png(rows=ROWS)


def plain(*payloads: bytes, max_pixels: int = 1000) -> list[bool]:
    return list(are_plain(pa.array(payloads, pa.binary()), max_pixels=max_pixels).tolist())


def with_stream(stream: bytes) -> bytes:
    """The image of 5 x 3 px that has this stream for its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 3, 8, 0, 0, 0, 0))
    return PNG_START[:8] + header + chunk(b"IDAT", stream) + PNG_END


def picture(number: int, shape: tuple[int, ...] = (9, 7)) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, shape, np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def test_sound_images_of_any_size_pass_together() -> None:
    payloads = [picture(number, (1 + number % 28, 1 + number % 19, 1 + number % 2 * 2)) for number in range(40)]
    assert plain(*payloads) == [True] * 40


def test_what_is_something_else_does_not_harm_those_beside_it() -> None:
    two_chunks, jpeg = plain_png(rows=ROWS, cuts=(4,)), cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1].tobytes()
    large = picture(0, (200, 100))
    assert plain(SOUND, b"", two_chunks, jpeg, large, b"\0" * 99, SOUND) == [True, *[False] * 5, True]
    assert plain() == []


def test_of_images_beside_a_damaged_one_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_pngs, "GROUP", 2)
    damaged = with_stream(zlib.compress(ROWS)[:-1] + b"\0")
    assert plain(SOUND, SOUND, SOUND, damaged, SOUND) == [True, True, False, False, True]


def test_a_slice_is_looked_at_where_it_is() -> None:
    payloads = pa.array([b"none", SOUND, picture(3), b"none"], pa.binary())
    assert are_plain(payloads.slice(1, 3), max_pixels=1000).tolist() == [True, True, False]


@pytest.mark.parametrize(
    "stream",
    [
        zlib.compress(ROWS[:-1]),
        zlib.compress(ROWS + b"\0"),
        zlib.compress(b"") + zlib.compress(ROWS),
        zlib.compress(ROWS[:6]) + zlib.compress(ROWS[6:]),
        zlib.compress(ROWS) + zlib.compress(b""),
        zlib.compress(ROWS) + b"\0",
        zlib.compress(ROWS)[:-4],
        zlib.compress(b"\5" + ROWS[1:]),
    ],
    ids=["short", "long", "empty first", "two", "empty last", "a byte more", "no checksum", "unknown filter"],
)
def test_a_stream_that_is_not_exactly_the_pixels_does_not_pass(stream: bytes) -> None:
    assert plain(with_stream(zlib.compress(ROWS))) == [True]
    assert plain(with_stream(stream)) == [False]


def test_streams_do_not_lend_each_other_bytes() -> None:
    short, long = with_stream(zlib.compress(ROWS[:-1])), with_stream(zlib.compress(ROWS + b"\0"))
    assert plain(short, long) == plain(long, short) == [False, False]


def test_a_checksum_beyond_its_modulus_does_not_pass() -> None:
    stream = zlib.compress(bytes(18))
    assert stream[-4:] == b"\0\x12\0\1"
    assert plain(with_stream(stream)) == [True]
    assert plain(with_stream(stream[:-4] + struct.pack(">HH", 18, 65_522))) == [False]


def test_a_stream_that_looks_back_beyond_its_beginning_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_pngs.secrets, "token_bytes", lambda count: bytes(range(1, count + 1)))
    # zlib's fixed codes: a block that is last, a copy of 18 bytes from 1 byte before, and its end
    bits = "1" + "10" + "0001000" + "1" + "00000" + "0000000"
    body = int(bits[::-1], 2).to_bytes(4, "little")
    assert plain(with_stream(b"\x78\x01" + body + struct.pack(">I", zlib.adler32(bytes(18))))) == [False]


def test_too_many_pixels_do_not_pass() -> None:
    assert plain(SOUND, max_pixels=15) == [True]
    assert plain(SOUND, max_pixels=14) == [False]


@given(
    header=st.tuples(
        st.integers(0, 6), st.integers(0, 4), st.sampled_from([8, 8, 8, 1, 16]), st.sampled_from([0, 0, 2, 3, 4, 6]),
        *[st.sampled_from([0, 0, 0, 1])] * 3,
    ),
    filters=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    row_bytes=st.integers(0, 19),
    window=st.integers(9, 15),
    flip=st.none() | st.tuples(st.integers(0, 10_000), st.integers(1, 255)),
)  # fmt: skip
@settings(max_examples=500, deadline=None)
def test_an_image_of_one_chunk_passes_here_exactly_where_it_passes_alone(
    header: tuple[int, ...], filters: list[int], row_bytes: int, window: int, flip: tuple[int, int] | None
) -> None:
    rows = b"".join(bytes([one]) + bytes(range(row_bytes)) for one in filters)
    payload = bytearray(plain_png(header=header, rows=rows, window=window))
    if flip is not None:
        payload[flip[0] % len(payload)] ^= flip[1]
    assert plain(bytes(payload)) == [integrity._is_plain_png(bytes(payload), max_pixels=1000)]


@given(edits=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 10_000), st.integers(0, 255)), max_size=4))
@settings(max_examples=200, deadline=None)
def test_faults_of_many_are_those_of_each(edits: list[tuple[int, int, int]]) -> None:
    payloads = [bytearray(picture(number)) for number in range(7)] + [bytearray(b"no image")]
    for number, place, value in edits:
        payloads[number][place % len(payloads[number])] = value
    expected: dict[int, Any] = {
        row: fault
        for row, fault in enumerate(find_fault(bytes(one), max_pixels=1000) for one in payloads)
        if fault is not None
    }
    assert find_faults(pa.array(map(bytes, payloads), pa.binary()), max_pixels=1000) == expected
