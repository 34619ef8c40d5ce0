"""The samples of every work as NumPy files: real where they are installed, synthesised from a seed elsewhere."""

import gzip
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IDX = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's dataset-fashion-mnist puts it."""
IMAGE_SIDE, JPEG_SIDE, CLIP_SAMPLES = 28, 256, 16_000
JPEG_BYTES = 22_000  # aimed at
MAX_TOKENS, MEDIAN_TOKENS, SPREAD = 512, 80, 0.7
IDX_HEADER_BYTES = 16


def write_images(folder: Path, *, num_rows: int, idx: Path = IDX) -> str:
    """``x.npy``, uint8 (N, 28, 28), from an IDX folder's training images; what they are, in words."""
    path = next(iter(sorted(idx.glob("train-images*"))), None)
    if path is None:
        x = np.random.default_rng(0).integers(0, 256, (num_rows, IMAGE_SIDE, IMAGE_SIDE), dtype=np.uint8)
        words = f"no train-images in {idx}: SYNTHETIC noise in their place"
    else:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        x = np.frombuffer(raw, np.uint8, offset=IDX_HEADER_BYTES).reshape(-1, IMAGE_SIDE, IMAGE_SIDE)[:num_rows]
        words = f"{len(x):,} images of {idx.name}"
    np.save(folder / "x.npy", x)
    return words


def write_jpegs(folder: Path, *, num_rows: int) -> str:
    """``values.npy`` and ``offsets.npy``: photo-like JPEG files of 256 x 256 pixels."""
    with ThreadPoolExecutor(2) as pool:
        files = list(pool.map(_jpeg, range(num_rows)))
    _write_ragged(folder, values=np.frombuffer(b"".join(files), np.uint8), lengths=[len(file) for file in files])
    return f"{num_rows:,} JPEG files of {sum(map(len, files)) / num_rows / 1000:.1f} KB"


def write_sequences(folder: Path, *, num_rows: int) -> str:
    """``values.npy`` and ``offsets.npy``: int32 token numbers from 1, log-normal lengths."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(np.log(MEDIAN_TOKENS), SPREAD, num_rows)), 1, MAX_TOKENS).astype(np.int64)
    _write_ragged(folder, values=rng.integers(1, 32_000, lengths.sum(), dtype=np.int32), lengths=lengths.tolist())
    return f"{num_rows:,} sequences, median {np.median(lengths):.0f}, longest {lengths.max()}"


def write_clips(folder: Path, *, num_rows: int) -> str:
    """``x.npy``, int16 (N, 16000): a tone of its own in noise for each clip."""
    rng = np.random.default_rng(0)
    time_s = np.arange(CLIP_SAMPLES, dtype=np.float32) / CLIP_SAMPLES
    x = np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=np.int16, shape=(num_rows, CLIP_SAMPLES))
    for row in range(num_rows):
        tone = 8000 * np.sin(2 * np.pi * rng.uniform(100, 4000) * time_s)
        x[row] = tone + rng.integers(-500, 500, CLIP_SAMPLES, dtype=np.int16)
    x.flush()
    return f"{num_rows:,} clips of 1 s"


SOURCES: dict[str, Callable[..., str]] = {
    "images": write_images,
    "jpegs": write_jpegs,
    "sequences": write_sequences,
    "audio": write_clips,
}


def _write_ragged(folder: Path, *, values: NDArray[np.generic], lengths: list[int]) -> None:
    np.save(folder / "values.npy", values)
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def _jpeg(row: int) -> bytes:
    """Soft shapes over light and shade, with a sensor's grain: like a photograph to an encoder."""
    import cv2

    rng = np.random.default_rng(row)
    image = np.zeros((JPEG_SIDE, JPEG_SIDE, 3), np.float32)
    for side, strength in ((3, 90), (9, 50), (33, 28), (100, 14)):
        layer = rng.standard_normal((side, side, 3), dtype=np.float32) * strength
        image += cv2.resize(layer, (JPEG_SIDE, JPEG_SIDE), interpolation=cv2.INTER_CUBIC)
    for _ in range(6):
        centre, radius = rng.integers(0, JPEG_SIDE, 2).tolist(), int(rng.integers(10, 60))
        cv2.circle(image, centre, radius, rng.uniform(-90, 90, 3).tolist(), -1, cv2.LINE_AA)
    image += rng.standard_normal((JPEG_SIDE, JPEG_SIDE, 1), dtype=np.float32) * 5
    pixels = np.clip(image + 120, 0, 255).astype(np.uint8)
    for quality in range(94, 40, -2):
        file = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(file) <= JPEG_BYTES * 1.04:
            break
    return file
