"""Class-conditional PCA reproduces a class's mean and spread."""

import numpy as np

from datamill.generators.pca import fit_pca

RNG = np.random.default_rng(0)
MIX = RNG.normal(size=(2, 6))
ROWS = {
    "flat": (RNG.normal(size=(300, 2)) @ MIX + 3).astype(np.float32),
    "few": RNG.normal(size=(4, 6)).astype(np.float32),
    "constant": np.full((5, 6), 2, np.float32),
}


def test_samples_have_the_mean_and_covariance_of_their_class() -> None:
    drawn = fit_pca(ROWS, variance=0.99, max_components=6).sample("flat", count=20_000, seed=1)
    assert np.abs(drawn.mean(axis=0) - ROWS["flat"].mean(axis=0)).max() < 0.1
    assert np.abs(np.cov(drawn.T) - np.cov(ROWS["flat"].T)).max() < 0.15


def test_samples_lie_in_the_class_subspace() -> None:
    drawn = fit_pca(ROWS, variance=0.999, max_components=6).sample("flat", count=10, seed=1)
    assert np.linalg.matrix_rank(drawn - ROWS["flat"].mean(axis=0), tol=1e-3) == 2


def test_at_most_the_asked_components_are_used() -> None:
    assert len(fit_pca(ROWS, variance=0.99, max_components=1).subspaces["flat"].basis) == 1


def test_a_few_rows_and_a_constant_class_are_enough() -> None:
    generator = fit_pca(ROWS, variance=0.9, max_components=6)
    assert np.isfinite(generator.sample("few", count=3, seed=1)).all()
    assert generator.sample("constant", count=3, seed=1).tolist() == [[2.0] * 6] * 3


def test_equal_seeds_give_equal_samples() -> None:
    one, two = (fit_pca(ROWS, variance=0.9, max_components=6).sample("flat", count=5, seed=4) for _ in range(2))
    assert np.array_equal(one, two)
    other = fit_pca(ROWS, variance=0.9, max_components=6).sample("flat", count=5, seed=5)
    assert not np.array_equal(one, other)
