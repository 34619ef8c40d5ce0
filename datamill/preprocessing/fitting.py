"""Fits preprocessors on training rows: image sizes and pixel statistics, scales, imputers, categories.

Rows are read as streams and never held, but for a few columns at a time whose medians or modes are wanted.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, cast, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill.errors import DataError
from datamill.preprocessing import (
    CategoryColumn,
    Encoding,
    ImagePreprocessor,
    NumberColumn,
    TabularPreprocessor,
    read_numbers,
)
from datamill.preprocessing.moments import ExactSums, Moments
from datamill.samples import FEATURE_PREFIX, Dataset
from datamill.sampling import BottomK

Normalisation = Literal["standardise", "unit", "symmetric"]
Scaling = Literal["standardise", "minmax", "symmetric"]
Imputation = Literal["mean", "median", "mode", "knn"]
Read = Callable[[Sequence[str]], Iterable[pa.Table]]
"""Starts reading some columns of the training samples."""

IMAGE_COLUMNS = ("height", "width", "channels", "moments")
NUM_MOMENTS = 8  # means of red, green, blue and grey, then of their squares
GREY = 3  # place of grey among them
MIN_STD = 1e-6  # of pixels in [0, 1]; a channel below it is constant, and dividing by it would blow up noise
EXACT_ROWS = 1_000_000  # up to which medians and modes are those of all rows
SAMPLED_ROWS = 200_000  # that stand for more than EXACT_ROWS
HELD_VALUES = 4_000_000  # of the columns whose medians or modes are found in one pass: 32 MB
MERGED_VALUES = 65_536  # distinct values of a category counted before the counts are merged


def fit_images(
    features: Iterable[pa.Table],
    *,
    height: int | None,
    width: int | None,
    channels: Literal["auto", 1, 3],
    normalise: Normalisation,
) -> ImagePreprocessor:
    """The preprocessor of these images, told from their features; no pixel is read again.

    Mean and deviation are those of the pixels as they came, before any resizing, and each image counts alike. They
    depend on no order and no batch.

    Args:
        features: ``IMAGE_COLUMNS`` of the training samples.
        height: Height of every image (px); ``None`` for the one most images have.
        width: Width of every image (px); ``None`` likewise.
        channels: 1 grey, 3 RGB, ``auto`` for RGB as soon as one image has colour.
        normalise: ``standardise`` to mean 0 and deviation 1 per channel, ``unit`` to [0, 1], ``symmetric`` to [-1, 1].

    Raises:
        DataError: There is no image.
    """
    shapes: Counter[tuple[int, int, int]] = Counter()
    sums = ExactSums(NUM_MOMENTS)
    for table in features:
        counts = table.group_by(["height", "width", "channels"]).aggregate([([], "count_all")])
        for *shape, count in zip(*(column.to_pylist() for column in counts.columns), strict=True):
            shapes[cast(tuple[int, int, int], tuple(shape))] += count
        sums.add(table["moments"].combine_chunks().flatten().to_numpy().reshape(-1, NUM_MOMENTS))
    if not shapes:
        raise DataError("no training image to fit on; give split.fractions.train a larger share")
    sizes: Counter[tuple[int, int]] = Counter()
    for (its_height, its_width, _), count in shapes.items():
        sizes[its_height, its_width] += count
    common = max(sizes, key=lambda size: (sizes[size], size))
    num_channels = max(shape[2] for shape in shapes) if channels == "auto" else channels
    if normalise == "standardise":
        mean, std = _standardised(sums.means(shapes.total()), num_channels=num_channels)
    else:
        mean = [0.5 if normalise == "symmetric" else 0.0] * num_channels
        std = [0.5 if normalise == "symmetric" else 1.0] * num_channels
    return ImagePreprocessor(
        height=height or common[0],
        width=width or common[1],
        channels=cast(Literal[1, 3], num_channels),
        mean=tuple(mean),
        std=tuple(std),
    )


def fit_tabular(
    read: Read,
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
        read: Starts reading them; called once, and once more for every few columns whose median or mode is wanted.
        dataset: Names and kinds of the features.
        numeric: ``standardise`` to mean 0 and deviation 1, ``minmax`` to [0, 1], ``symmetric`` to [-1, 1].
        categorical: ``one_hot`` or ``ordinal`` (alphabetical).
        impute: What replaces a missing number: the column's mean, median or mode, or the neighbours' mean (``knn``).
            Medians and modes of more than ``EXACT_ROWS`` rows are those of ``SAMPLED_ROWS`` of them.
        num_neighbors: Neighbours for ``knn`` (count).
        max_reference: Training rows kept to look for neighbours in (count); chosen at random beyond it.
        max_categories: Values encoded per column, the most frequent first; the others count as unknown.
        seed: Seeds the choice of rows.

    Raises:
        DataError: There is no row.
    """
    names = [feature.name for feature in dataset.features if feature.kind == "number"]
    counts = {feature.name: _ValueCounts() for feature in dataset.features if feature.kind == "category"}
    columns = {feature.name: feature.column for feature in dataset.features}
    has_neighbors = impute == "knn" and bool(names)
    reference = BottomK(max_reference if has_neighbors else 0, key=f"neighbors {seed}")
    moments = Moments(len(names))
    num_rows = 0
    for table in read(list(columns.values())):
        num_rows += table.num_rows
        moments.add(read_numbers(table, names=names))
        reference.add(table)
        for name, its_counts in counts.items():
            its_counts.add(table[columns[name]])
    if not num_rows:
        raise DataError("no training row to fit on; give split.fractions.train a larger share")
    fills = moments.mean
    if impute in ("median", "mode"):
        columns_at_once = max(1, HELD_VALUES // min(num_rows, EXACT_ROWS))
        fills = np.array(
            [
                _middle(values, impute=impute)
                for start in range(0, len(names), columns_at_once)
                for values in _held(read, names[start : start + columns_at_once], num_rows=num_rows, seed=seed)
            ]
        )
    numbers = tuple(
        _fit_number(name, moments=moments, place=place, fill=float(fills[place]), numeric=numeric)
        for place, name in enumerate(names)
    )
    return TabularPreprocessor(
        numbers=numbers,
        categories=tuple(
            CategoryColumn(name=name, values=its_counts.frequent(max_categories)) for name, its_counts in counts.items()
        ),
        encoding=categorical,
        num_neighbors=num_neighbors if has_neighbors else None,
        reference=_reference(read_numbers(reference.table(), names=names), numbers=numbers) if has_neighbors else (),
    )


def _standardised(means: NDArray[np.float64], *, num_channels: int) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel, from the means of ``NUM_MOMENTS``."""
    channels = [GREY] if num_channels == 1 else [0, 1, 2]
    mean, squares = means[: NUM_MOMENTS // 2][channels], means[NUM_MOMENTS // 2 :][channels]
    std = np.sqrt(np.maximum(squares - mean**2, 0))
    std[std < MIN_STD] = 1.0
    return mean.tolist(), std.tolist()


def _fit_number(name: str, *, moments: Moments, place: int, fill: float, numeric: Scaling) -> NumberColumn:
    if not moments.count[place]:
        return NumberColumn(name=name, fill=0.0, offset=0.0, scale=1.0)
    low, high, mean = (float(of[place]) for of in (moments.low, moments.high, moments.mean))
    offset, scale = {
        "standardise": (mean, float(moments.std[place])),
        "minmax": (low, high - low),
        "symmetric": (low / 2 + high / 2, high / 2 - low / 2),
    }[numeric]
    if scale <= 1e-12 * max(abs(low), abs(high)):  # constant but for rounding
        scale = 1.0
    return NumberColumn(name=name, fill=fill, offset=offset, scale=scale)


def _held(read: Read, names: Sequence[str], *, num_rows: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """The values of some columns, one after the other; those of a sample where there are more than ``EXACT_ROWS``."""
    columns = [FEATURE_PREFIX + name for name in names]
    if num_rows > EXACT_ROWS:
        draw = BottomK(SAMPLED_ROWS, key=f"statistics {seed}")
        for table in read(columns):
            draw.add(table)
        values = read_numbers(draw.table(), names=names)
    else:
        values = np.empty((num_rows, len(names)))
        stop = 0
        for table in read(columns):
            start, stop = stop, stop + table.num_rows
            values[start:stop] = read_numbers(table, names=names)
    yield from values.T


def _middle(values: NDArray[np.float64], *, impute: Imputation) -> float:
    """Median or mode of the values that are not missing; 0 where there are none."""
    present = values[~np.isnan(values)]
    if not present.size:
        return 0.0
    return float(np.median(present)) if impute == "median" else _mode(present)


def _mode(values: NDArray[np.float64]) -> float:
    distinct, counts = np.unique(values, return_counts=True)
    return float(distinct[counts.argmax()])


def _reference(values: NDArray[np.float64], *, numbers: Sequence[NumberColumn]) -> tuple[tuple[float | None, ...], ...]:
    """Rows among which neighbours are looked for, scaled; ``None`` for missing values."""
    fill = np.array([column.fill for column in numbers])
    chosen = np.where(np.isnan(values).all(axis=0), fill, values)  # a column absent here still has a value to give
    scaled = (chosen - [column.offset for column in numbers]) / [column.scale for column in numbers]
    return tuple(tuple(None if np.isnan(value) else float(value) for value in row) for row in scaled)


@final
class _ValueCounts:
    """How often each value of a category column occurs; memory grows with the number of distinct values."""

    def __init__(self) -> None:
        self._tables = [pa.table({"value": pa.array([], pa.string()), "count": pa.array([], pa.int64())})]

    def add(self, column: pa.ChunkedArray) -> None:
        counts = pc.value_counts(column)
        self._tables.append(pa.table({"value": counts.field("values"), "count": counts.field("counts")}))
        if sum(table.num_rows for table in self._tables[1:]) > self._tables[0].num_rows + MERGED_VALUES:
            self._tables = [self._merged()]

    def frequent(self, limit: int) -> tuple[str | None, ...]:
        """The most frequent values, in alphabetical order; missing ones are a value of their own and come last."""
        order = [("count", "descending"), ("value", "ascending")]
        values = self._merged().sort_by(order).slice(0, limit)["value"].to_pylist()
        return tuple(sorted(values, key=lambda value: (value is None, value or "")))

    def _merged(self) -> pa.Table:
        merged = pa.concat_tables(self._tables).group_by("value").aggregate([("count", "sum")])
        return pa.table({"value": merged["value"], "count": merged["count_sum"]})
