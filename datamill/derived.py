"""Samples the pipeline makes itself: their identity, and copies changed by an augmentation policy."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill import ledger, samples
from datamill.augmentation import Augmenter, ImageAugmenter
from datamill.jitter import TableAugmenter
from datamill.modalities import image as images
from datamill.policy import Policy
from datamill.samples import Dataset, Origin


def train_labels(audited: Path) -> dict[str, str]:
    """Label of every training sample that survived the audit, by id, in sample order."""
    table = ledger.read(audited, columns=["sample_id", "fate", "split", "label"])
    is_wanted = pc.and_(pc.is_in(table["fate"], pa.array(ledger.SURVIVING)), pc.equal(table["split"], "train"))
    table = table.filter(is_wanted)
    return dict(zip(table["sample_id"].to_pylist(), table["label"].to_pylist(), strict=True))


def payload_hashes(payload: Mapping[str, pa.Array | pa.ChunkedArray]) -> list[str]:
    """Content hash of each row of payload columns: equal payloads, whoever made them, share it."""
    if "image" in payload:
        return [samples.content_hash(cell["bytes"].as_py()) for cell in payload["image"]]
    rows = zip(*(column.to_pylist() for column in payload.values()), strict=True)
    return [samples.content_hash(repr(row).encode()) for row in rows]


def sample_table(
    payload: Mapping[str, pa.Array],
    *,
    sources: Sequence[str],
    labels: Sequence[str],
    parents: Sequence[Sequence[str]],
    origin: Origin,
) -> pa.Table:
    """Rows for a part: identity from ``sources`` and the payload's content; neither group nor time."""
    contents = payload_hashes(payload)
    return pa.table(
        {
            "sample_id": [
                samples.sample_id(source, content) for source, content in zip(sources, contents, strict=True)
            ],
            "source": pa.array(sources, pa.string()),
            "content_hash": pa.array(contents, pa.string()),
            "label": pa.array(labels, pa.string()),
            "origin": pa.array([origin] * len(contents), pa.string()),
            "parents": pa.array(parents, pa.list_(pa.string())),
            **payload,
        }
    )


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


def id_bytes(sample_ids: Sequence[str]) -> NDArray[np.uint8]:
    """Sample ids as bytes, shape (N, 16)."""
    raw = b"".join(bytes.fromhex(key) for key in sample_ids)
    return np.frombuffer(raw, np.uint8).reshape(len(sample_ids), samples.HASH_BYTES)
