from collections.abc import Iterator

import cleanlab.count
import cleanlab.filter
import numpy as np
import pytest
from numpy.typing import NDArray

from datamill import confident
from datamill.confident import Block, IssueRule, Method, confident_thresholds

METHODS: list[Method] = [
    "prune_by_noise_rate",
    "prune_by_class",
    "both",
    "confident_learning",
    "predicted_neq_given",
]


def noisy(
    *, num_rows: int, num_classes: int, noise: float, sharpness: float, seed: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Labels of classes of uneven size, some of them wrong, and probabilities that mostly know better."""
    rng = np.random.default_rng(seed)
    shares = np.arange(1, num_classes + 1) / np.arange(1, num_classes + 1).sum()
    true = rng.choice(num_classes, size=num_rows, p=shares)
    logits = rng.normal(size=(num_rows, num_classes)) + sharpness * np.eye(num_classes)[true]
    among = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    is_wrong = rng.random(num_rows) < noise
    labels = np.where(is_wrong, rng.integers(0, num_classes, num_rows), true).astype(np.int32)
    return labels, among


def issues(labels: NDArray[np.int32], among: NDArray[np.float64], *, method: Method, rows: int) -> NDArray[np.bool_]:
    def read() -> Iterator[Block]:
        for start in range(0, len(labels), rows):
            yield labels[start : start + rows], among[start : start + rows]

    thresholds = confident_thresholds(read, num_classes=among.shape[1])
    rule = IssueRule(read, method=method, thresholds=thresholds)
    return np.concatenate([rule.find(*block) for block in read()])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("num_classes", "noise", "sharpness"), [(3, 0.1, 3.0), (10, 0.02, 4.0), (10, 0.3, 2.0), (4, 0.8, 0.5)]
)
def test_issues_are_those_that_cleanlab_finds(
    method: Method, num_classes: int, noise: float, sharpness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confident, "SLACK_VALUES", 50)
    labels, among = noisy(num_rows=3_000, num_classes=num_classes, noise=noise, sharpness=sharpness, seed=num_classes)
    expected = cleanlab.filter.find_label_issues(labels, among, filter_by=method, n_jobs=1)
    found = issues(labels, among, method=method, rows=257)
    assert np.flatnonzero(found).tolist() == np.flatnonzero(expected).tolist()
    assert found.any()


def test_thresholds_are_those_of_cleanlab() -> None:
    labels, among = noisy(num_rows=1_000, num_classes=5, noise=0.2, sharpness=2.0, seed=1)
    found = confident_thresholds(lambda: [(labels[:300], among[:300]), (labels[300:], among[300:])], num_classes=5)
    assert found == pytest.approx(cleanlab.count.get_confident_thresholds(labels, among), abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_class_that_is_never_predicted_is_treated_as_by_cleanlab(method: Method) -> None:
    labels, among = noisy(num_rows=500, num_classes=3, noise=0.1, sharpness=3.0, seed=2)
    among[:, 2] = 1e-9
    among /= among.sum(axis=1, keepdims=True)
    among += np.random.default_rng(0).uniform(0, 1e-7, among.shape)
    expected = cleanlab.filter.find_label_issues(labels, among, filter_by=method, n_jobs=1)
    assert issues(labels, among, method=method, rows=64).tolist() == expected.tolist()


def test_of_equal_rows_all_are_issues_or_none() -> None:
    labels, among = noisy(num_rows=400, num_classes=3, noise=0.2, sharpness=3.0, seed=3)
    found = issues(np.repeat(labels, 3), np.repeat(among, 3, axis=0), method="prune_by_noise_rate", rows=100)
    assert (found.reshape(-1, 3).sum(axis=1) % 3 == 0).all()
