"""What an evaluation writes."""

from pathlib import Path

import numpy as np
import pytest

from datamill.evaluation.metrics import Predictions
from datamill.evaluation.reports import compare_note, confident_mistakes, notes, write_mistakes

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


@pytest.mark.parametrize(
    ("difference", "told"),
    [
        ({"value": 0.04, "low": 0.01, "high": 0.07}, None),
        ({"value": 0.04, "low": -0.01, "high": 0.09}, "+0.0400 (-0.0100 to +0.0900)"),
        ({"value": -0.04}, "-0.0400"),
    ],
)
def test_a_network_that_is_not_surely_better_than_the_baseline_is_told(
    difference: dict[str, float], told: str | None
) -> None:
    compared = {"accuracy": 0.7, "baseline": {"accuracy": 0.66, "difference": {"accuracy": difference}}}
    note = compare_note(compared).get("baseline")
    start = (
        "the network is not surely better than the baseline, a logistic regression: accuracy 0.7000 against 0.6600, "
    )
    assert note == (None if told is None else start + told)
