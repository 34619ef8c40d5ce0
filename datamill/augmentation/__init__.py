"""Augmentation: a policy of random changes, and what applies it to images and tables.

A sample's change depends on the policy's seed, the epoch and the sample's id alone, never on its batch or on workers.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from datamill.augmentation.images import ImageAugmenter
from datamill.augmentation.policy import Augmenter, Policy
from datamill.augmentation.tables import TableAugmenter, column_scales
from datamill.errors import DataError

if TYPE_CHECKING:
    from datamill.augmentation.batched import BatchAugmenter

__all__ = ["Augmenter", "ImageAugmenter", "Policy", "TableAugmenter", "image_augmenter", "load_policy"]


def image_augmenter(policy: Policy) -> "BatchAugmenter | ImageAugmenter":
    """What applies a policy for images, by the policy's engine.

    Raises:
        ParamsError: The engine does not know a transform or an argument.
    """
    if policy.engine == "torch":
        from datamill.augmentation.batched import BatchAugmenter

        return BatchAugmenter(policy)
    return ImageAugmenter(policy)


def load_policy(path: Path, *, rows: NDArray[np.float32] | None = None) -> Augmenter:
    """The augmenter of a policy file, for training.

    Args:
        path: Written by ``save_policy``.
        rows: A table's whole training set as the network sees it, shape (N, D): each column's scale is learned from
            it. Needed for a table's policy that is not empty; images ignore it.

    Raises:
        DataError: The file is damaged.
        ParamsError: The policy's engine does not know a transform or an argument.
    """
    try:
        policy = Policy.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(
            f"{path} is no augmentation policy ({error.error_count()} faults); run augment again"
        ) from error
    if policy.kind == "image":
        return image_augmenter(policy)
    assert rows is not None or not policy.transforms, "a table's policy needs rows to learn the columns' scales from"
    return TableAugmenter(policy, scales=column_scales(rows) if rows is not None else np.zeros(0))
