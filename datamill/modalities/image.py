"""Images: encoded bytes in parts, ``uint8`` arrays of shape (H, W, C) in memory, C 1 (grey) or 3 (RGB)."""

import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from datamill.errors import DataError
from datamill.samples import Dataset

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
MAX_PIXELS = 64_000_000  # a header that claims more is refused before anything is decoded
OBSERVED_SIZE = 16  # px; side of the thumbnail that stands for an image where only likeness matters
HASH_SIZE = 8  # px; a difference hash has HASH_SIZE x HASH_SIZE bits
MAX_COMPONENTS = 48


@dataclass(frozen=True)
class Header:
    """What an image file says of itself before it is decoded."""

    format: str
    height: int
    width: int
    channels: int


def read_header(payload: bytes, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Format and size of an encoded image, without decoding it.

    Raises:
        DataError: No image of ``FORMATS``, a damaged header, or more than ``max_pixels`` pixels.
    """
    try:
        with Image.open(io.BytesIO(payload), formats=FORMATS) as image:
            width, height = image.size
            header = Header(str(image.format), height, width, 1 if image.mode in {"1", "L", "I;16", "I"} else 3)
    except UnidentifiedImageError as error:
        raise DataError(f"no {', '.join(FORMATS)} image: the first bytes are {payload[:8]!r}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"damaged image header: {error}") from error
    if header.height * header.width > max_pixels:
        raise DataError(f"{header.width} x {header.height} px is more than the limit of {max_pixels} px")
    return header


def decode(payload: bytes) -> NDArray[np.uint8]:
    """Pixels of an encoded image, shape (H, W, C); EXIF orientation applied, alpha dropped, 16 bit scaled to 8.

    Raises:
        DataError: The bytes are no image, or a damaged one.
    """
    header = read_header(payload)
    flag = cv2.IMREAD_GRAYSCALE if header.channels == 1 else cv2.IMREAD_COLOR
    pixels = cv2.imdecode(np.frombuffer(payload, np.uint8), flag)
    if pixels is None:
        raise DataError(f"damaged {header.format} image of {header.width} x {header.height} px")
    image = pixels[:, :, None] if header.channels == 1 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return np.asarray(image, np.uint8)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Lossless PNG bytes of an image, shape (H, W, C)."""
    pixels = image if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, buffer = cv2.imencode(".png", pixels)
    assert done
    return buffer.tobytes()


def resize(image: NDArray[np.uint8], *, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """``image`` at another size (area averaging when shrinking) and with 1 or 3 channels, shape (H, W, C)."""
    pixels: NDArray[Any] = image
    if image.shape[2] != channels:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY if channels == 1 else cv2.COLOR_GRAY2RGB)
    if pixels.shape[:2] != (height, width):
        shrinks = height * width < pixels.shape[0] * pixels.shape[1]
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(pixels.reshape(height, width, channels), np.uint8)


def decode_column(table: pa.Table) -> list[NDArray[np.uint8]]:
    """Every image of a table."""
    return [decode(image["bytes"]) for image in table["image"].to_pylist()]


def payload(images: list[NDArray[np.uint8]]) -> pa.Array:
    """The ``image`` column for arrays, encoded as PNG."""
    return pa.array([{"bytes": encode_png(image), "path": None} for image in images])


def properties(table: pa.Table, *, dataset: Dataset) -> pa.Table:
    """Height and width (px), channels, file size (bytes), mean and standard deviation of the pixels (0 to 255)."""
    payloads = [image["bytes"] for image in table["image"].to_pylist()]
    images = [decode(one) for one in payloads]
    return pa.table(
        {
            "height": pa.array([image.shape[0] for image in images], pa.int64()),
            "width": pa.array([image.shape[1] for image in images], pa.int64()),
            "channels": pa.array([image.shape[2] for image in images], pa.int64()),
            "size_bytes": pa.array([len(one) for one in payloads], pa.int64()),
            "pixel_mean": pa.array([float(image.mean()) for image in images], pa.float64()),
            "pixel_std": pa.array([float(image.std()) for image in images], pa.float64()),
        }
    )


def fingerprints(table: pa.Table, *, dataset: Dataset) -> NDArray[np.uint64]:
    """Difference hash: whether each pixel of a tiny grey thumbnail is brighter than its right neighbour.

    Source: N. Krawetz, "Kind of like that", 2013 (dHash).
    """
    small = np.stack(
        [resize(image, height=HASH_SIZE, width=HASH_SIZE + 1, channels=1)[..., 0] for image in decode_column(table)]
    )
    bits = (small[:, :, :-1] > small[:, :, 1:]).reshape(len(small), HASH_SIZE * HASH_SIZE)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def observations(table: pa.Table, *, dataset: Dataset) -> NDArray[np.float32]:
    """Grey thumbnails in [0, 1], flattened, shape (N, OBSERVED_SIZE squared)."""
    side = OBSERVED_SIZE
    small = [resize(image, height=side, width=side, channels=1).ravel() for image in decode_column(table)]
    return np.asarray(np.stack(small) / np.float32(255), np.float32)


def vectorizer(*, dataset: Dataset) -> Any:
    """Principal components of the thumbnails, at most ``MAX_COMPONENTS``, whitened."""
    from sklearn.decomposition import PCA

    return PCA(n_components=MAX_COMPONENTS, whiten=True, svd_solver="covariance_eigh")


def pictures(table: pa.Table, *, dataset: Dataset) -> list[NDArray[np.uint8]]:
    """The images themselves in RGB."""
    return [np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image for image in decode_column(table)]
