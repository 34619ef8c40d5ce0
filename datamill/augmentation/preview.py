"""The augmentation preview: what a policy does to real samples, as one picture."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill import sheets
from datamill.augmentation import copies
from datamill.augmentation.policy import Augmenter, Policy
from datamill.derived import TrainClass
from datamill.modalities import image as images
from datamill.preprocessing.moments import Moments
from datamill.samples import Dataset, id_bytes

NUM_VARIANTS = 7  # augmented pictures beside each original: what training sees in its first epochs


def choose_across_classes(members: Mapping[str, TrainClass], *, count: int) -> dict[str, str]:
    """Label by id of at most ``count`` samples: one class after the other in turn, then grouped by class.

    Args:
        members: Training samples of each class in random order.
        count: Samples to choose (count).
    """
    turns = sorted(
        (turn, place, key, label)
        for place, (label, its) in enumerate(members.items())
        for turn, key in enumerate(its.ids[:count])
    )
    return {key: label for _, _, key, label in sorted(turns[:count], key=lambda chosen: chosen[1::-1])}


def write_preview(
    path: Path,
    *,
    shown: pa.Table,
    labels: Mapping[str, str],
    policy: Policy,
    augmenter: Augmenter,
    dataset: Dataset,
    moments: Moments,
) -> None:
    """Draw real samples beside what the policy makes of them.

    Args:
        path: The PNG file.
        shown: The samples to draw, with payload.
        labels: Label by id.
        policy: What the heading says is done.
        augmenter: Its augmenter for samples as they are in parts.
        dataset: What the payload is.
        moments: Of the numeric columns of all training rows of a table: the unit of the picture.
    """
    if dataset.modality == "image":
        _write_images(path, shown=shown, labels=labels, policy=policy, augmenter=augmenter)
        return
    values = copies.numeric_values(shown, dataset=dataset)
    if not values.size:
        sheets.write_sheet(path, [], [], 1, f"{_heading(policy)}\nno numeric feature of a training sample to show")
        return
    mean, unit = moments.mean, np.where(moments.std > 0, moments.std, 1.0)
    ids = id_bytes(shown["sample_id"])
    after = None if augmenter.is_identity else (augmenter.apply(values, sample_ids=ids, epoch=0) - mean) / unit
    names = [feature.name for feature in dataset.features if feature.kind == "number"]
    sheets.write_strips(path, names, (values - mean) / unit, after, _heading(policy))


def _write_images(
    path: Path, *, shown: pa.Table, labels: Mapping[str, str], policy: Policy, augmenter: Augmenter
) -> None:
    """One row per original: the original, then the variants of the first epochs; originals alone without a policy."""
    keys = shown["sample_id"].to_pylist()
    ids = id_bytes(shown["sample_id"])
    num_variants = 0 if augmenter.is_identity else NUM_VARIANTS
    pictures: list[NDArray[np.uint8]] = []
    titles: list[str] = []
    for row, image in enumerate(images.decode_column(shown)):
        pictures.append(_rgb(image))
        titles.append(labels[keys[row]])
        for epoch in range(num_variants):
            variant = augmenter.apply(image[None], sample_ids=ids[row : row + 1], epoch=epoch)[0]
            pictures.append(_rgb(variant))
            titles.append(f"epoch {epoch + 1}")
    sheets.write_sheet(path, pictures, titles, NUM_VARIANTS + 1, _heading(policy))


def _rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _heading(policy: Policy) -> str:
    """A title and one line per transform."""
    if not policy.transforms:
        return "Training samples: no augmentation configured"
    steps = []
    for step in policy.transforms:
        arguments = ", ".join(f"{name} {value}" for name, value in step.arguments.items())
        steps.append(f"{step.name}, probability {step.probability:g}" + (f": {arguments}" if arguments else ""))
    return "\n".join(["Augmentation: each original, then what training makes of it", *steps])
