"""Augmentation of whole batches with torch, on the device that trains: a few operations for any number of images.

The transforms carry the names and arguments of their albumentations namesakes. What is drawn for an image depends on
the policy's seed, the epoch and the image's id alone, on every device; pixels agree between devices up to the rounding
of bilinear interpolation.
"""

# Shapes: B images of a batch, H height (px), W width (px), C channels.

import hashlib
import math
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor
from torch.nn import functional

from datamill.augmentation.policy import Policy, Transform, require_known
from datamill.errors import ParamsError
from datamill.mixing import INCREMENT, mixed

LARGEST = 255.0

Range = tuple[float, float]


class BatchAugmenter:
    """Applies transforms to all images of a batch at once."""

    def __init__(self, policy: Policy) -> None:
        """Check every transform of the policy.

        Raises:
            ParamsError: A name or an argument is wrong.
        """
        self._seed = policy.seed
        self._steps = [(step.probability, make_step(step)) for step in policy.transforms]

    @property
    def is_identity(self) -> bool:
        """Whether there is no transform."""
        return not self._steps

    def apply(self, x: NDArray[np.uint8], *, sample_ids: NDArray[np.uint8], epoch: int) -> NDArray[np.uint8]:
        """Images augmented together, shape (B, H, W, C); see ``Augmenter.apply``."""
        if self.is_identity or not len(x):
            return x
        augmented = self.augment(torch.from_numpy(np.array(x)), sample_ids=sample_ids, epoch=epoch)
        return np.asarray(augmented.numpy(), np.uint8)

    def augment(self, x: Tensor, *, sample_ids: NDArray[np.uint8], epoch: int) -> Tensor:
        """The same for a uint8 tensor on any device, where the result stays.

        Args:
            x: Images, shape (B, H, W, C), uint8.
            sample_ids: Ids as bytes, shape (B, 16).
            epoch: Pass over the data, from 0; offline copies use -1, -2, ...
        """
        image_BCHW = x.permute(0, 3, 1, 2).to(torch.float32)
        for number, (probability, step) in enumerate(self._steps):
            chance = chances(sample_ids, num=1 + step.num_chances, key=f"{self._seed}:{epoch}:{number}")
            rows = np.flatnonzero(chance[0] < probability)
            if not len(rows):
                continue
            picked = torch.from_numpy(rows).to(image_BCHW.device)
            drawn = torch.from_numpy(chance[1:, rows].astype(np.float32)).to(image_BCHW.device)
            changed = step.change(image_BCHW[picked], chance=drawn)
            image_BCHW = image_BCHW.index_copy(0, picked, changed.clamp(0, LARGEST))
        return image_BCHW.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


class Step(BaseModel):
    """A transform with its arguments; ``chance`` holds ``num_chances`` uniform numbers in [0, 1) for each image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_chances: ClassVar[int] = 0

    def change(self, image_BCHW: Tensor, *, chance: Tensor) -> Tensor:
        """Changed images, float32; chance has shape (num_chances, B)."""
        raise NotImplementedError


class HorizontalFlip(Step):
    """Left becomes right."""

    def change(self, image_BCHW: Tensor, *, chance: Tensor) -> Tensor:
        """See ``Step``."""
        return image_BCHW.flip(3)


class VerticalFlip(Step):
    """Top becomes bottom."""

    def change(self, image_BCHW: Tensor, *, chance: Tensor) -> Tensor:
        """See ``Step``."""
        return image_BCHW.flip(2)


class Affine(Step):
    """Rotated, scaled, sheared and moved about the centre; bilinear, black where nothing was."""

    num_chances: ClassVar[int] = 7

    rotate: Range = (0.0, 0.0)
    """Degrees, counter-clockwise."""
    scale: Range = (1.0, 1.0)
    """Factor, drawn for each axis by itself."""
    translate_percent: Range = (0.0, 0.0)
    """Share of the side, drawn for each axis by itself."""
    shear: Range = (0.0, 0.0)
    """Degrees, drawn for each axis by itself."""

    @model_validator(mode="after")
    def _scale_is_positive(self) -> "Affine":
        if min(self.scale) <= 0:
            raise ValueError(f"scale was {list(self.scale)}; give factors above 0")
        return self

    def change(self, image_BCHW: Tensor, *, chance: Tensor) -> Tensor:
        """See ``Step``."""
        turn, scale_x, scale_y, shift_x, shift_y, shear_x, shear_y = chance
        angle = torch.deg2rad(_between(turn, self.rotate))
        lean_x, lean_y = (torch.tan(torch.deg2rad(_between(one, self.shear))) for one in (shear_x, shear_y))
        wide, high = (_between(one, self.scale) for one in (scale_x, scale_y))
        height, width = image_BCHW.shape[2:]
        cos, sin = torch.cos(angle), torch.sin(angle)
        # forward: turn . shear . scale, in pixels about the centre; grid_sample wants its inverse, in half sides
        forward = torch.stack(
            [
                torch.stack([(cos + sin * lean_y) * wide, (cos * lean_x + sin) * high], dim=1),
                torch.stack([(cos * lean_y - sin) * wide, (cos - sin * lean_x) * high], dim=1),
            ],
            dim=1,
        )
        back = torch.linalg.inv(forward)
        half = torch.tensor([width / 2, height / 2], device=image_BCHW.device)
        shift = torch.stack([_between(shift_x, self.translate_percent), _between(shift_y, self.translate_percent)], 1)
        matrix = back * half[None, None, :] / half[None, :, None]
        offset = -(matrix @ (2 * shift)[:, :, None])
        grid = functional.affine_grid(torch.cat([matrix, offset], dim=2), list(image_BCHW.shape), align_corners=False)
        return functional.grid_sample(image_BCHW, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class RandomBrightnessContrast(Step):
    """Values times 1 + contrast, plus brightness times the largest value."""

    num_chances: ClassVar[int] = 2

    brightness_limit: Range = (-0.2, 0.2)
    """Share of the largest value."""
    contrast_limit: Range = (-0.2, 0.2)
    """Share of the value."""

    def change(self, image_BCHW: Tensor, *, chance: Tensor) -> Tensor:
        """See ``Step``."""
        brightness, contrast = _between(chance[0], self.brightness_limit), _between(chance[1], self.contrast_limit)
        return image_BCHW * _each(1 + contrast) + _each(brightness * LARGEST)


class Erasing(Step):
    """A rectangle becomes black.

    Source: Z. Zhong, L. Zheng, G. Kang, S. Li, Y. Yang, "Random Erasing Data Augmentation", 2020.
    """

    num_chances: ClassVar[int] = 4

    scale: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (0.02, 0.33)
    """Share of the image's area."""
    ratio: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.3, 3.3)
    """Width over height, drawn on a logarithmic scale."""

    def change(self, image_BCHW: Tensor, *, chance: Tensor) -> Tensor:
        """See ``Step``."""
        height, width = image_BCHW.shape[2:]
        area = _between(chance[0], self.scale) * height * width
        ratio = torch.exp(_between(chance[1], (math.log(self.ratio[0]), math.log(self.ratio[1]))))
        wide, high = torch.sqrt(area * ratio).clamp(1, width), torch.sqrt(area / ratio).clamp(1, height)
        left, top = chance[2] * (width - wide), chance[3] * (height - high)
        x, y = (torch.arange(side, device=image_BCHW.device) + 0.5 for side in (width, height))
        across = (x >= left[:, None]) & (x < (left + wide)[:, None])
        down = (y >= top[:, None]) & (y < (top + high)[:, None])
        return image_BCHW.masked_fill((down[:, :, None] & across[:, None, :])[:, None], 0.0)


STEPS: dict[str, type[Step]] = {
    step.__name__: step for step in (Affine, Erasing, HorizontalFlip, RandomBrightnessContrast, VerticalFlip)
}


def make_step(transform: Transform) -> Step:
    """The step that a transform of a policy names.

    Raises:
        ParamsError: There is no such transform, or an argument is unknown or wrong.
    """
    where = "augment.transforms"
    require_known(transform.name, known=STEPS, kind="transform for engine torch", where=where)
    kind = STEPS[transform.name]
    for argument in transform.arguments:
        require_known(argument, known=kind.model_fields, kind="argument", where=f"{where}: {transform.name}")
    try:
        return kind(**_symmetric(transform.arguments))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = ".".join(map(str, fault["loc"][:1])) or "arguments"
        raise ParamsError(
            f"{where}: {transform.name}: {name} was {transform.arguments.get(name)!r}: {fault['msg']}"
        ) from error


def chances(sample_ids: NDArray[np.uint8], *, num: int, key: str) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) that depend on an image's id and the key alone, shape (num, B)."""
    digest = hashlib.blake2b(key.encode(), digest_size=8 * num).digest() if num <= 8 else b""
    assert digest, f"{num} numbers, at most 8"
    keys = np.frombuffer(digest, "<u8").astype(np.uint64)
    halves = np.ascontiguousarray(sample_ids).view("<u8").astype(np.uint64).reshape(-1, 2)
    bits = mixed(mixed(halves[:, 0] + INCREMENT) ^ halves[:, 1])
    return np.asarray((mixed(bits ^ keys[:, None]) >> np.uint64(11)) * 2.0**-53)


def _symmetric(arguments: dict[str, Any]) -> dict[str, Any]:
    """A single limit stands for the range around 0, as in albumentations."""
    return {
        name: (-value, value) if name.endswith("_limit") and isinstance(value, int | float) else value
        for name, value in arguments.items()
    }


def _between(chance: Tensor, limits: Range) -> Tensor:
    return limits[0] + chance * (limits[1] - limits[0])


def _each(values: Tensor) -> Tensor:
    """One value per image, for all its pixels."""
    return values[:, None, None, None]
