"""Parameters and small samples for the tests of drift."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.drift import DriftParams, Observations
from datamill.drift.params import DetectorParams, EffectParams

CLASSES = ("boot", "coat", "shirt")
NO_DETECTORS: dict[str, tuple[str, ...]] = dict.fromkeys(DetectorParams.model_fields, ())

VALUES: dict[str, Any] = {
    "backend": "native",
    "level": 0.05,
    "false_alarms_per_month": None,
    "windows_per_month": 30,
    "correction": "bonferroni",
    "detectors": {
        "numbers": ["ks"],
        "categories": ["chi2"],
        "joint": ["mmd"],
        "embedding": ["mmd"],
        "prediction": ["ks", "fet", "novelty"],
        "label": ["chi2"],
        "concept": ["residual"],
    },
    "min_effect": {"wasserstein": 0.1, "cramers_v": 0.05, "psi": 0.1, "mmd": 0.0, "auc": 0.52, "share": 0.02},
    "seasonality": "none",
    "min_matched": 50,
    "min_samples": 20,
    "max_pairwise_rows": 200,
    "max_classifier_rows": 1_000,
    "num_permutations": 200,
    "min_labels": 50,
    "margin": 0.05,
    "loss": "mae",
    "loss_margin": 0.1,
    "confidence": 0.95,
    "num_examples": 3,
    "seed": 0,
}


def params(**changes: Any) -> DriftParams:
    """Checked parameters; ``detectors`` and ``min_effect`` replace single entries."""
    values = {**VALUES, **changes}
    values["detectors"] = {**VALUES["detectors"], **changes.get("detectors", {})}
    values["min_effect"] = {**VALUES["min_effect"], **changes.get("min_effect", {})}
    return DriftParams.model_validate(values)


def only(**detectors: tuple[str, ...]) -> dict[str, Any]:
    """Detectors of some kinds, none of the others."""
    return {**NO_DETECTORS, **detectors}


def any_effect() -> dict[str, float]:
    """Sizes from which everything significant is drift."""
    return {name: 0.5 if name == "auc" else 0.0 for name in EffectParams.model_fields}


def observations(
    num: int = 400,
    *,
    seed: int = 0,
    move: float = 0.0,
    colours: tuple[float, float, float] = (0.5, 0.3, 0.2),
    accuracy: float = 0.9,
) -> Observations:
    """Samples with two numbers, a colour, embeddings, and a model that is right as often as it says.

    Args:
        num: Samples.
        seed: Seeds them.
        move: Added to the number ``size`` and to all embeddings.
        colours: Shares of red, green and blue.
        accuracy: Mean probability of the true class.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, num)
    features = {
        "size": rng.normal(move, 1, num),
        "weight": rng.gamma(2, 1, num),
        "colour": rng.choice(["red", "green", "blue"], num, p=colours),
    }
    return Observations(
        sample_ids=tuple(f"{seed}-{row}" for row in range(num)),
        features=pa.table(features),
        classes=CLASSES,
        embeddings=(rng.normal(size=(num, 4)) + move).astype(np.float32),
        probabilities=answers(labels, rng=rng, accuracy=accuracy),
        labels=labels.astype(np.int64),
        times=np.datetime64("2026-01-05T00", "us") + np.arange(num) * np.timedelta64(1, "h"),
    )


def answers(labels: NDArray[np.int64], *, rng: np.random.Generator, accuracy: float) -> NDArray[np.float32]:
    """Calibrated probabilities: a confidence is drawn, and the answer is right with that chance."""
    num = len(labels)
    confidence = np.clip(rng.beta(20 * accuracy, 20 * (1 - accuracy), num), 0.4, 0.999)
    is_right = rng.random(num) < confidence
    answer = np.where(is_right, labels, (labels + rng.integers(1, 3, num)) % 3)
    split = rng.uniform(0.3, 0.7, num)
    probabilities = np.empty((num, 3))
    rows = np.arange(num)
    probabilities[rows, answer] = confidence
    probabilities[rows, (answer + 1) % 3] = (1 - confidence) * split
    probabilities[rows, (answer + 2) % 3] = (1 - confidence) * (1 - split)
    return probabilities.astype(np.float32)
