"""Evens out the classes of the training split: weights, fewer rows, or new rows between old ones.

Over- and under-samplers work in ``Preprocessor.matrix``. One-hot groups are interpolated like numbers there, and
``Preprocessor.restore`` takes the category with the larger share.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
from imblearn.under_sampling import RandomUnderSampler, TomekLinks
from numpy.typing import NDArray

from datamill.balancing.interpolation import interpolate, stream_of
from datamill.balancing.planning import Population, Treatment, ones
from datamill.derived import sample_table
from datamill.errors import DataError
from datamill.preprocessing import Preprocessor

Oversampling = Literal["smote", "adasyn", "smote_tomek"]

RESTORED_ROWS = 512  # rows turned back into payload at a time


def reweigh(
    population: Population, *, method: Literal["none", "class_weights", "weighted_sampling"], max_factor: float
) -> Treatment:
    """Make the classes of train weigh the same in the loss, or be drawn equally often; ``none`` changes nothing."""
    unchanged = ones(len(population.labels))
    even = unchanged
    if method != "none":
        factors = class_factors(population.sizes, max_factor=max_factor)
        of_class = np.array([factors.get(label, 1.0) for label in population.classes], np.float32)
        even = np.where(population.is_train, of_class[population.labels], np.float32(1))
    return Treatment(
        weight=even if method == "class_weights" else unchanged,
        draw=even if method == "weighted_sampling" else unchanged,
        removed=np.empty(0, np.int64),
    )


def class_factors(sizes: Mapping[str, int], *, max_factor: float) -> dict[str, float]:
    """Factor per class with which all classes weigh the same: N / (K * size of the class), at most ``max_factor``."""
    total = sum(sizes.values())
    return {label: min(max_factor, total / (len(sizes) * size)) for label, size in sizes.items()}


def shortfalls(sizes: Mapping[str, int], *, ratio: float) -> dict[str, int]:
    """Rows each class lacks to have ``ratio`` times as many as the largest; classes that lack none are left out."""
    wanted = int(np.ceil(ratio * max(sizes.values(), default=0)))
    return {label: wanted - size for label, size in sizes.items() if size < wanted}


def require_fits(population: Population, *, preprocessor: Preprocessor, method: str, max_values: int) -> None:
    """Refuse to hold the originals of train as a matrix of more than ``max_values`` numbers.

    Raises:
        DataError: Names the method, the size and what to do instead.
    """
    num_rows, width = len(population.originals), math.prod(preprocessor.shape)
    if num_rows * width > max_values:
        raise DataError(
            f"balance.method {method!r} needs {num_rows} x {width} = {num_rows * width} numbers in memory and "
            f"balance.max_values is {max_values}; use 'class_weights' or 'weighted_sampling', or raise it"
        )


def oversample(
    population: Population,
    *,
    tables: Iterable[pa.Table],
    preprocessor: Preprocessor,
    method: Oversampling,
    ratio: float,
    num_neighbors: int,
    seed: int,
) -> Treatment:
    """Make new samples for the classes of train that are short of them; ``smote_tomek`` also removes some.

    All training samples count towards their class, but only originals are interpolated and removed.

    Args:
        population: The samples.
        tables: ``sample_id`` and payload of the originals of train, in order.
        preprocessor: Leads to features.
        method: Over-sampler; ``smote_tomek`` is SMOTE, then the removal of Tomek links among old and new rows.
        ratio: Wanted size of each class over that of the largest.
        num_neighbors: Neighbours to interpolate with (count).
        seed: Seeds the over-sampler.
    """
    originals = population.originals
    labels = population.labels[originals]
    matrix, ids = _collect(tables, preprocessor=preprocessor, num_rows=len(originals))
    made = interpolate(
        matrix,
        labels=labels,
        classes=population.classes,
        wanted=shortfalls(population.sizes, ratio=ratio),
        method="adasyn" if method == "adasyn" else "smote",
        num_neighbors=num_neighbors,
        seed=seed,
    )
    linked = np.empty(0, np.int64)
    if method == "smote_tomek":
        both = np.concatenate([matrix, made.matrix])
        linked = tomek_links(both, labels=np.concatenate([labels, made.labels]))
        made = made.without(linked[linked >= len(originals)] - len(originals))
    return Treatment(
        weight=ones(len(population.labels)),
        draw=ones(len(population.labels)),
        removed=originals[linked[linked < len(originals)]],
        made=made,
        ids=ids,
    )


def tomek_links(matrix: NDArray[np.float32], *, labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Rows that form a Tomek link, ascending: nearest neighbours of each other although their classes differ.

    A class of which nothing would be left keeps its rows. After ``interpolate`` this makes SMOTETomek, in two steps so
    that every removed row is known.

    Args:
        matrix: Features, shape ``(N, D)``.
        labels: Number of the class of each row, shape ``(N,)``.

    Source: G. Batista et al., "A study of the behavior of several methods for balancing machine learning training
    data", 2004.
    """
    classes, numbers = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        return np.empty(0, np.int64)
    sampler = TomekLinks(sampling_strategy="all")
    sampler.fit_resample(matrix, numbers)
    linked = np.setdiff1d(np.arange(len(labels)), sampler.sample_indices_)
    return linked[np.isin(numbers[linked], numbers[sampler.sample_indices_])]


def undersample(population: Population, *, ratio: float, min_rows: int, seed: int) -> Treatment:
    """Remove training samples at random until the smallest class has ``ratio`` times as many as any other.

    No class falls below ``min_rows`` samples, or below what it has.
    """
    train = population.train
    classes, numbers, sizes = np.unique(population.labels[train], return_inverse=True, return_counts=True)
    limit = max(min_rows, int(min(sizes, default=0) / ratio))
    targets = {number: limit for number in range(len(classes)) if sizes[number] > limit}
    staying = np.arange(len(train))
    if targets:
        sampler = RandomUnderSampler(sampling_strategy=targets, random_state=stream_of(seed, "under"))
        sampler.fit_resample(staying[:, None], numbers)
        staying = sampler.sample_indices_
    unchanged = ones(len(population.labels))
    return Treatment(weight=unchanged, draw=unchanged, removed=np.setdiff1d(train, train[staying]))


def resampled_tables(
    population: Population, treatment: Treatment, *, preprocessor: Preprocessor, method: str
) -> Iterator[pa.Table]:
    """The new rows as samples with payload, in order; their source is ``balance:<method>:<number>``."""
    made, ids = treatment.made, treatment.ids
    if made is None or ids is None:
        return
    for start in range(0, len(made.labels), RESTORED_ROWS):
        rows = range(start, min(start + RESTORED_ROWS, len(made.labels)))
        yield sample_table(
            preprocessor.restore(made.matrix[rows.start : rows.stop]),
            sources=[f"balance:{method}:{row}" for row in rows],
            labels=[population.classes[number] for number in made.labels[rows.start : rows.stop]],
            parents=[ids.take(pa.array(made.parents[row])).to_pylist() for row in rows],
            origin="resampled",
        )


def _collect(
    tables: Iterable[pa.Table], *, preprocessor: Preprocessor, num_rows: int
) -> tuple[NDArray[np.float32], pa.ChunkedArray]:
    """Features and ids of the rows of ``tables``, shape ``(N, D)`` and ``(N,)``."""
    matrix = np.empty((num_rows, math.prod(preprocessor.shape)), np.float32)
    ids = [pa.chunked_array([], pa.string())]
    stop = 0
    for table in tables:
        start, stop = stop, stop + table.num_rows
        matrix[start:stop] = preprocessor.matrix(table)
        ids.append(table["sample_id"])
    assert stop == num_rows
    return matrix, pa.chunked_array([chunk for one in ids for chunk in one.chunks], pa.string()).combine_chunks()
