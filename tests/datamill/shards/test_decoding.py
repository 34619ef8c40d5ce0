from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from datamill.errors import DataError, ParamsError
from datamill.modalities import image
from datamill.shards import Field, ShardLoader, ShardWriter, decoding, open_shard
from datamill.shards.cache import SampleCache
from datamill.shards.decoding import Decode, ImageColumn, find_frame, part_size

RNG = np.random.default_rng(0)


def photo(height: int = 24, width: int = 32, channels: int = 3) -> NDArray[np.uint8]:
    coarse = RNG.integers(0, 256, (4, 4, channels), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height)), np.uint8).reshape(height, width, channels)


def encoded(pixels: NDArray[np.uint8], extension: str = ".jpg", *flags: int) -> bytes:
    done, buffer = cv2.imencode(extension, pixels[..., ::-1], flags)
    assert done
    return bytes(buffer)


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation]) + b"\0\0\0\0\0\0\0"
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


def column_of(payloads: list[bytes], spec: Decode, *, cache: SampleCache, seed: int = 0) -> ImageColumn:
    return ImageColumn(
        spec,
        views=lambda rows: [memoryview(payloads[row]) for row in rows],
        describe=lambda row: f"image of row {row}",
        cache=cache,
        seed=seed,
    )


def load(payloads: list[bytes], spec: Decode, *, epoch: int = 0, cache: int = 0, seed: int = 0) -> NDArray[np.uint8]:
    column = column_of(payloads, spec, cache=SampleCache(cache), seed=seed)
    out = torch.zeros(len(payloads), *spec.shape, dtype=torch.uint8)
    column.load(np.arange(len(payloads)), out=out, epoch=epoch)
    return np.asarray(out.numpy())


@pytest.fixture(params=["simplejpeg", "OpenCV"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "OpenCV":
        monkeypatch.setattr(decoding, "simplejpeg", None)
    else:
        pytest.importorskip("simplejpeg")
    return str(request.param)


PAYLOADS: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(photo()),
    "odd JPEG": lambda: encoded(photo(23, 31)),
    "progressive JPEG": lambda: encoded(photo(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "unsampled JPEG": lambda: encoded(photo(), ".jpg", cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111),
    "grey JPEG": lambda: encoded(photo(channels=1)),
    "turned JPEG": lambda: with_orientation(encoded(photo()), 6),
    "PNG": lambda: encoded(photo(), ".png"),
    "WebP": lambda: encoded(photo(), ".webp"),
    "BMP": lambda: encoded(photo(), ".bmp"),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", PAYLOADS)
def test_pixels_are_those_of_the_package_whatever_decodes(kind: str, channels: Any, decoder: str) -> None:
    payload = PAYLOADS[kind]()
    pixels = image.decode(payload)
    height, width = pixels.shape[:2]
    expected = image.resize(pixels, height=height, width=width, channels=channels)
    np.testing.assert_array_equal(load([payload], Decode(height, width, channels=channels))[0], expected)


def test_an_orientation_is_applied(decoder: str) -> None:
    assert image.decode(PAYLOADS["turned JPEG"]()).shape == (32, 24, 3)


def test_the_middle_is_cut_out(decoder: str) -> None:
    payload = encoded(photo(24, 32))
    np.testing.assert_array_equal(load([payload], Decode(10, 12))[0], image.decode(payload)[7:17, 10:22])


def places(pixels: NDArray[np.uint8], crops: NDArray[np.uint8]) -> list[tuple[int, int, bool]]:
    """Where each crop was cut, and whether it was mirrored."""
    found = []
    for crop in crops:
        spare = (pixels.shape[0] - crop.shape[0] + 1, pixels.shape[1] - crop.shape[1] + 1)
        for top, left, flip in np.ndindex(*spare, 2):
            part = pixels[top : top + crop.shape[0], left : left + crop.shape[1]]
            if np.array_equal(part[:, ::-1] if flip else part, crop):
                found.append((top, left, bool(flip)))
    return found


def test_random_crops_cover_every_place_and_half_are_mirrored() -> None:
    pixels = RNG.integers(0, 256, (8, 9, 3), dtype=np.uint8)
    crops = load([encoded(pixels, ".png")] * 400, Decode(6, 6, crop="random", flip=True))
    found = places(pixels, crops)
    assert len(found) == 400
    assert {place[:2] for place in found} == set(np.ndindex(3, 4))
    assert 150 < sum(flip for _, _, flip in found) < 250


def test_a_crop_depends_on_seed_epoch_and_row_alone() -> None:
    payloads = [encoded(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8), ".png")] * 8
    spec = Decode(8, 8, crop="random")
    one = load(payloads, spec)
    np.testing.assert_array_equal(load(payloads[:3], spec), one[:3])
    assert not np.array_equal(load(payloads, spec, epoch=1), one)
    assert not np.array_equal(load(payloads, spec, seed=1), one)


@pytest.mark.parametrize("budget", [1500, 10**6])
def test_a_cache_changes_no_result_and_keeps_to_its_budget(budget: int) -> None:
    payloads = [encoded(photo(16, 16)) for _ in range(6)]
    spec = Decode(12, 12, crop="random", flip=True)
    cache = SampleCache(budget)
    column = column_of(payloads, spec, cache=cache)
    for epoch in (0, 1):
        out = torch.empty(6, 12, 12, 3, dtype=torch.uint8)
        column.load(np.arange(6), out=out, epoch=epoch)
        np.testing.assert_array_equal(out.numpy(), load(payloads, spec, epoch=epoch))
    assert cache.size_bytes == min(budget // 768, 6) * 768


def test_a_cached_image_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    payloads = [encoded(photo(16, 16)) for _ in range(3)]
    decoded: list[bytes] = []

    def decode(payload: memoryview, *, channels: int, reduction: int) -> NDArray[np.uint8]:
        assert reduction == 1
        decoded.append(bytes(payload))
        return np.zeros((16, 16, channels), np.uint8)

    monkeypatch.setattr(decoding, "simplejpeg", None)
    monkeypatch.setattr(decoding, "decode_any", decode)
    column = column_of(payloads, Decode(16, 16), cache=SampleCache(2 * 768))
    for _ in range(2):
        column.load(np.arange(3), out=torch.empty(3, 16, 16, 3, dtype=torch.uint8), epoch=0)
    assert decoded == [*payloads, payloads[2]]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda payload: payload[: len(payload) // 2],
    "empty": lambda payload: b"",
    "text": lambda payload: b"no image at all",
    "header alone": lambda payload: payload[:12],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_damage_names_the_row(kind: str, damage: str, decoder: str) -> None:
    payloads = [PAYLOADS[kind](), DAMAGES[damage](PAYLOADS[kind]())]
    with pytest.raises(DataError, match="image of row 1: "):
        load(payloads, Decode(8, 8))


def test_damage_names_shard_field_row_and_sample(tmp_path: Path) -> None:
    fields = {"image": Field.bytes(), "sample_id": Field.array("uint8", (16,))}
    with ShardWriter(tmp_path / "train", split="train", fields=fields) as writer:
        writer.write(
            {"image": [encoded(photo()), b"\xff\xd8\xff"], "sample_id": np.arange(32, dtype=np.uint8).reshape(2, 16)}
        )
    loader = ShardLoader(open_shard(tmp_path / "train"), decode={"image": Decode(8, 8)}, num_workers=1)
    with pytest.raises(DataError, match=r"train: image of row 1 \(sample 101112131415161718191a1b1c1d1e1f\): damaged"):
        next(iter(loader))


def test_an_image_smaller_than_the_crop_is_refused(decoder: str) -> None:
    with pytest.raises(DataError, match="32 x 24 px is smaller than the crop of 16 x 25; choose crop 'resized'"):
        load([encoded(photo(24, 32))], Decode(25, 16))


def test_a_header_that_claims_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg")
    monkeypatch.setattr(decoding, "MAX_PIXELS", 100)
    with pytest.raises(DataError, match="32 x 24 px is more than the limit of 100 px"):
        load([encoded(photo())], Decode(8, 8))


@pytest.mark.parametrize("wrong", [{"area": (0, 1)}, {"area": (0.5, 0.2)}, {"area": (0.5, 2)}, {"aspect": (0, 1)}])
def test_what_cuts_nothing_out_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=r"cuts nothing out; area is a range within \(0, 1\], aspect one above 0"):
        Decode(8, 8, crop="resized", **wrong)


LARGE: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(photo(97, 131)),
    "progressive JPEG": lambda: encoded(photo(97, 131), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "unsampled JPEG": lambda: encoded(photo(97, 131), ".jpg", cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111),
    "grey JPEG": lambda: encoded(photo(97, 131, channels=1)),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("shorter", "reduction"), [(8, 8), (12, 8), (13, 4), (24, 4), (30, 2), (90, 1), (97, 1)])
@pytest.mark.parametrize("kind", LARGE)
def test_large_photos_are_shortened_while_they_are_decoded(
    kind: str, shorter: int, reduction: int, channels: Any, decoder: str
) -> None:
    payload = LARGE[kind]()
    small = image.decode(payload, reduction=reduction)
    assert min(small.shape[:2]) == -(-97 // reduction)
    small = image.resize(small, height=small.shape[0], width=small.shape[1], channels=channels)
    found = load([payload], Decode(shorter, 8, channels=channels, shorter=shorter))[0]
    width = round(small.shape[1] * shorter / small.shape[0])
    left = (width - 8) // 2
    expected = image.resize(small, height=shorter, width=width, channels=channels)[:, left : left + 8]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("kind", "shape"), [("turned JPEG", (32, 24)), ("PNG", (24, 32)), ("WebP", (24, 32))])
def test_the_shorter_side_gets_its_length_whatever_the_format(kind: str, shape: tuple[int, int], decoder: str) -> None:
    payload = PAYLOADS[kind]()
    height, width = (side // 2 for side in shape)
    expected = image.resize(image.decode(payload), height=height, width=width, channels=3)
    np.testing.assert_array_equal(load([payload], Decode(height, width, shorter=12))[0], expected)
    assert load([payload], Decode(48, 48, shorter=48)).shape == (1, 48, 48, 3)


def test_a_resized_crop_of_the_whole_image_is_the_image_resized() -> None:
    payload = encoded(photo(24, 32), ".png")
    spec = Decode(12, 16, crop="resized", area=(1, 1), aspect=(32 / 24, 32 / 24))
    expected = image.resize(image.decode(payload), height=12, width=16, channels=3)
    np.testing.assert_array_equal(load([payload], spec)[0], expected)


def test_resized_crops_have_all_areas_and_aspects_and_stay_inside() -> None:
    spec = Decode(8, 8, crop="resized")
    chances = np.random.default_rng(0).random((2000, 2)).tolist()
    sizes = np.array([part_size(300, 400, spec=spec, chances=(one[0], one[1])) for one in chances])
    assert (sizes >= 1).all()
    assert (sizes <= [300, 400]).all()
    areas, aspects = sizes.prod(axis=1) / 120_000, sizes[:, 1] / sizes[:, 0]
    assert 0.07 < areas.min() < 0.1
    assert areas.max() > 0.97
    assert 0.45 < np.median(areas) < 0.55
    assert 0.74 < aspects.min() < 0.78
    assert 1.31 < aspects.max() < 1.35
    assert 0.95 < np.median(aspects) < 1.05


def test_resized_crops_come_from_everywhere_and_half_are_mirrored() -> None:
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3))
    payloads = [encoded(np.ascontiguousarray(ramp), ".png")] * 400
    crops = load(payloads, Decode(8, 8, crop="resized", area=(0.05, 0.05), flip=True))[..., 0].astype(int)
    assert crops.min() < 10
    assert crops.max() > 190
    assert 150 < (crops[:, 0, 0] > crops[:, 0, -1]).sum() < 250


@pytest.mark.parametrize("shorter", [None, 12])
def test_a_cache_changes_no_resized_crop(shorter: int | None, decoder: str) -> None:
    payloads = [encoded(photo(30, 50)) for _ in range(4)]
    spec = Decode(12, 12, crop="resized", flip=True, shorter=shorter)
    cache = SampleCache(10**6)
    column = column_of(payloads, spec, cache=cache)
    for epoch in (0, 1):
        out = torch.empty(4, 12, 12, 3, dtype=torch.uint8)
        column.load(np.arange(4), out=out, epoch=epoch)
        np.testing.assert_array_equal(out.numpy(), load(payloads, spec, epoch=epoch))
    assert cache.size_bytes == 4 * 3 * (30 * 50 if shorter is None else 12 * 20)


@pytest.mark.parametrize("wrong", [{"height": 0}, {"channels": 2}, {"crop": "left"}, {"shorter": 0}, {"shorter": -1}])
def test_what_makes_no_image_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match="makes no image; height, width and shorter are at least 1 px"):
        Decode(**{"height": 8, "width": 8} | wrong)


@pytest.mark.parametrize("channels", [1, 3])
def test_mirrored_rows_are_the_crop_from_right_to_left(channels: Literal[1, 3]) -> None:
    pixels = np.arange(6 * 8 * channels, dtype=np.uint8).reshape(6, 8, channels)
    spec = Decode(6, 8, channels=channels, flip=True)
    payload = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
    column = ImageColumn(
        spec, views=lambda rows: [memoryview(payload)] * len(rows), describe=str, cache=SampleCache(0), seed=3
    )
    out = torch.zeros(32, 6, 8, channels, dtype=torch.uint8)

    column.load(np.arange(32), out=out, epoch=0)

    kinds = {one.numpy().tobytes() for one in out}
    assert kinds == {pixels.tobytes(), pixels[:, ::-1].tobytes()}


JFIF, TABLE = b"\xff\xe0\x00\x04ab", b"\xff\xdb\x00\x03c"
EXIF = b"\xff\xe1\x00\x0aExif\0\0xx"
FRAME = b"\xff\xc0\x00\x11\x08\x01\x02\x03\x04\x03"


@pytest.mark.parametrize("marker", [0xC0, 0xC1, 0xC2])
def test_a_frame_is_found_behind_tables_and_metadata(marker: int) -> None:
    frame = b"\xff" + bytes([marker]) + FRAME[2:]
    assert find_frame(memoryview(b"\xff\xd8" + JFIF + TABLE + frame)) == (258, 772, 3)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG" + FRAME,
        b"\xff\xd8" + FRAME[:-1],
        b"\xff\xd8" + JFIF + b"xx" + FRAME,
        b"\xff\xd8" + JFIF + EXIF + FRAME,
        b"\xff\xd8\xff\xda\x00\x02" + FRAME,
        b"\xff\xd8\xff\xc9" + FRAME[2:],
        b"\xff\xd8\xff\xe1\x00",
    ],
    ids=["nothing", "start", "PNG", "cut", "gap", "EXIF", "scan", "arithmetic", "header cut"],
)
def test_no_frame_is_found_in_what_takes_another_way(payload: bytes) -> None:
    assert find_frame(memoryview(payload)) is None


@pytest.mark.parametrize(
    "size", [b"\0\0\0\x20", b"\0\x18\0\0", b"\xff\xff\0\x20"], ids=["no rows", "no columns", "tall"]
)
def test_a_frame_of_another_size_than_its_pixels_is_damage(size: bytes) -> None:
    pytest.importorskip("simplejpeg")
    payload = bytearray(encoded(photo(24, 32)))
    place = payload.index(b"\xff\xc0") + 5
    payload[place : place + 4] = size
    with pytest.raises(DataError, match="image of row 0: damaged JPEG image"):
        load([bytes(payload)], Decode(8, 8))


def test_encoded_bytes_are_let_go_when_many_were_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "RESIDENT_BYTES", 3 * decoding.FAULT_BYTES)
    payload = encoded(photo(), ".png")
    calls: list[None] = []
    column = ImageColumn(
        Decode(8, 8),
        views=lambda rows: [memoryview(payload)] * len(rows),
        let_go=lambda: calls.append(None),
        describe=str,
        cache=SampleCache(0),
        seed=0,
    )
    column.load(np.arange(9), out=torch.empty(9, 8, 8, 3, dtype=torch.uint8), epoch=0)
    assert len(calls) == 2
