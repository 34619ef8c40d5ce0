"""Copies of samples changed by an augmentation policy, as new samples that name their parents."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.augmentation.images import ImageAugmenter
from datamill.augmentation.policy import Augmenter, Policy
from datamill.augmentation.tables import TableAugmenter
from datamill.derived import id_bytes, payload_hashes, sample_table
from datamill.modalities import image as images
from datamill.samples import Dataset


def copies_of(
    table: pa.Table,
    *,
    augmenter: Augmenter,
    dataset: Dataset,
    labels: Mapping[str, str],
    num_copies: int,
) -> Iterator[pa.Table]:
    """Changed copies of samples, one table per round.

    A copy keeps its parent's group and time. A copy equal to its parent or to an earlier copy of it is left out: it
    would only give that picture more weight.

    Args:
        table: The parents, with payload.
        augmenter: Draws round k as epoch -k, which no training run asks for.
        dataset: What the payload is.
        labels: Label of each copy by its parent's id.
        num_copies: Rounds (count).
    """
    ids = table["sample_id"].to_pylist()
    unchanged = payload_hashes(augmented_payload(table, augmenter=None, dataset=dataset, epoch=0))
    seen = [{content} for content in unchanged]
    for copy in range(1, num_copies + 1):
        payload = augmented_payload(table, augmenter=augmenter, dataset=dataset, epoch=-copy)
        copied = sample_table(
            payload,
            sources=[f"augment:{copy}:{parent}" for parent in ids],
            labels=[labels[parent] for parent in ids],
            parents=[[parent] for parent in ids],
            origin="augmented",
        )
        copied = copied.append_column("group", table["group"]).append_column("time", table["time"])
        contents = copied["content_hash"].to_pylist()
        is_new = [content not in before for content, before in zip(contents, seen, strict=True)]
        for content, before in zip(contents, seen, strict=True):
            before.add(content)
        yield copied.filter(pa.array(is_new, pa.bool_()))


def augmented_payload(
    table: pa.Table, *, augmenter: Augmenter | None, dataset: Dataset, epoch: int
) -> dict[str, pa.Array]:
    """Payload columns after one round of augmentation; without an augmenter the same values, encoded the same way."""
    ids = id_bytes(table["sample_id"].to_pylist())
    if dataset.modality == "image":
        decoded = images.decode_column(table)
        if augmenter is not None:  # one by one: images in parts differ in size
            decoded = [
                augmenter.apply(image[None], sample_ids=ids[row : row + 1], epoch=epoch)[0]
                for row, image in enumerate(decoded)
            ]
        return {"image": images.payload(decoded)}
    numbers = numeric_columns(dataset)
    columns = {feature.column: table[feature.column].combine_chunks() for feature in dataset.features}
    if augmenter is not None:
        values = augmenter.apply(numeric_values(table, dataset=dataset), sample_ids=ids, epoch=epoch)
        columns |= {name: pa.array(values[:, place], from_pandas=True) for place, name in enumerate(numbers)}
    return columns


def source_augmenter(policy: Policy, *, train: pa.Table, dataset: Dataset) -> ImageAugmenter | TableAugmenter:
    """The augmenter of a policy for samples as they are in parts, before preprocessing.

    Args:
        policy: The policy.
        train: Numeric columns of all training rows, for the scale of each; images need none.
        dataset: What the payload is.

    Raises:
        ParamsError: The policy is wrong.
    """
    if policy.kind == "image":
        return ImageAugmenter(policy)
    return TableAugmenter(policy, scales=moments(numeric_values(train, dataset=dataset))[1])


def check_on_images(augmenter: ImageAugmenter | TableAugmenter, *, table: pa.Table) -> None:
    """Run every image transform on real samples; tables' transforms were checked when the augmenter was built.

    Raises:
        ParamsError: A transform fails, or changes the shape or type of an image.
    """
    if isinstance(augmenter, ImageAugmenter):
        for image in images.decode_column(table):
            augmenter.check(image)


def numeric_columns(dataset: Dataset) -> list[str]:
    """Names of the numeric columns of a part."""
    return [feature.column for feature in dataset.features if feature.kind == "number"]


def numeric_values(table: pa.Table, *, dataset: Dataset) -> NDArray[np.float64]:
    """Numeric columns, shape (N, F), NaN for missing values."""
    columns = [table[name].to_numpy() for name in numeric_columns(dataset)]
    return np.stack(columns, axis=1).astype(np.float64) if columns else np.zeros((table.num_rows, 0))


def moments(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of the finite values of each column, shape (F,) each; 0 where there are none."""
    finite = np.where(np.isfinite(values), values, np.nan)
    has_any = np.isfinite(values).any(axis=0)
    mean, std = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    mean[has_any], std[has_any] = np.nanmean(finite[:, has_any], axis=0), np.nanstd(finite[:, has_any], axis=0)
    return mean, std
