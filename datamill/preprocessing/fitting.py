"""Fits preprocessors on training rows: image sizes and pixel statistics, scales, imputers, categories."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.errors import DataError
from datamill.modalities import image as images
from datamill.preprocessing import (
    CategoryColumn,
    Encoding,
    ImagePreprocessor,
    NumberColumn,
    TabularPreprocessor,
    read_numbers,
)
from datamill.samples import Dataset

Normalisation = Literal["standardise", "unit", "symmetric"]
Scaling = Literal["standardise", "minmax", "symmetric"]
Imputation = Literal["mean", "median", "mode", "knn"]

MIN_STD = 1e-6  # of pixels in [0, 1]; a channel below it is constant, and dividing by it would blow up noise
DECODED_ROWS = 64  # images held decoded at a time
LEVELS = 256  # values of a byte


def fit_images(
    tables: Callable[[], Iterable[pa.Table]],
    *,
    height: int | None,
    width: int | None,
    channels: Literal["auto", 1, 3],
    normalise: Normalisation,
) -> ImagePreprocessor:
    """The preprocessor of these images, read as a stream and never held.

    Pixels are counted per channel and value, so that mean and deviation are exact and depend on no order.

    Args:
        tables: Starts reading the training samples; called once for their headers and once for their pixels.
        height: Height of every image (px); ``None`` for the one most images have.
        width: Width of every image (px); ``None`` likewise.
        channels: 1 grey, 3 RGB, ``auto`` for RGB as soon as one image has colour.
        normalise: ``standardise`` to mean 0 and deviation 1 per channel, ``unit`` to [0, 1], ``symmetric`` to [-1, 1].

    Raises:
        DataError: There is no image, or one cannot be decoded.
    """
    shapes = Counter(
        (header.height, header.width, header.channels)
        for table in tables()
        for header in (images.read_header(cell["bytes"].as_py()) for cell in table["image"])
    )
    if not shapes:
        raise DataError("no training image to fit on; give split.fractions.train a larger share")
    sizes: Counter[tuple[int, int]] = Counter()
    for (its_height, its_width, _), count in shapes.items():
        sizes[its_height, its_width] += count
    common = max(sizes, key=lambda size: (sizes[size], size))
    num_channels = max(shape[2] for shape in shapes) if channels == "auto" else channels
    fitted = ImagePreprocessor(
        height=height or common[0],
        width=width or common[1],
        channels=cast(Literal[1, 3], num_channels),
        mean=(0.5 if normalise == "symmetric" else 0.0,) * num_channels,
        std=(0.5 if normalise == "symmetric" else 1.0,) * num_channels,
    )
    return _standardised(fitted, tables()) if normalise == "standardise" else fitted


def fit_tabular(
    table: pa.Table,
    *,
    dataset: Dataset,
    numeric: Scaling,
    categorical: Encoding,
    impute: Imputation,
    num_neighbors: int,
    max_reference: int,
    max_categories: int,
    seed: int,
) -> TabularPreprocessor:
    """The preprocessor of these training rows.

    Args:
        table: Training samples with their feature columns.
        dataset: Names and kinds of the features.
        numeric: ``standardise`` to mean 0 and deviation 1, ``minmax`` to [0, 1], ``symmetric`` to [-1, 1].
        categorical: ``one_hot`` or ``ordinal`` (alphabetical).
        impute: What replaces a missing number: the column's mean, median or mode, or the neighbours' mean (``knn``).
        num_neighbors: Neighbours for ``knn`` (count).
        max_reference: Training rows kept to look for neighbours in (count); drawn at random beyond it.
        max_categories: Values encoded per column, the most frequent first; the others count as unknown.
        seed: Seeds the draw of reference rows.

    Raises:
        DataError: There is no row.
    """
    if not table.num_rows:
        raise DataError("no training row to fit on; give split.fractions.train a larger share")
    names = [feature.name for feature in dataset.features if feature.kind == "number"]
    values = read_numbers(table, names=names)
    numbers = tuple(
        _fit_number(name, values[:, position], numeric=numeric, impute=impute) for position, name in enumerate(names)
    )
    categories = tuple(
        CategoryColumn(name=feature.name, values=_frequent(table[feature.column], limit=max_categories))
        for feature in dataset.features
        if feature.kind == "category"
    )
    has_neighbors = impute == "knn" and bool(numbers)
    return TabularPreprocessor(
        numbers=numbers,
        categories=categories,
        encoding=categorical,
        num_neighbors=num_neighbors if has_neighbors else None,
        reference=_reference(values, numbers=numbers, limit=max_reference, seed=seed) if has_neighbors else (),
    )


def _standardised(fitted: ImagePreprocessor, tables: Iterable[pa.Table]) -> ImagePreprocessor:
    counts = np.zeros((fitted.channels, LEVELS), np.int64)
    for table in tables:
        for start in range(0, table.num_rows, DECODED_ROWS):
            pixels = fitted.arrays(table.slice(start, DECODED_ROWS))
            for channel in range(fitted.channels):
                counts[channel] += np.bincount(pixels[..., channel].ravel(), minlength=LEVELS)
    shares = counts / counts.sum(axis=1, keepdims=True)
    level = np.arange(LEVELS) / (LEVELS - 1)
    mean = shares @ level
    std = np.sqrt((shares * (level - mean[:, None]) ** 2).sum(axis=1))
    std[std < MIN_STD] = 1.0
    return fitted.model_copy(update={"mean": tuple(mean.tolist()), "std": tuple(std.tolist())})


def _fit_number(name: str, values: NDArray[np.float64], *, numeric: Scaling, impute: Imputation) -> NumberColumn:
    present = values[~np.isnan(values)]
    if not present.size:
        return NumberColumn(name=name, fill=0.0, offset=0.0, scale=1.0)
    low, high, mean = float(present.min()), float(present.max()), float(present.mean())
    offset, scale = {
        "standardise": (mean, float(present.std())),
        "minmax": (low, high - low),
        "symmetric": (low / 2 + high / 2, high / 2 - low / 2),
    }[numeric]
    if scale <= 1e-12 * max(abs(low), abs(high)):  # constant but for rounding
        scale = 1.0
    fill = {"mean": mean, "knn": mean, "median": float(np.median(present)), "mode": _mode(present)}[impute]
    return NumberColumn(name=name, fill=fill, offset=offset, scale=scale)


def _mode(values: NDArray[np.float64]) -> float:
    distinct, counts = np.unique(values, return_counts=True)
    return float(distinct[counts.argmax()])


def _frequent(column: pa.ChunkedArray, *, limit: int) -> tuple[str | None, ...]:
    def alphabetical(value: str | None) -> tuple[bool, str]:
        return (value is None, value or "")

    counts = Counter(column.to_pylist())
    frequent = sorted(counts, key=lambda value: (-counts[value], alphabetical(value)))[:limit]
    return tuple(sorted(frequent, key=alphabetical))


def _reference(
    values: NDArray[np.float64], *, numbers: Sequence[NumberColumn], limit: int, seed: int
) -> tuple[tuple[float | None, ...], ...]:
    rng = np.random.default_rng([seed, 0])
    rows = np.sort(rng.choice(len(values), size=min(limit, len(values)), replace=False))
    chosen = values[rows]
    fill = np.array([column.fill for column in numbers])
    chosen = np.where(np.isnan(chosen).all(axis=0), fill, chosen)  # a column absent here still has a value to give
    scaled = (chosen - [column.offset for column in numbers]) / [column.scale for column in numbers]
    return tuple(tuple(None if np.isnan(value) else float(value) for value in row) for row in scaled)
