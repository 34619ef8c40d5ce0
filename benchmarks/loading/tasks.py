"""What is done to the samples of each work, one by one or a batch at a time; every peer calls these."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.loading.contender import Batch

MEAN, STD = 0.2860, 0.3530  # of pixel / 255 in Fashion-MNIST
SCALE, OFFSET = 1 / (255 * STD), -MEAN / STD
CROP, EDGE = 224, 16
WINDOW = 8000
AUDIO_SCALE = 1 / 32768


class Source(Protocol):
    """Samples by row."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Any:
        """One sample as it is stored."""

    def take(self, rows: NDArray[np.int64]) -> Any:
        """Samples as they are stored."""


@dataclass
class Arrays:
    """Samples of one shape, memory-mapped or in memory."""

    folder: Path
    in_memory: bool = False

    @cached_property
    def x(self) -> NDArray[Any]:
        """All samples."""
        x: NDArray[Any] = np.asarray(np.load(self.folder / "x.npy", mmap_mode=None if self.in_memory else "r"))
        return x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> NDArray[Any]:
        sample: NDArray[Any] = self.x[row]
        return sample

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        taken: NDArray[Any] = self.x[rows]
        return taken


@dataclass
class Ragged:
    """Samples of any length, memory-mapped or in memory."""

    folder: Path
    in_memory: bool = False

    @cached_property
    def values(self) -> NDArray[Any]:
        """All samples, end to end."""
        return np.asarray(np.load(self.folder / "values.npy", mmap_mode=None if self.in_memory else "r"))

    @cached_property
    def offsets(self) -> list[int]:
        """Where each sample starts, and the end."""
        offsets: list[int] = np.load(self.folder / "offsets.npy").tolist()
        return offsets

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Elements of each sample."""
        return np.diff(np.load(self.folder / "offsets.npy"))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def take(self, rows: NDArray[np.int64]) -> list[NDArray[Any]]:
        return [self[row] for row in rows.tolist()]


class Task(Protocol):
    """One work's samples and what becomes of them."""

    dtype: ClassVar[str]
    shape: ClassVar[tuple[int, ...] | None]
    """Of one stored sample; ``None`` where it varies."""

    def source(self, folder: Path, *, in_memory: bool = False) -> Source:
        """The samples."""

    def one(self, sample: Any) -> Any:
        """What has to be done to each sample by itself."""

    def collate(self, samples: Sequence[Any], ids: Any) -> Batch:
        """A batch of samples that went through ``one``."""

    def many(self, samples: Any, ids: Any) -> Batch:
        """A batch of stored samples, for peers that read a whole batch at once."""

    def fault(self, batch: Batch, source: Source, *, is_strict: bool) -> str | None:
        """What is wrong with a batch, compared with the samples it names.

        A peer that decodes only the crop has other colours at its edges; only what is ``is_strict`` may not.
        """


class Images(Task):
    """Work 1 and 2: normalised float32."""

    dtype = "uint8"
    shape = (28, 28)

    def source(self, folder: Path, *, in_memory: bool = False) -> Arrays:
        return Arrays(folder, in_memory)

    def one(self, sample: NDArray[Any]) -> NDArray[Any]:
        return sample

    def collate(self, samples: Sequence[NDArray[Any]], ids: Any) -> Batch:
        return self.many(np.stack(samples), ids)

    def many(self, samples: Any, ids: Any) -> Batch:
        import torch

        x = torch.as_tensor(samples).reshape(-1, 1, 28, 28).to(torch.float32)
        return Batch(x.mul_(SCALE).add_(OFFSET), ids)

    def fault(self, batch: Batch, source: Source, *, is_strict: bool) -> str | None:
        ids = np.asarray(batch.ids)
        wanted = source.take(ids).reshape(len(ids), -1) * SCALE + OFFSET
        error = float(np.abs(np.asarray(batch.x).reshape(len(ids), -1) - wanted).max())
        return f"a pixel is off by {error:.2g}" if error > 1e-4 or "float32" not in str(batch.x.dtype) else None


class Jpegs(Task):
    """Work 3: decoded, cropped at random to 224 x 224, flipped at random, uint8."""

    dtype = "uint8"
    shape = None

    def source(self, folder: Path, *, in_memory: bool = False) -> Ragged:
        return Ragged(folder, in_memory)

    def one(self, sample: Any) -> NDArray[Any]:
        import cv2
        import simplejpeg

        image = simplejpeg.decode_jpeg(memoryview(sample))
        top, left = (random.randrange(image.shape[axis] - CROP + 1) for axis in (0, 1))  # noqa: S311
        crop = image[top : top + CROP, left : left + CROP]
        return np.asarray(cv2.flip(crop, 1)) if random.random() < 0.5 else crop  # noqa: S311

    def collate(self, samples: Sequence[NDArray[Any]], ids: Any) -> Batch:
        import torch

        return Batch(torch.from_numpy(np.stack(samples)), ids)

    def many(self, samples: Any, ids: Any) -> Batch:
        return self.collate([self.one(sample) for sample in samples], ids)

    def fault(self, batch: Batch, source: Source, *, is_strict: bool) -> str | None:
        x = np.asarray(batch.x)
        x = x if x.shape[-1] == 3 else x.transpose(0, 2, 3, 1)
        for row, crop in list(zip(np.asarray(batch.ids).tolist(), x, strict=True))[:4]:
            if not is_crop(crop, of=decode_reference(source[row]), margin=0 if is_strict else EDGE):
                return f"the pixels of row {row} are not a crop of what libjpeg-turbo decodes"
        return None


class Sequences(Task):
    """Work 4: padded with 0 to the longest of the batch."""

    dtype = "int32"
    shape = None

    def source(self, folder: Path, *, in_memory: bool = False) -> Ragged:
        return Ragged(folder, in_memory)

    def one(self, sample: NDArray[Any]) -> NDArray[Any]:
        return sample

    def collate(self, samples: Sequence[NDArray[Any]], ids: Any) -> Batch:
        import torch

        padded = np.zeros((len(samples), max(map(len, samples))), np.int32)
        for row, sample in zip(padded, samples, strict=True):
            row[: len(sample)] = sample
        return Batch(torch.from_numpy(padded), ids)

    def many(self, samples: Any, ids: Any) -> Batch:
        return self.collate(samples, ids)

    def fault(self, batch: Batch, source: Source, *, is_strict: bool) -> str | None:
        for row, padded in zip(np.asarray(batch.ids).tolist(), np.asarray(batch.x), strict=True):
            sample = source[row]
            if not np.array_equal(padded[: len(sample)], sample) or padded[len(sample) :].any():
                return f"row {row} is not its tokens and zeros"
        return None


class Audio(Task):
    """Work 5: a random half of each clip, float32 in [-1, 1)."""

    dtype = "int16"
    shape = (16_000,)

    def source(self, folder: Path, *, in_memory: bool = False) -> Arrays:
        return Arrays(folder, in_memory)

    def one(self, sample: NDArray[Any]) -> NDArray[Any]:
        start = random.randrange(len(sample) - WINDOW + 1)  # noqa: S311
        return sample[start : start + WINDOW]

    def collate(self, samples: Sequence[NDArray[Any]], ids: Any) -> Batch:
        import torch

        return Batch(torch.from_numpy(np.stack(samples)).to(torch.float32).mul_(AUDIO_SCALE), ids)

    def many(self, samples: Any, ids: Any) -> Batch:
        return self.collate([self.one(sample) for sample in np.asarray(samples)], ids)

    def fault(self, batch: Batch, source: Source, *, is_strict: bool) -> str | None:
        for row, window in list(zip(np.asarray(batch.ids).tolist(), np.asarray(batch.x), strict=True))[:8]:
            if not is_window(np.asarray(window).reshape(-1), of=source[row]):
                return f"row {row} is not a window of its clip"
        return None


def decode_reference(file: Any) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) as OpenCV's libjpeg-turbo decodes them."""
    import cv2

    return np.ascontiguousarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1])


def is_crop(crop: NDArray[np.uint8], *, of: NDArray[np.uint8], margin: int = 0) -> bool:
    """Is ``crop``, or its mirror image, a part of the image, pixel by pixel?

    Args:
        crop: Pixels, shape (H, W, 3).
        of: The whole image.
        margin: Pixels at every edge of ``crop`` that do not count.
    """
    crop = crop[margin : len(crop) - margin, margin : crop.shape[1] - margin]
    height, width = crop.shape[:2]
    tops, lefts = of.shape[0] - height + 1, of.shape[1] - width + 1
    for candidate in (crop, crop[:, ::-1]):
        corner = (of[:tops, :lefts] == candidate[0, 0]).all(-1)
        for top, left in np.argwhere(corner):
            if np.array_equal(of[top : top + height, left : left + width], candidate):
                return True
    return False


def is_window(window: NDArray[np.float32], *, of: NDArray[np.int16]) -> bool:
    """Is ``window``, a part of the clip, scaled to [-1, 1)?"""
    found = np.rint(window / AUDIO_SCALE).astype(np.int64)
    starts = np.flatnonzero(of[: len(of) - len(found) + 1] == found[0])
    return any(np.array_equal(of[start : start + len(found)], found) for start in starts)


TASKS: dict[str, Task] = {"images": Images(), "jpegs": Jpegs(), "sequences": Sequences(), "audio": Audio()}
