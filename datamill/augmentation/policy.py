"""What an augmentation policy is, and where its random numbers come from.

Policy file (JSON)::

    {"kind": "image", "seed": 7, "engine": "torch", "transforms": [{"name": "Affine", "probability": 0.9, ...}]}
"""

import difflib
import hashlib
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from datamill import files
from datamill.errors import ParamsError

if TYPE_CHECKING:
    from torch import Tensor


class Transform(BaseModel):
    """One step of a policy."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """A transform of the engine for images (Affine, HorizontalFlip, ...); ``jitter`` for tables."""
    probability: float = Field(ge=0, le=1)
    """Chance that the step is applied to a sample in an epoch."""
    arguments: dict[str, Any]
    """Its own arguments; for jitter ``share``: noise as a share of the feature's standard deviation over train."""


class Policy(BaseModel):
    """What is done to every training sample in every epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["image", "tabular"]
    seed: int
    engine: Literal["albumentations", "torch"] = "albumentations"
    transforms: tuple[Transform, ...]


class Augmenter(Protocol):
    """A policy ready to be applied."""

    @property
    def is_identity(self) -> bool:
        """Whether it leaves everything as it is."""

    def apply(self, x: NDArray[Any], *, sample_ids: NDArray[np.uint8], epoch: int) -> NDArray[Any]:
        """A batch augmented row by row, with the shape and type of ``x``.

        A row depends on the policy's seed, ``epoch`` and its own id, never on its neighbours in the batch.

        Args:
            x: Images, shape (B, H, W, C) uint8; or rows, shape (B, D) floating point.
            sample_ids: Ids as bytes, shape (B, 16).
            epoch: Pass over the data, from 0; offline copies use -1, -2, ...

        Raises:
            ParamsError: A transform fails on a sample or changes its shape or type.
        """


@runtime_checkable
class DeviceAugmenter(Augmenter, Protocol):
    """One that can work on the device that trains."""

    def augment(self, x: "Tensor", *, sample_ids: NDArray[np.uint8], epoch: int) -> "Tensor":
        """``apply`` for a tensor, where it lies."""


class Streams:
    """The random numbers of one sample at a time, reseeded in place: making new generators costs ten times as much."""

    def __init__(self, seed: int) -> None:
        """Streams of a policy with this seed; call ``enter`` before drawing."""
        self._seed = seed
        self._bits = np.random.PCG64(0)
        self.numpy = np.random.Generator(self._bits)
        self.python = random.Random(0)  # noqa: S311 (nothing secret is drawn)

    def enter(self, *, sample_id: bytes, epoch: int) -> None:
        """Put both generators at the start of this sample's stream for this epoch."""
        key = hashlib.blake2b(f"{self._seed}:{epoch}".encode(), digest_size=32).digest()
        digest = hashlib.blake2b(sample_id, digest_size=48, key=key).digest()
        state, increment, python = (int.from_bytes(digest[start : start + 16], "little") for start in (0, 16, 32))
        self._bits.state = {
            "bit_generator": "PCG64",
            "state": {"state": state, "inc": increment | 1},
            "has_uint32": 0,
            "uinteger": 0,
        }
        self.python.seed(python)


def save_policy(path: Path, *, policy: Policy) -> None:
    """Write a policy as JSON."""
    files.write_json(path, policy.model_dump(mode="json"))


def require_known(name: str, *, known: Iterable[str], kind: str, where: str) -> None:
    """Refuse a name that is not known.

    Raises:
        ParamsError: Names the nearest known ones, or all where none is near.
    """
    choices: Sequence[str] = sorted(known)
    if name in choices:
        return
    nearest = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(nearest)}?" if nearest else f"choose from {', '.join(choices)}"
    raise ParamsError(f"{where}: unknown {kind} {name!r}; {hint}")
