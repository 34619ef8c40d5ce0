"""What is known about a model: what it answered to its test samples, how large and how fast it is, what made it."""

# Shapes: N samples, K classes.

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datamill.errors import DataError
from datamill.evaluation import slices
from datamill.evaluation.comparison import DIGITS, headlines
from datamill.evaluation.metrics import Predictions

NUM_BINS = 15  # confidence bins of the calibration error
LEVEL = 0.95  # coverage of a slice's interval

Slicing = tuple[str, tuple[str | None, ...]]
"""A property, and each test sample's value of it; ``None`` puts a sample in no slice."""


@dataclass(frozen=True)
class Evidence:
    """What speaks for or against a model; everything about samples has N rows, in the same order.

    Attributes:
        version: Identity of the model: the same bytes have the same.
        classes: Class names, in the order of their numbers.
        sample_ids: Its test samples.
        predictions: What it answers to them, beside the truth.
        size_bytes: Size of the exported model.
        latency_ms: Median time for one sample.
        slicings: Ways to cut the test samples into slices; empty where that is not known.
        groups: Group of each sample; empty where that is not known.
        digests: Hash of every data artifact behind it, by path.
    """

    version: str
    classes: tuple[str, ...]
    sample_ids: tuple[str, ...]
    predictions: Predictions
    size_bytes: int
    latency_ms: float
    slicings: tuple[Slicing, ...] = ()
    groups: tuple[str | None, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """True class of each test sample."""
        return [self.classes[number] for number in self.predictions.label]

    @property
    def test_digest(self) -> str:
        """Hash of the test samples and their labels, in whatever order."""
        rows = sorted(f"{key}\0{label}\n" for key, label in zip(self.sample_ids, self.labels, strict=True))
        return hashlib.sha256("".join(rows).encode()).hexdigest()


def read_answers(path: Path, *, classes: Sequence[str]) -> tuple[tuple[str, ...], Predictions]:
    """Ids and predictions of the test samples in a ``predictions.parquet``.

    Raises:
        DataError: There is none, or the file fits another set of classes.
    """
    table = pq.read_table(path, columns=["sample_id", "split", "label", "probabilities"])
    rows = np.flatnonzero(np.array(table["split"].to_pylist(), dtype=object) == "test")
    if not len(rows):
        raise DataError(f"{path} holds no test sample; run the stage evaluate again")
    table = table.take(rows)
    number = {name: index for index, name in enumerate(classes)}
    try:
        label = np.array([number[name] for name in table["label"].to_pylist()], np.int64)
        probabilities = np.array(table["probabilities"].to_pylist(), np.float64).reshape(len(rows), len(classes))
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} does not fit the model's classes {list(classes)} ({error}); run evaluate") from error
    return tuple(table["sample_id"].to_pylist()), Predictions(label, probabilities)


def summary(evidence: Evidence) -> dict[str, Any]:
    """Evidence as JSON values: metrics, slices, speed, size and hashes, without single samples."""
    cuts = [("class", evidence.labels), *evidence.slicings]
    measured = slices.measure(cuts, is_correct=evidence.predictions.is_correct, level=LEVEL)
    return {
        "version": evidence.version,
        "classes": list(evidence.classes),
        "samples": evidence.predictions.num_samples,
        "metrics": headlines(evidence.predictions, num_bins=NUM_BINS),
        "slices": [
            {key: round(value, DIGITS) if isinstance(value, float) else value for key, value in asdict(one).items()}
            for one in measured
        ],
        "latency_ms": round(evidence.latency_ms, 4),
        "size_bytes": evidence.size_bytes,
        "data": dict(evidence.digests),
        "test_set": evidence.test_digest,
    }


def digest(content: Any) -> str:
    """SHA-256 of JSON values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def aligned(probabilities: NDArray[np.float64], *, classes: Sequence[str], onto: Sequence[str]) -> NDArray[np.float64]:
    """Probabilities with the columns of ``onto``, shape ``(N, len(onto))``; 0 for classes that the model has not."""
    wide = np.zeros((len(probabilities), len(onto)))
    wide[:, [onto.index(name) for name in classes]] = probabilities
    return wide
