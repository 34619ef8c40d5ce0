import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datamill.auditing.linear import LinearClassifier, simplified


@pytest.mark.parametrize("num_classes", [2, 3])
def test_components_and_regression_are_one_linear_map(num_classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, 900).astype(np.int32)
    rows = (labels[:, None] + rng.normal(0, 1, (900, 12))).astype(np.float32)
    model = make_pipeline(PCA(n_components=5, whiten=True), LogisticRegression()).fit(rows, labels * 7)
    folded = simplified(model)
    assert isinstance(folded, LinearClassifier)
    assert folded.classes_.tolist() == [7 * number for number in range(num_classes)]
    np.testing.assert_allclose(folded.predict_proba(rows), model.predict_proba(rows), atol=1e-5)


def test_large_numbers_do_not_overflow() -> None:
    model = LinearClassifier(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), np.arange(2))
    found = model.predict_proba(np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32))
    np.testing.assert_allclose(found, [[1, 0], [0, 1]])


def test_a_mean_answers_with_the_mean_of_the_scores() -> None:
    first = LinearClassifier(np.array([[2, 0]], np.float32), np.array([0, 1], np.float32), np.array([3, 5]))
    second = LinearClassifier(np.array([[4, 2]], np.float32), np.array([0, 3], np.float32), np.array([3, 5]))
    mean = LinearClassifier.mean([first, second])
    assert mean.weights.tolist() == [[3, 1]]
    assert mean.offsets.tolist() == [0, 2]
    assert mean.classes_.tolist() == [3, 5]


def test_other_classifiers_stay_what_they_are() -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression())
    assert simplified(model) is model
