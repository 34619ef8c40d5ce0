"""Which bytes are a whole image."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.sources.integrity import find_fault

PIXELS = cv2.resize(np.random.default_rng(0).integers(0, 255, (6, 6, 3), dtype=np.uint8), (40, 30))
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
