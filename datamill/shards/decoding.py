"""Encoded images of a shard to pixels: decoded, resized, cropped, mirrored, written into a batch's memory."""

# Shapes: B rows of a batch, H height (px), W width (px), C channels.

import math
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamill.errors import DataError, ParamsError
from datamill.shards.cache import SampleCache
from datamill.shards.chance import row_chances

try:
    import simplejpeg
except ImportError:  # OpenCV decodes JPEG to the same pixels, more slowly
    simplejpeg = None

STREAM = 0x0DEC  # keeps crops apart from other random numbers of a row
MAX_PIXELS = 64_000_000  # a header that claims more is refused before anything is decoded
FAULT_BYTES = 2**16  # that Linux maps at once around what is read
RESIDENT_BYTES = 2**25  # of mapped files, beyond which they are let go
VECTOR_BYTES = 32  # of AVX2
JPEG_START, JPEG_END, EXIF = b"\xff\xd8\xff", b"\xff\xd9", b"Exif\0\0"
JPEG_METADATA = 0xE1  # the marker of a segment that may hold EXIF
JPEG_TABLES = frozenset({*range(0xE0, 0xF0), 0xFE, 0xDB, 0xC4, 0xDD})  # of segments that may stand before the frame
JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
REDUCTIONS = (8, 4, 2)  # of the size of a JPEG, at which all decoders give the same pixels for a part of the work
FRAME = struct.Struct(">BBHBHHB")  # filler, marker, length, precision, height, width, layers

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Decode:
    """How the images of a bytes field become one array.

    ``Decode(224, 224, crop="resized", flip=True)`` is what classifiers are commonly trained on, and
    ``Decode(224, 224, shorter=256)`` what they are judged on.

    Attributes:
        height: Height of the result (px).
        width: Width of the result (px).
        channels: 1 (grey) or 3 (RGB).
        crop: Where the result is cut out of an image: ``random``, by row and epoch, or ``center``; ``resized`` cuts out
            a random part of random size and shape, which becomes the result by resizing.
        flip: Mirror left and right for half of the rows, by row and epoch.
        shorter: Length of the shorter side that images are resized to first (px), much of it while they are decoded;
            when not given, they stay as they are.
        area: Least and largest share of an image's area that ``resized`` cuts out.
        aspect: Least and largest width of what it cuts out, in heights; what would leave the image is cut off.

    Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6 (crops of random size and shape).
    """

    height: int
    width: int
    channels: Literal[1, 3] = 3
    crop: Literal["random", "center", "resized"] = "center"
    flip: bool = False
    shorter: int | None = None
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        """Refuse what makes no image.

        Raises:
            ParamsError: Naming the value.
        """
        is_sized = min(self.height, self.width, self.shorter or 1) >= 1 and self.shorter != 0
        if not is_sized or self.channels not in (1, 3) or self.crop not in ("random", "center", "resized"):
            raise ParamsError(
                f"{self} makes no image; height, width and shorter are at least 1 px, channels 1 or 3, "
                "crop random, center or resized"
            )
        if not (0 < self.area[0] <= self.area[1] <= 1 and 0 < self.aspect[0] <= self.aspect[1] < math.inf):
            raise ParamsError(f"{self} cuts nothing out; area is a range within (0, 1], aspect one above 0")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one result."""
        return self.height, self.width, self.channels


class ImageColumn:
    """Images of a bytes field; any number of threads may share it."""

    def __init__(
        self,
        spec: Decode,
        *,
        views: Callable[[NDArray[np.int64]], list[memoryview]],
        let_go: Callable[[], None] = lambda: None,
        describe: Callable[[int], str],
        cache: SampleCache,
        seed: int,
    ) -> None:
        """Nothing is decoded yet.

        Args:
            spec: What becomes of an image.
            views: Encoded bytes of each of some rows.
            let_go: Gives back the memory of the encoded bytes; called now and then.
            describe: What errors call a row.
            cache: Keeps decoded images, before they are cropped.
            seed: Of the random crops and mirrorings.
        """
        self.shape = spec.shape
        self.dtype = torch.uint8
        self._describe = describe
        self._spec = spec
        self._views = views
        self._let_go, self._resident = let_go, 0  # bytes of mapped files that lie in memory, about
        self._cache = cache
        self._seed = seed
        self._memory = threading.local()  # one image's pixels, reused

    def load(self, rows: NDArray[np.int64], *, out: Tensor, epoch: int) -> None:
        """See ``Column``; an image that is smaller than the result is an error, too."""
        num = 5 if self._spec.crop == "resized" else 3
        chances = row_chances(rows, num=num, seed=self._seed, epoch=epoch, stream=STREAM)
        payloads = self._views(rows)
        for row, payload, target, chance in zip(rows.tolist(), payloads, out.numpy(), chances.T.tolist(), strict=True):
            try:
                pixels = self._cache.get(row)
                if pixels is None:
                    pixels = self._shortened(self._decode(payload))
                    self._cache.keep(row, pixels)
                self._place(pixels, target=target, chance=chance)
            except DataError as error:
                raise DataError(f"{self._describe(row)}: {error}") from error

    def _decode(self, payload: memoryview) -> Pixels:
        """Pixels that are valid until this thread decodes the next image; fewer where that is enough."""
        self._resident += max(len(payload), FAULT_BYTES)
        if self._resident > RESIDENT_BYTES:
            self._resident = 0
            self._let_go()
        frame = find_frame(payload)
        channels = self._spec.channels
        if frame is None:
            return decode_any(payload, channels=channels)
        if frame.height * frame.width > MAX_PIXELS:
            raise DataError(f"{frame.width} x {frame.height} px is more than the limit of {MAX_PIXELS} px")
        reduction = self._reduction(frame)
        if simplejpeg is None or frame.layers not in (1, channels):
            return decode_any(payload, channels=channels, reduction=reduction)
        height, width = -(-frame.height // reduction), -(-frame.width // reduction)
        space, memory = "GRAY" if channels == 1 else "RGB", self._borrow(height * width * channels)
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(payload, space, min_height=height, min_width=width, buffer=memory)
        except ValueError as error:
            raise DataError(f"damaged JPEG image: {error}") from error
        return pixels

    def _reduction(self, frame: "Frame") -> int:
        """The largest by which an image stays as large as is wanted."""
        if self._spec.shorter is None:
            return 1
        most = min(frame.height, frame.width) // self._spec.shorter
        return next((one for one in REDUCTIONS if one <= most), 1)

    def _shortened(self, pixels: Pixels) -> Pixels:
        """The image with its shorter side as long as is wanted."""
        height, width = pixels.shape[:2]
        shorter = self._spec.shorter
        if shorter is None or shorter == min(height, width):
            return pixels
        size = {"height": shorter, "width": shorter}
        size["height" if height > width else "width"] = round(max(height, width) * shorter / min(height, width))
        return _resized(pixels, **size)

    def _borrow(self, size_bytes: int) -> Pixels:
        """Memory for an image's pixels.

        It begins between two multiples of 32: at one of them, libjpeg-turbo writes past the processor's cache, from
        which the crop is copied next.
        """
        memory: Pixels | None = getattr(self._memory, "pixels", None)
        if memory is None or len(memory) < size_bytes:
            room = np.empty(size_bytes + VECTOR_BYTES, np.uint8)
            start = (VECTOR_BYTES // 2 - room.ctypes.data) % VECTOR_BYTES
            memory = self._memory.pixels = room[start : start + size_bytes]
        return memory

    def _place(self, pixels: Pixels, *, target: Pixels, chance: list[float]) -> None:
        spec = self._spec
        top, left, height, width = self._box(pixels, chance=chance)
        part = pixels[top : top + height, left : left + width]
        target[...] = _resized(part, height=spec.height, width=spec.width) if spec.crop == "resized" else part
        if spec.flip and chance[2] < 0.5:
            import cv2

            # not on the way there: cv2 waits for memory that is not in the cache, where the copy lies now
            cv2.flip(target, 1, dst=target)

    def _box(self, pixels: Pixels, *, chance: list[float]) -> tuple[int, int, int, int]:
        """Top, left, height and width of what is cut out."""
        spec = self._spec
        height, width = spec.height, spec.width
        if spec.crop == "resized":
            height, width = part_size(pixels.shape[0], pixels.shape[1], spec=spec, chances=(chance[3], chance[4]))
        spare_y, spare_x = pixels.shape[0] - height, pixels.shape[1] - width
        if spare_y < 0 or spare_x < 0:
            raise DataError(
                f"{pixels.shape[1]} x {pixels.shape[0]} px is smaller than the crop of {width} x {height}; choose "
                f"crop 'resized', give shorter, or decode to a smaller size"
            )
        if spec.crop == "center":
            return spare_y // 2, spare_x // 2, height, width
        return int(chance[0] * (spare_y + 1)), int(chance[1] * (spare_x + 1)), height, width


def part_size(height: int, width: int, *, spec: Decode, chances: tuple[float, float]) -> tuple[int, int]:
    """Height and width of a random part of an image: its area is uniform, the logarithm of its aspect, too (px)."""
    area = height * width * (spec.area[0] + chances[0] * (spec.area[1] - spec.area[0]))
    aspect = spec.aspect[0] * (spec.aspect[1] / spec.aspect[0]) ** chances[1]
    part = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
    return min(max(1, part[0]), height), min(max(1, part[1]), width)


class Frame(NamedTuple):
    """Size of a JPEG image as it is stored (px), and its colour components."""

    height: int
    width: int
    layers: int


def find_frame(payload: memoryview) -> Frame | None:
    """What a JPEG says of its pixels before they begin.

    ``None`` for what takes another way: no JPEG, a damaged or unusual one, and one that says how it was taken and may
    have to be turned.
    """
    if payload[:3] != JPEG_START:
        return None
    place, last = 2, len(payload) - FRAME.size
    while place <= last:
        fill, marker, length, _, height, width, layers = FRAME.unpack_from(payload, place)
        if fill == 0xFF and marker in JPEG_FRAMES:
            return Frame(height, width, layers)
        is_exif = marker == JPEG_METADATA and payload[place + 4 : place + 4 + len(EXIF)] == EXIF
        if fill != 0xFF or is_exif or marker not in JPEG_TABLES:
            return None
        place += 2 + length
    return None


def decode_any(payload: memoryview, *, channels: int, reduction: int = 1) -> Pixels:
    """Pixels of an image in any format of the package, shape (H, W, C); grey is made from colour, or the reverse.

    Args:
        payload: Encoded image.
        channels: Of the result.
        reduction: Of the size of a JPEG: 1, or one of ``REDUCTIONS``.

    Raises:
        DataError: The bytes are no image, or a damaged one.
    """
    import cv2

    from datamill.modalities import image

    content = bytes(payload)
    if content.startswith(JPEG_START) and JPEG_END not in content[len(content) // 2 :]:
        raise DataError(f"damaged JPEG image: its {len(content)} bytes hold no end-of-image marker")
    try:
        pixels = image.decode(content, reduction=reduction)
    except cv2.error as error:
        raise DataError(f"damaged image: {error}") from error
    return image.resize(pixels, height=pixels.shape[0], width=pixels.shape[1], channels=channels)


def _resized(pixels: Pixels, *, height: int, width: int) -> Pixels:
    from datamill.modalities import image

    return image.resize(pixels, height=height, width=width, channels=pixels.shape[2])
