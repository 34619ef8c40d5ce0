"""What each epoch of a run came to, as numbers and as a CSV file; which epoch was best and when to stop."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from datamill import files
from datamill.errors import DataError


@dataclass(frozen=True)
class EpochResult:
    """One epoch in numbers; a column of ``history.csv`` each.

    Attributes:
        epoch: Number of the epoch, from 1.
        train_loss: Mean cross-entropy (nats) over the epoch's batches while the network learns from them, without label
            smoothing and weights, so that it compares with the validation loss.
        validation_loss: Mean cross-entropy (nats) after the epoch; ``None`` without a validation split.
        train_accuracy: Share of the epoch's (augmented) rows classified correctly while learning.
        validation_accuracy: Share of validation rows classified correctly; ``None`` without a validation split.
        learning_rate: Of the epoch's last step.
        gradient_norm: Mean Euclidean norm of the gradient over the epoch's steps, before clipping.
    """

    epoch: int
    train_loss: float
    validation_loss: float | None
    train_accuracy: float
    validation_accuracy: float | None
    learning_rate: float
    gradient_norm: float

    def numbers(self) -> dict[str, float]:
        """The numbers to track at step ``epoch``."""
        return {name: value for name, value in asdict(self).items() if name != "epoch" and value is not None}

    def line(self, *, num_epochs: int) -> str:
        """The epoch in one line for people."""
        parts = [f"train loss {self.train_loss:.4f}, accuracy {self.train_accuracy:.4f}"]
        if self.validation_loss is not None and self.validation_accuracy is not None:
            parts.append(f"validation loss {self.validation_loss:.4f}, accuracy {self.validation_accuracy:.4f}")
        return f"  epoch {self.epoch} of {num_epochs}: {'; '.join(parts)}"


COLUMNS = tuple(EpochResult.__dataclass_fields__)


def best_epoch(history: Sequence[EpochResult]) -> int:
    """Number of the epoch with the highest validation accuracy, then the lowest loss, then the earliest.

    Without a validation split it is the last one.
    """
    judged = [
        (-result.validation_accuracy, result.validation_loss, result.epoch)
        for result in history
        if result.validation_accuracy is not None and result.validation_loss is not None
    ]
    return min(judged)[2] if judged else history[-1].epoch


def should_stop(history: Sequence[EpochResult], *, patience: int | None) -> bool:
    """Whether the validation loss has not fallen below its lowest for ``patience`` epochs; ``None`` never stops."""
    losses = [result.validation_loss for result in history if result.validation_loss is not None]
    if patience is None or not losses:
        return False
    return len(losses) - 1 - losses.index(min(losses)) >= patience


def write_history(path: Path, history: Sequence[EpochResult]) -> None:
    """Write the epochs as CSV, six significant digits; an empty cell where there is no number."""
    with files.atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for result in history:
            writer.writerow([_cell(value) for value in asdict(result).values()])


def read_history(path: Path) -> list[EpochResult]:
    """The epochs in a ``history.csv``.

    Raises:
        DataError: The file is missing, empty, has other columns, or a cell that is no number.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            names, rows = reader.fieldnames, list(reader)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; run train") from error
    if tuple(names or ()) != COLUMNS or not rows:
        raise DataError(f"{path} has columns {names} and {len(rows)} rows, wanted {list(COLUMNS)}; run train again")
    try:
        return [_parse(row) for row in rows]
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}; run train again") from error


def _cell(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.6g}"


def _parse(row: dict[str, str]) -> EpochResult:
    def optional(name: str) -> float | None:
        return float(row[name]) if row[name] else None

    return EpochResult(
        epoch=int(row["epoch"]),
        train_loss=float(row["train_loss"]),
        validation_loss=optional("validation_loss"),
        train_accuracy=float(row["train_accuracy"]),
        validation_accuracy=optional("validation_accuracy"),
        learning_rate=float(row["learning_rate"]),
        gradient_norm=float(row["gradient_norm"]),
    )
