"""Class-conditional PCA: a Gaussian in the few directions in which a class varies."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from datamill.generators import Rows


@dataclass(frozen=True)
class Subspace:
    """One class: its mean (D,), a basis (M, D) and a square root of the covariance in that basis (M, M)."""

    mean: NDArray[np.float64]
    basis: NDArray[np.float64]
    root: NDArray[np.float64]


class PcaGenerator:
    """Draws from one Gaussian per class."""

    def __init__(self, subspaces: dict[str, Subspace]) -> None:
        """Draw from these subspaces."""
        self.subspaces = subspaces

    def sample(self, label: str, *, count: int, seed: int) -> NDArray[np.float32]:
        """New points of a class, shape (count, D)."""
        subspace = self.subspaces[label]
        latent = np.random.default_rng(seed).standard_normal((count, len(subspace.basis)))
        return (subspace.mean + latent @ subspace.root @ subspace.basis).astype(np.float32)


def fit_pca(rows: Rows, *, variance: float, max_components: int) -> PcaGenerator:
    """Fit a subspace to each class.

    Args:
        rows: Points of each class, at least two each.
        variance: Share of a class's variance that its directions explain, in (0, 1).
        max_components: Most directions of a class (count).
    """
    with threadpool_limits(limits=1):  # sums in another order would give other last digits
        subspaces = {
            label: _fit_subspace(points.astype(np.float64), variance=variance, max_components=max_components)
            for label, points in rows.items()
        }
    return PcaGenerator(subspaces)


def _fit_subspace(points: NDArray[np.float64], *, variance: float, max_components: int) -> Subspace:
    """The leading directions of a class and a Gaussian in them, its covariance shrunk so that few rows suffice.

    Source: O. Ledoit, M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004.
    """
    mean = points.mean(axis=0)
    if np.allclose(points, mean):
        return Subspace(mean=mean, basis=np.zeros((0, points.shape[1])), root=np.zeros((0, 0)))
    solver = "covariance_eigh" if len(points) >= points.shape[1] else "full"
    fitted = PCA(n_components=variance, svd_solver=solver).fit(points)
    basis = fitted.components_[:max_components]
    covariance, _ = ledoit_wolf((points - mean) @ basis.T, assume_centered=True)
    values, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    return Subspace(mean=mean, basis=basis, root=np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T)
