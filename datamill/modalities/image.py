"""Images: encoded bytes in parts, ``uint8`` arrays of shape (H, W, C) in memory, C 1 (grey) or 3 (RGB)."""

import io
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from datamill.errors import DataError
from datamill.modalities.headers import find_header
from datamill.samples import Dataset

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
MAGIC = {"PNG": rb"\x89PNG\r\n\x1a\n", "JPEG": rb"\xff\xd8\xff", "BMP": rb"BM", "WEBP": rb"RIFF....WEBPVP8[ LX]"}
READERS: dict[str, Callable[[io.BytesIO], Image.Image]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
REDUCED = {
    2: (cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    4: (cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    8: (cv2.IMREAD_REDUCED_COLOR_8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
}
MAX_PIXELS = 64_000_000  # a header that claims more is refused before anything is decoded
OBSERVED_SIZE = 16  # px; side of the thumbnail that stands for an image where only likeness matters
HASH_SIZE = 8  # px; a difference hash has HASH_SIZE x HASH_SIZE bits
MAX_COMPONENTS = 48
STACK_BYTES = 2**20  # pixels measured at once: few enough for the processor's cache

PROPERTIES = ("height", "width", "channels", "size_bytes", "pixel_mean", "pixel_std")
FEATURES = pa.schema(
    [
        *(pa.field(name, pa.int32(), nullable=False) for name in ("height", "width", "channels")),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("pixel_mean", pa.float64(), nullable=False),
        pa.field("pixel_std", pa.float64(), nullable=False),
        pa.field("fingerprint", pa.uint64(), nullable=False),
        pa.field("thumbnail", pa.binary(OBSERVED_SIZE**2), nullable=False),
        pa.field("moments", pa.list_(pa.field("element", pa.float64()), 8), nullable=False),
    ]
)


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
    found = find_header(payload)
    header = Header(*found) if found is not None else _read_odd_header(payload)
    if header.height * header.width > max_pixels:
        raise DataError(f"{header.width} x {header.height} px is more than the limit of {max_pixels} px")
    return header


def _read_odd_header(payload: bytes) -> Header:
    """Any other header, as Pillow's readers see it; ``Image.open`` would warn of many pixels before we refuse them."""
    name = next((name for name, magic in MAGIC.items() if re.match(magic, payload, re.DOTALL)), None)
    if name is None:
        raise DataError(f"no {', '.join(FORMATS)} image: the first bytes are {payload[:8]!r}")
    try:
        with READERS[name](io.BytesIO(payload)) as image:
            width, height = image.size
            return Header(name, height, width, 1 if image.mode in {"1", "L", "I;16", "I"} else 3)
    except (SyntaxError, IndexError, TypeError, struct.error) as error:
        raise DataError(f"no {', '.join(FORMATS)} image: the first bytes are {payload[:8]!r}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"damaged image header: {error}") from error


def decode(payload: bytes, *, reduction: int = 1) -> NDArray[np.uint8]:
    """Pixels of an encoded image, shape (H, W, C); EXIF orientation applied, alpha dropped, 16 bit scaled to 8.

    Args:
        payload: Encoded image.
        reduction: 2, 4 or 8 give so much smaller sides; of a JPEG they cost less than all pixels do.

    Raises:
        DataError: The bytes are no image, or a damaged one.
    """
    header = read_header(payload)
    flags = REDUCED[reduction][header.channels == 1] if reduction > 1 else None
    pixels = decode_blue_first(payload, header=header, flags=flags)
    image = pixels[:, :, None] if header.channels == 1 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return np.asarray(image, np.uint8)


def decode_blue_first(payload: bytes, *, header: Header, flags: int | None = None) -> NDArray[np.uint8]:
    """The same as the decoder gives them: shape (H, W) if grey, else (H, W, 3) in the order blue, green, red.

    Args:
        payload: Encoded image.
        header: What it says of itself.
        flags: OpenCV's, for other pixels than these.

    Raises:
        DataError: The image is damaged.
    """
    if flags is None:
        flags = cv2.IMREAD_GRAYSCALE if header.channels == 1 else cv2.IMREAD_COLOR
    pixels = cv2.imdecode(np.frombuffer(payload, np.uint8), flags)
    if pixels is None:
        raise DataError(f"damaged {header.format} image of {header.width} x {header.height} px")
    return np.asarray(pixels, np.uint8)


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
    return features(table, dataset=dataset).select(list(PROPERTIES))


def features(table: pa.Table, *, dataset: Dataset) -> pa.Table:
    """All that is worth knowing of each image, from one decoding.

    Args:
        table: Samples with their payload; they are decoded one after the other, so memory holds few pixels.
        dataset: Their data set.

    Returns:
        One row per image: its properties; ``fingerprint``, a difference hash: whether each pixel of a tiny grey
        thumbnail is brighter than its right neighbour; ``thumbnail``, the grey pixels of another one of
        ``OBSERVED_SIZE`` squared, row by row; ``moments``, means of red, green, blue and grey in [0, 1], then of their
        squares, where a grey image repeats its only channel.

    Source: N. Krawetz, "Kind of like that", 2013 (dHash).
    """
    payloads = pc.struct_field(table["image"], "bytes")
    measured = [_measure(stack) for stack in _stacks(decode(one) for one in payloads.to_pylist())]
    columns = {name: np.concatenate([one[name] for one in measured]) for name in measured[0]} if measured else {}
    if not columns:
        return FEATURES.empty_table()
    arrays: dict[str, Any] = {name: pa.array(column) for name, column in columns.items() if column.ndim == 1}
    arrays["size_bytes"] = pc.binary_length(payloads).cast(pa.int64())
    thumbnails = pa.py_buffer(columns["thumbnail"])
    arrays["thumbnail"] = pa.Array.from_buffers(FEATURES.field("thumbnail").type, table.num_rows, [None, thumbnails])
    arrays["moments"] = pa.FixedSizeListArray.from_arrays(
        columns["moments"].ravel(), type=FEATURES.field("moments").type
    )
    return pa.Table.from_arrays([arrays[name] for name in FEATURES.names], schema=FEATURES)


def _stacks(images: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Runs of images of one shape, each of shape (N, H, W, C): about ``STACK_BYTES`` of pixels, or one image."""
    run: list[NDArray[np.uint8]] = []
    for image in images:
        if run and (image.shape != run[0].shape or len(run) * image.nbytes >= STACK_BYTES):
            yield np.stack(run)
            run = []
        run.append(image)
    if run:
        yield np.stack(run)


def _measure(stack: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Features of images of one shape, shape (N, H, W, C)."""
    count, height, width, channels = stack.shape
    num_pixels = height * width
    greys = stack if channels == 1 else np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in stack])
    greys = greys.reshape(count, height, width)
    colours = [stack[..., place].reshape(count, num_pixels) for place in range(channels)]
    sums, squares = _moments([*colours, greys.reshape(count, num_pixels)] if channels > 1 else colours)
    mean, mean_square = (total[:, :channels].sum(axis=1) / (num_pixels * channels) for total in (sums, squares))
    repeated = [0, 1, 2, 3] if channels > 1 else [0, 0, 0, 0]
    moments = [sums[:, repeated] / (num_pixels * 255), squares[:, repeated] / (num_pixels * 255**2)]
    side = OBSERVED_SIZE
    small = _shrunk(greys, height=HASH_SIZE, width=HASH_SIZE + 1)
    bits = (small[:, :, :-1] > small[:, :, 1:]).reshape(count, HASH_SIZE * HASH_SIZE)
    return {
        **{name: np.full(count, n, np.int32) for name, n in zip(PROPERTIES, stack.shape[1:], strict=False)},
        "pixel_mean": mean,
        "pixel_std": np.sqrt(np.maximum(mean_square - mean**2, 0)),
        "fingerprint": np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64),
        "thumbnail": _shrunk(greys, height=side, width=side).reshape(count, -1),
        "moments": np.concatenate(moments, axis=1),
    }


def _shrunk(greys: NDArray[np.uint8], *, height: int, width: int) -> NDArray[np.uint8]:
    """What ``resize`` makes of each grey image, shape (N, height, width); ``height`` is a power of two.

    Images that shrink in both directions are averaged in one call, as one that is N times as high: a pixel of the
    result never reaches over the edge of its image then, and its weights are the same wherever it is.
    """
    count = len(greys)
    if height <= greys.shape[1] and width <= greys.shape[2]:
        tall = greys.reshape(count * greys.shape[1], greys.shape[2], 1)
        return resize(tall, height=count * height, width=width, channels=1).reshape(count, height, width)
    return np.stack([resize(grey[..., None], height=height, width=width, channels=1)[..., 0] for grey in greys])


def _moments(planes: list[NDArray[np.uint8]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sums and sums of squares of pixels, shape (N, len(planes)) each, for planes of shape (N, P)."""
    sums = [plane.sum(axis=1, dtype=np.int64) for plane in planes]
    squares = [np.square(plane, dtype=np.uint16).sum(axis=1, dtype=np.int64) for plane in planes]
    return np.stack(sums, axis=1), np.stack(squares, axis=1)


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
