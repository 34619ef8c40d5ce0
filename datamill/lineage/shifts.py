"""How what the source holds differs between two runs: classes, folders, and light features by mean and spread."""

# Shapes: N samples of a run, G groups of samples, F features.

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamill import catalog, parts
from datamill.lineage import grouping
from datamill.lineage.roster import Roster
from datamill.lineage.runs import Run
from datamill.modalities.image import PROPERTIES
from datamill.samples import Dataset

MAX_SHOWN = 12
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shift:
    """How a feature differs.

    Attributes:
        feature: Its name.
        mean_a: Its mean in A.
        mean_b: Its mean in B.
        effect: Difference of the means in standard deviations of both together.
    """

    feature: str
    mean_a: float
    mean_b: float
    effect: float


@dataclass(frozen=True)
class Share:
    """How many samples share a value.

    Attributes:
        property: What they share: ``class`` or a folder's level.
        value: The value.
        num_a: Samples of A.
        num_b: Samples of B.
    """

    property: str
    value: str
    num_a: int
    num_b: int


@dataclass(frozen=True)
class Moments:
    """Sums over groups of samples, shape ``(G, F)`` each; missing values are left out."""

    names: tuple[str, ...]
    count: Floats
    total: Floats
    square: Floats

    @property
    def mean(self) -> Floats:
        """Means, NaN for groups without values."""
        return np.divide(self.total, self.count, out=np.full_like(self.total, np.nan), where=self.count > 0)

    @property
    def variance(self) -> Floats:
        """Variances, never below zero."""
        return np.asarray(np.maximum(0, self.square / np.maximum(1, self.count) - np.nan_to_num(self.mean) ** 2))


def read_moments(run: Run, *, dataset: Dataset, group_of: NDArray[np.int64], num_groups: int) -> Moments:
    """Moments of every light feature over all samples (group 0) and over groups, in one pass.

    Args:
        run: Whose samples.
        dataset: What holds for them.
        group_of: Group of each sample, 1 and up, 0 for none, shape ``(N,)``.
        num_groups: Groups, with group 0.
    """
    names = features_of(dataset)
    sums = np.zeros((3, num_groups, len(names)))
    start = 0
    for table in _tables(run, dataset=dataset, names=names):
        groups = group_of[start : start + table.num_rows]
        start += table.num_rows
        for place, name in enumerate(names):
            values = pc.fill_null(table[name].cast(pa.float64()), np.nan).to_numpy()
            is_known = np.isfinite(values)
            for power in range(3):
                weights = values[is_known] ** power
                sums[power, :, place] += np.bincount(groups[is_known], weights=weights, minlength=num_groups)
    sums[:, 0] = sums.sum(axis=1)
    return Moments(names, *sums)


def features_of(dataset: Dataset) -> tuple[str, ...]:
    """Columns of the light features: an image's properties, the numbers of a table."""
    if dataset.modality == "image":
        return PROPERTIES
    return tuple(dataset.columns("number"))


def compare(a: Moments, b: Moments, *, group: int = 0) -> list[Shift]:
    """Shifts of the features that both runs have and that moved, the largest first."""
    shifts = []
    for name in (name for name in a.names if name in b.names):
        i, j = a.names.index(name), b.names.index(name)
        mean_a, mean_b = float(a.mean[group, i]), float(b.mean[group, j])
        spread = float(np.sqrt((a.variance[0, i] + b.variance[0, j]) / 2))
        if np.isfinite([mean_a, mean_b]).all() and mean_a != mean_b:
            shifts.append(Shift(name, mean_a, mean_b, (mean_b - mean_a) / spread if spread else float("inf")))
    return sorted(shifts, key=lambda one: -abs(one.effect))[:MAX_SHOWN]


def shares(a: Roster, b: Roster) -> list[Share]:
    """Samples by class and by folder in both runs, where their numbers differ; the largest difference first."""
    found = [Share("class", *one) for one in _counts(a.labels, b.labels)]
    levels = (grouping.folders(a.sources), grouping.folders(b.sources))
    for name in dict.fromkeys(one.name for level in levels for one in level):
        columns = [next((one for one in level if one.name == name), None) for level in levels]
        texts = [_texts(column) for column in columns]
        classes = set(pc.unique(a.labels).to_pylist())
        if not set(pc.unique(texts[0]).to_pylist()) <= classes:  # the folders that name the classes say nothing new
            found += [Share("folder", *one) for one in _counts(*texts)]
    moved = [one for one in found if one.num_a != one.num_b]
    return sorted(moved, key=lambda one: (-abs(one.num_b - one.num_a), one.property, one.value))[:MAX_SHOWN]


def _counts(a: pa.Array, b: pa.Array) -> Iterator[tuple[str, int, int]]:
    before, after = ({pair["values"]: pair["counts"] for pair in pc.value_counts(one).to_pylist()} for one in (a, b))
    for value in dict.fromkeys([*before, *after]):
        yield str(value), before.get(value, 0), after.get(value, 0)


def _texts(column: grouping.Property | None) -> pa.Array:
    if column is None:
        return pa.array([], pa.string())
    return pa.array(np.array([*column.values, None], object)[column.codes], pa.string()).drop_null()


def _tables(run: Run, *, dataset: Dataset, names: Sequence[str]) -> Iterator[pa.Table]:
    artifact = catalog.EXTRACT_FEATURES if dataset.modality == "image" else catalog.INGEST_SAMPLES
    return parts.iter_tables(run.open(artifact.path), columns=list(names))
