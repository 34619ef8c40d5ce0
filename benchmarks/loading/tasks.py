"""What is done to the samples of each work, one by one or a batch at a time; every peer calls these."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.loading.checks import AUDIO_SCALE, decode_reference, is_crop, is_window
from benchmarks.loading.contender import Batch
from benchmarks.loading.stored import Arrays, Ragged, Source

MEAN, STD = 0.2860, 0.3530  # of pixel / 255 in Fashion-MNIST
SCALE, OFFSET = 1 / (255 * STD), -MEAN / STD
CROP, EDGE = 224, 16
WINDOW = 8000


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


TASKS: dict[str, Task] = {"images": Images(), "jpegs": Jpegs(), "sequences": Sequences(), "audio": Audio()}
