import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from datamill.auditing.regression import LinearClassifier, SoftmaxRegression, simplified


def overlapping(*, num_classes: int, dtype: type = np.float32) -> tuple[NDArray[np.floating], NDArray[np.int32]]:
    """Points of classes that overlap, in 12 dimensions of which 5 tell them apart."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, 900).astype(np.int32)
    centres = np.zeros((num_classes, 12))
    centres[:, :5] = rng.normal(0, 1, (num_classes, 5))
    return (centres[labels] + rng.normal(0, 1, (900, 12))).astype(dtype), labels


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_finds_what_scikit_learn_finds(dtype: type) -> None:
    rows, labels = overlapping(num_classes=4, dtype=dtype)
    found = SoftmaxRegression().fit(rows, labels)
    expected = LogisticRegression(tol=1e-6, max_iter=1000).fit(rows.astype(np.float64), labels)
    np.testing.assert_allclose(found.predict_proba(rows), expected.predict_proba(rows), atol=3e-3)
    assert found.classes_.tolist() == [0, 1, 2, 3]
    assert found.coef_.shape == (4, 12)


def test_two_classes_share_the_probability() -> None:
    rows, labels = overlapping(num_classes=2)
    found = SoftmaxRegression().fit(rows, labels * 7).predict_proba(rows)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert ((found[:, 1] > 0.5) == (labels == 1)).mean() > 0.75


def test_equal_rows_give_equal_weights() -> None:
    rows, labels = overlapping(num_classes=3)
    first, second = (SoftmaxRegression().fit(rows.copy(), labels.copy()) for _ in range(2))
    assert first.coef_.tobytes() == second.coef_.tobytes()
    assert first.intercept_.tobytes() == second.intercept_.tobytes()


def test_large_numbers_do_not_overflow() -> None:
    rows = np.array([[1e4, -1e4], [-1e4, 1e4], [1e4, -1e4], [-1e4, 1e4]], np.float32)
    found = SoftmaxRegression().fit(rows, np.array([0, 1, 0, 1]))
    np.testing.assert_allclose(found.predict_proba(rows), [[1, 0], [0, 1], [1, 0], [0, 1]], atol=1e-3)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_components_and_regression_are_one_linear_map(num_classes: int) -> None:
    rows, labels = overlapping(num_classes=num_classes)
    model = make_pipeline(PCA(n_components=5, whiten=True), SoftmaxRegression()).fit(rows, labels)
    folded = simplified(model)
    assert isinstance(folded, LinearClassifier)
    assert folded.weights.shape == (12, num_classes)
    np.testing.assert_allclose(folded.predict_proba(rows), model.predict_proba(rows), atol=1e-5)


def test_other_classifiers_stay_what_they_are() -> None:
    model = SoftmaxRegression()
    assert simplified(model) is model
