"""Generators of synthetic samples, and the gate that decides which of them are admitted.

All of them work on points of a preprocessor's continuous space and know nothing of images or tables.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = Mapping[str, NDArray[np.float32]]
"""Points of each class, shape (N, D) each."""


class Generator(Protocol):
    """A fitted generator; fit functions take ``Rows`` and return one."""

    def sample(self, label: str, *, count: int, seed: int) -> NDArray[np.float32]:
        """New points of a class it was fitted on, shape (count, D); equal seeds give equal points."""
