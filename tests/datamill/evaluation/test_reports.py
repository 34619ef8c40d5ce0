"""What an evaluation writes."""

from pathlib import Path

import numpy as np

from datamill.evaluation.metrics import Predictions
from datamill.evaluation.reports import confident_mistakes, notes, write_mistakes

WRONG = Predictions(np.array([0, 0, 1, 1]), np.array([[0.4, 0.6], [0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]))


def test_the_most_confident_mistake_comes_first() -> None:
    assert confident_mistakes(WRONG, count=8).tolist() == [2, 0]
    assert confident_mistakes(WRONG, count=1).tolist() == [2]


def test_without_mistakes_there_is_still_a_sheet(tmp_path: Path) -> None:
    right = Predictions(np.array([1]), np.array([[0.1, 0.9]]))
    rows = confident_mistakes(right, count=8)
    write_mistakes(tmp_path / "none.png", predictions=right, rows=rows, pictures=[], classes=("a", "b"))
    assert (tmp_path / "none.png").read_bytes().startswith(b"\x89PNG")


def test_classes_without_test_samples_are_named() -> None:
    assert notes(WRONG, classes=("a", "b", "c")) == {"classes": "no test sample of 1 of 3 classes: c"}
