"""Tiny data sets as parts folders, for tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from datamill import parts, samples
from datamill.modalities import image
from datamill.parts import PartsWriter
from datamill.samples import Dataset, Feature

CLASSES = ("0", "1", "2")
NUM_SAMPLES = 64
NUM_GROUPS = 8


def identity(contents: Sequence[str], *, labels: Sequence[str]) -> dict[str, pa.Array]:
    """Identity columns for samples with these content hashes: source ``item-0007``, group ``g7``, one hour apart."""
    count = len(contents)
    sources = [f"item-{row:04d}" for row in range(count)]
    return {
        "sample_id": pa.array([samples.sample_id(s, c) for s, c in zip(sources, contents, strict=True)]),
        "source": pa.array(sources),
        "content_hash": pa.array(contents),
        "label": pa.array(labels),
        "group": pa.array([f"g{row % NUM_GROUPS}" for row in range(count)]),
        "time": pa.array([row * 3_600_000_000 for row in range(count)], pa.timestamp("us", tz="UTC")),
        "origin": pa.array(["source"] * count),
        "parents": pa.array([[]] * count, pa.list_(pa.string())),
    }


def image_table(
    *, num_samples: int = NUM_SAMPLES, size: int = 8, channels: int = 1, seed: int = 0
) -> tuple[Dataset, pa.Table]:
    """Noisy images whose class is the third of the picture that is bright: three classes, easy to learn."""
    rng = np.random.default_rng(seed)
    labels = [CLASSES[row % len(CLASSES)] for row in range(num_samples)]
    payloads = []
    for label in labels:
        pixels = rng.integers(0, 60, (size, size, channels), dtype=np.uint8)
        third = size // 3
        pixels[int(label) * third : (int(label) + 1) * third] += 180
        payloads.append(image.encode_png(pixels))
    columns = identity([samples.content_hash(payload) for payload in payloads], labels=labels)
    columns["image"] = pa.array([{"bytes": payload, "path": None} for payload in payloads])
    return Dataset(name="bars", modality="image", classes=CLASSES), pa.table(columns)


def tabular_table(*, num_samples: int = NUM_SAMPLES, seed: int = 0) -> tuple[Dataset, pa.Table]:
    """Three well separated clusters in two numbers, one noise number with holes, one category."""
    rng = np.random.default_rng(seed)
    labels = [CLASSES[row % len(CLASSES)] for row in range(num_samples)]
    centre = np.array([int(label) * 4.0 for label in labels])
    noise = [None if row % 10 == 3 else float(rng.normal()) for row in range(num_samples)]
    features = {
        "height": (centre + rng.normal(0, 0.5, num_samples)).tolist(),
        "width": (-centre + rng.normal(0, 0.5, num_samples)).tolist(),
        "noise": noise,
        "colour": [("red", "green", "blue")[int(label)] for label in labels],
    }
    contents = [samples.content_hash(repr(row).encode()) for row in zip(*features.values(), strict=True)]
    kinds = {"height": "number", "width": "number", "noise": "number", "colour": "category"}
    dataset = Dataset(
        name="clusters",
        modality="tabular",
        classes=CLASSES,
        features=tuple(Feature(name=name, kind=kind) for name, kind in kinds.items()),  # type: ignore[arg-type]
    )
    columns = identity(contents, labels=labels)
    for feature in dataset.features:
        kind = pa.float64() if feature.kind == "number" else pa.string()
        columns[feature.column] = pa.array(features[feature.name], kind)
    return dataset, pa.table(columns)


def write_parts(folder: Path, dataset: Dataset, table: pa.Table) -> Path:
    """A parts folder with these samples."""
    with PartsWriter(folder, dataset=dataset) as writer:
        writer.write(table)
    return folder


def small_parts(monkeypatch: pytest.MonkeyPatch, *, target_bytes: int, least_row_bytes: int) -> None:
    """From now on parts end after so many bytes on average; a row counts for at least so many."""
    sizes = {"TARGET_BYTES": target_bytes, "MIN_BYTES": target_bytes // 4, "MAX_BYTES": 2 * target_bytes}
    for name, size in (sizes | {"LEAST_ROW_BYTES": least_row_bytes}).items():
        monkeypatch.setattr(parts.writing, name, size)
