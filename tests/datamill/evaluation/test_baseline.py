"""The logistic-regression baseline."""

from pathlib import Path

import numpy as np

from datamill.evaluation.baseline import fit_baseline, flatten
from tests.trained import train_tables


def test_pixels_become_vectors_in_the_unit_interval() -> None:
    assert flatten(np.full((1, 2, 1, 1), 255, np.uint8)).tolist() == [[1.0, 1.0]]
    assert flatten(np.full((1, 2), 255, np.float32)).tolist() == [[255.0, 255.0]]


def test_it_sees_at_most_the_given_rows_and_says_whether_it_converged(tmp_path: Path) -> None:
    shard = train_tables(tmp_path, steps=1).shard("train")
    found = fit_baseline(shard, max_rows=20, max_iterations=1, regularisation=1e-4, rng=np.random.default_rng(0))
    assert (found.num_rows, found.has_converged) == (20, False)
    assert np.allclose(found.probabilities(shard).sum(axis=1), 1)


def test_a_class_absent_from_train_has_probability_zero(tmp_path: Path) -> None:
    bounds = {"train": (0, 2), "validation": (40, 50), "test": (50, 64)}
    workspace = train_tables(tmp_path, bounds=bounds, steps=1)
    found = fit_baseline(
        workspace.shard("train"), max_rows=20, max_iterations=50, regularisation=1e-4, rng=np.random.default_rng(0)
    )
    assert found.probabilities(workspace.shard("test"))[:, 2].tolist() == [0.0] * 14
