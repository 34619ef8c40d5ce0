from pathlib import Path

import pytest

from datamill.errors import DataError
from datamill.training.history import EpochResult, best_epoch, read_history, should_stop, write_history


def epoch(number: int, *, loss: float | None = 0.5, accuracy: float | None = 0.8) -> EpochResult:
    return EpochResult(number, 0.25, loss, 0.75, accuracy, 0.001, 1.5)


def losses(*values: float) -> list[EpochResult]:
    return [epoch(number, loss=value) for number, value in enumerate(values, start=1)]


def test_best_is_the_highest_accuracy_then_the_lowest_loss_then_the_earliest() -> None:
    history = [epoch(1, accuracy=0.9, loss=0.3), epoch(2, accuracy=0.9, loss=0.2), epoch(3, accuracy=0.9, loss=0.2)]
    assert best_epoch([*history, epoch(4, accuracy=0.8, loss=0.1)]) == 2


def test_without_validation_the_last_epoch_is_best() -> None:
    assert best_epoch([epoch(1, loss=None, accuracy=None), epoch(2, loss=None, accuracy=None)]) == 2


def test_patience_counts_epochs_since_the_lowest_loss() -> None:
    assert not should_stop(losses(0.5, 0.4, 0.45), patience=2)
    assert should_stop(losses(0.5, 0.4, 0.45, 0.41), patience=2)
    assert not should_stop(losses(0.5, 0.4, 0.45, 0.39), patience=2)


def test_no_patience_and_no_validation_never_stop() -> None:
    assert not should_stop(losses(0.1, 0.2, 0.3, 0.4), patience=None)
    assert not should_stop([epoch(1, loss=None)] * 9, patience=1)


def test_history_survives_the_file(tmp_path: Path) -> None:
    history = [epoch(1), epoch(2, loss=None, accuracy=None)]
    write_history(tmp_path / "history.csv", history)
    assert read_history(tmp_path / "history.csv") == history
    assert (tmp_path / "history.csv").read_text() == (
        "epoch,train_loss,validation_loss,train_accuracy,validation_accuracy,learning_rate,gradient_norm\n"
        "1,0.25,0.5,0.75,0.8,0.001,1.5\n"
        "2,0.25,,0.75,,0.001,1.5\n"
    )


def test_a_line_for_people_names_losses_and_accuracies() -> None:
    assert epoch(1).line(num_epochs=9) == (
        "  epoch 1 of 9: train loss 0.2500, accuracy 0.7500; validation loss 0.5000, accuracy 0.8000"
    )
    assert epoch(1, loss=None, accuracy=None).line(num_epochs=9).endswith("accuracy 0.7500")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has columns None and 0 rows"),
        ("epoch,loss\n1,2\n", r"has columns \['epoch', 'loss'\]"),
        (
            "epoch,train_loss,validation_loss,train_accuracy,validation_accuracy,learning_rate,gradient_norm\n1,x,,1,,1,1\n",
            "is damaged: could not convert string to float: 'x'",
        ),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "history.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_history(tmp_path / "history.csv")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"history\.csv is missing; run train"):
        read_history(tmp_path / "history.csv")
