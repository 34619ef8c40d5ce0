"""New rows between old ones of a class, with the names of their parents: SMOTE and ADASYN.

The over-samplers do not see the features themselves. To them each original is a unit vector, and its neighbours are
looked up by its number; a new row arrives as the shares of its parents (two non-zeros), which names them exactly, and
becomes features by one product.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
from imblearn.over_sampling import ADASYN, SMOTE
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, identity
from sklearn.neighbors import NearestNeighbors

Oversampler = Literal["smote", "adasyn"]


@dataclass(frozen=True)
class Interpolated:
    """New rows between originals of one class.

    Attributes:
        matrix: Features, float32, shape ``(M, D)``.
        labels: Number of the class of each new row, int32, shape ``(M,)``.
        parents: Rows of the originals each one lies between; one row where both are the same.
        skipped: Why a class got none, by class.
    """

    matrix: NDArray[np.float32]
    labels: NDArray[np.int32]
    parents: tuple[tuple[int, ...], ...]
    skipped: Mapping[str, str]

    def without(self, rows: NDArray[np.int64]) -> "Interpolated":
        """All but some of the new rows."""
        staying = np.setdiff1d(np.arange(len(self.labels)), rows)
        parents = tuple(self.parents[row] for row in staying)
        return replace(self, matrix=self.matrix[staying], labels=self.labels[staying], parents=parents)


def interpolate(
    matrix: NDArray[np.float32],
    *,
    labels: NDArray[np.int32],
    classes: Sequence[str],
    wanted: Mapping[str, int],
    method: Oversampler,
    num_neighbors: int,
    seed: int,
) -> Interpolated:
    """New rows for each class, between an original and one of its nearest neighbours of the same class.

    A class of one sample has no neighbour and is left as it is; a smaller class than ``num_neighbors`` uses all it has.
    ADASYN makes more where other classes are near, about as many as wanted, and none where they are nowhere near.

    Args:
        matrix: Features of the originals, shape ``(N, D)``.
        labels: Number of the class of each original, shape ``(N,)``.
        classes: Class names by number.
        wanted: Number of new rows by class.
        method: How originals are chosen.
        num_neighbors: Neighbours to interpolate with (count).
        seed: Seeds the choice; each class draws from a stream of its own.

    Source: N. Chawla et al., "SMOTE", 2002; H. He et al., "ADASYN", 2008.
    """
    pieces: list[csr_matrix] = []
    made = [np.empty(0, np.int32)]
    skipped: dict[str, str] = {}
    for label, count in wanted.items():
        shares = _interpolate_class(
            matrix,
            is_member=labels == classes.index(label),
            count=count,
            method=method,
            num_neighbors=num_neighbors,
            random_state=stream_of(seed, label),
        )
        if isinstance(shares, str):
            skipped[label] = shares
        else:
            pieces.append(shares)
            made.append(np.full(shares.shape[0], classes.index(label), np.int32))
    features = [np.asarray(shares @ matrix, np.float32) for shares in pieces]
    return Interpolated(
        matrix=np.concatenate(features) if features else np.empty((0, matrix.shape[1]), np.float32),
        labels=np.concatenate(made),
        parents=tuple(parents for shares in pieces for parents in _parents(shares)),
        skipped=skipped,
    )


def stream_of(seed: int, name: str) -> int:
    """Seed of one of several independent streams of random numbers."""
    words = np.frombuffer(name.encode(), np.uint8).tolist()
    return int(np.random.SeedSequence([seed, *words]).generate_state(1)[0])


class _NumberedNeighbors(NearestNeighbors):  # type: ignore[misc]
    """Nearest neighbours among ``features`` for queries that are unit vectors, each standing for a row of it."""

    def __init__(self, *, features: Any = None, n_neighbors: int = 5) -> None:
        super().__init__(n_neighbors=n_neighbors)
        self.features = features

    def fit(self, X: csr_matrix, y: Any = None) -> "_NumberedNeighbors":
        super().fit(self.features[X.indices])
        return self

    def kneighbors(self, X: csr_matrix, n_neighbors: int | None = None, return_distance: bool = True) -> Any:
        return super().kneighbors(self.features[X.indices], n_neighbors, return_distance)


def _interpolate_class(
    matrix: NDArray[np.float32],
    *,
    is_member: NDArray[np.bool_],
    count: int,
    method: Oversampler,
    num_neighbors: int,
    random_state: int,
) -> csr_matrix | str:
    """Shares of the originals in each new row, shape ``(M, N)``, or why there is none."""
    size = int(is_member.sum())
    if size < 2:
        return f"{size} sample, no neighbour to interpolate with"
    neighbors = _NumberedNeighbors(features=matrix, n_neighbors=min(num_neighbors, size - 1) + 1)
    strategy = {1: size + count}
    sampler = (
        SMOTE(sampling_strategy=strategy, k_neighbors=neighbors, random_state=random_state)
        if method == "smote"
        else ADASYN(sampling_strategy=strategy, n_neighbors=neighbors, random_state=random_state)
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="After over-sampling")  # copies and synthetic rows count as well
        try:
            shares, _ = sampler.fit_resample(identity(len(matrix), format="csr"), is_member.astype(np.int64))
        except (RuntimeError, ValueError) as error:
            if "Not any neigbours" in str(error) or "No samples will be generated" in str(error):
                return "no sample of another class near"
            raise
    return cast(csr_matrix, shares.tocsr()[len(matrix) :])


def _parents(shares: csr_matrix) -> Iterator[tuple[int, ...]]:
    shares.sum_duplicates()
    shares.eliminate_zeros()
    for start, stop in zip(shares.indptr[:-1], shares.indptr[1:], strict=True):
        yield tuple(int(parent) for parent in shares.indices[start:stop])
