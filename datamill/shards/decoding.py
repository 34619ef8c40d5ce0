"""Encoded images of a shard to pixels: decoded in full, cropped, mirrored, written into a batch's memory."""

# Shapes: B rows of a batch, H height (px), W width (px), C channels.

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
FRAME = struct.Struct(">BBHBHHB")  # filler, marker, length, precision, height, width, layers

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Decode:
    """How the images of a bytes field become one array.

    Attributes:
        height: Height of the result (px).
        width: Width of the result (px).
        channels: 1 (grey) or 3 (RGB).
        crop: Where the result is cut out of an image that is larger: ``random``, by row and epoch, or ``center``.
        flip: Mirror left and right for half of the rows, by row and epoch.
    """

    height: int
    width: int
    channels: Literal[1, 3] = 3
    crop: Literal["random", "center"] = "center"
    flip: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no image.

        Raises:
            ParamsError: Naming the value.
        """
        if min(self.height, self.width) < 1 or self.channels not in (1, 3) or self.crop not in ("random", "center"):
            raise ParamsError(
                f"{self} makes no image; height and width are at least 1 px, channels 1 or 3, crop random or center"
            )

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
        chances = row_chances(rows, num=3, seed=self._seed, epoch=epoch, stream=STREAM)
        payloads = self._views(rows)
        for row, payload, target, chance in zip(rows.tolist(), payloads, out.numpy(), chances.T.tolist(), strict=True):
            try:
                pixels = self._cache.get(row)
                if pixels is None:
                    pixels = self._decode(payload)
                    self._cache.keep(row, pixels)
                self._place(pixels, target=target, chance=chance)
            except DataError as error:
                raise DataError(f"{self._describe(row)}: {error}") from error

    def _decode(self, payload: memoryview) -> Pixels:
        """Pixels that are valid until this thread decodes the next image."""
        self._resident += max(len(payload), FAULT_BYTES)
        if self._resident > RESIDENT_BYTES:
            self._resident = 0
            self._let_go()
        frame = find_frame(payload)
        channels = self._spec.channels
        if simplejpeg is None or frame is None or frame.layers not in (1, channels):
            return decode_any(payload, channels=channels)
        num_pixels = frame.height * frame.width
        if num_pixels > MAX_PIXELS:
            raise DataError(f"{frame.width} x {frame.height} px is more than the limit of {MAX_PIXELS} px")
        memory = self._borrow(num_pixels * channels)
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(payload, "GRAY" if channels == 1 else "RGB", buffer=memory)
        except ValueError as error:
            raise DataError(f"damaged JPEG image: {error}") from error
        return pixels

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
        spare_y, spare_x = pixels.shape[0] - spec.height, pixels.shape[1] - spec.width
        if spare_y < 0 or spare_x < 0:
            raise DataError(
                f"{pixels.shape[1]} x {pixels.shape[0]} px is smaller than the crop of {spec.width} x {spec.height}; "
                f"resize it in preprocess, or decode to a smaller size"
            )
        down, right, flip = chance if spec.crop == "random" else (0.5, 0.5, chance[2])
        top, left = int(down * (spare_y + 1)), int(right * (spare_x + 1))
        if spec.crop == "center":
            top, left = spare_y // 2, spare_x // 2
        target[...] = pixels[top : top + spec.height, left : left + spec.width]
        if spec.flip and flip < 0.5:
            import cv2

            # not on the way there: cv2 waits for memory that is not in the cache, where the copy lies now
            cv2.flip(target, 1, dst=target)


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


def decode_any(payload: memoryview, *, channels: int) -> Pixels:
    """Pixels of an image in any format of the package, shape (H, W, C); grey is made from colour, or the reverse.

    Raises:
        DataError: The bytes are no image, or a damaged one.
    """
    import cv2

    from datamill.modalities import image

    content = bytes(payload)
    if content.startswith(JPEG_START) and JPEG_END not in content[len(content) // 2 :]:
        raise DataError(f"damaged JPEG image: its {len(content)} bytes hold no end-of-image marker")
    try:
        pixels = image.decode(content)
    except cv2.error as error:
        raise DataError(f"damaged image: {error}") from error
    return image.resize(pixels, height=pixels.shape[0], width=pixels.shape[1], channels=channels)
