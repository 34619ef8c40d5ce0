"""Finds labels that are probably wrong: confident learning on probabilities by models that have not seen the sample."""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cleanlab.count
import cleanlab.filter
import cleanlab.rank
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from datamill import files
from datamill.modalities import modality_of
from datamill.samples import Dataset

Method = Literal["prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given"]
Policy = Literal["off", "flag", "drop", "relabel", "down_weight"]

MAX_ITERATIONS = 300  # whitened or standardised features converge in a fraction of it
UNKNOWN = -1
SUSPECT_COLUMNS = ["sample_id", "source", "split", "label", "suggestion", "quality", "action"]


@dataclass(frozen=True)
class Judgement:
    """What the audit thinks of each label; one entry per sample.

    Attributes:
        quality: Probability of the given label in [0, 1], float32, NaN where not judged, shape ``(N,)``.
        suggestion: Number of the most probable class, ``UNKNOWN`` where not judged, shape ``(N,)``.
        is_issue: Whether the label is probably wrong, shape ``(N,)``.
    """

    quality: NDArray[np.float32]
    suggestion: NDArray[np.int64]
    is_issue: NDArray[np.bool_]


def unjudged(num_samples: int) -> Judgement:
    """The judgement of an audit that judges nobody."""
    return Judgement(
        quality=np.full(num_samples, np.nan, np.float32),
        suggestion=np.full(num_samples, UNKNOWN),
        is_issue=np.zeros(num_samples, bool),
    )


def observe(tables: Iterable[pa.Table], *, dataset: Dataset) -> Any:
    """What the vectorizer takes, for all samples: an array or data frame with one row each; payloads are not held."""
    modality = modality_of(dataset)
    pieces = [modality.observations(table, dataset=dataset) for table in tables]
    return pd.concat(pieces, ignore_index=True) if isinstance(pieces[0], pd.DataFrame) else np.concatenate(pieces)


def build_model(observations: Any, *, dataset: Dataset) -> Pipeline:
    """An unfitted logistic regression on the modality's features, fit to the shape of ``observations``."""
    vectorizer = modality_of(dataset).vectorizer(dataset=dataset)
    num_components = vectorizer.get_params().get("n_components")
    if num_components is not None:
        vectorizer.set_params(n_components=min(num_components, *observations.shape))
    return make_pipeline(vectorizer, LogisticRegression(max_iter=MAX_ITERATIONS))


def audit_labels(
    tables: Iterable[pa.Table],
    *,
    dataset: Dataset,
    labels: Sequence[str],
    folds: NDArray[np.int8],
    method: Method,
    min_quality: float,
    num_workers: int,
) -> Judgement:
    """The judgement of every sample in ``tables``; ``labels`` and ``folds`` are theirs (see ``judge_labels``)."""
    number_of = {label: number for number, label in enumerate(dataset.classes)}
    numbers = np.array([number_of[label] for label in labels], np.int64)
    probabilities = out_of_sample(
        observe(tables, dataset=dataset),
        labels=numbers,
        folds=folds,
        num_classes=len(dataset.classes),
        build=partial(build_model, dataset=dataset),
        num_workers=num_workers,
    )
    return judge_labels(probabilities, labels=numbers, folds=folds, method=method, min_quality=min_quality)


def out_of_sample(
    observations: Any,
    *,
    labels: NDArray[np.int64],
    folds: NDArray[np.int8],
    num_classes: int,
    build: Callable[[Any], Any],
    num_workers: int,
) -> NDArray[np.float64]:
    """Class probabilities of every sample by a model that has not seen it, shape ``(N, K)``.

    A training sample is judged by the model of the other folds, a held-out sample by the model of all of train. Rows
    are NaN where that model would have seen fewer than two classes. Each model computes on one thread, so that the
    bytes do not depend on the number of workers.

    Args:
        observations: One row per sample, an array or data frame.
        labels: Class number of each sample, shape ``(N,)``.
        folds: Fold of each training sample, negative for held-out ones, shape ``(N,)``.
        num_classes: K, the number of classes.
        build: Makes an unfitted classifier for the rows it will be fitted on.
        num_workers: Models fitted at a time.
    """
    probabilities = np.full((len(labels), num_classes), np.nan)

    def judge(fold: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        is_judged = folds == fold if fold >= 0 else folds < 0
        is_seen = (folds >= 0) & ~is_judged
        judged = np.zeros((int(is_judged.sum()), num_classes))
        if len(np.unique(labels[is_seen])) < 2:
            return is_judged, np.full_like(judged, np.nan)
        seen = observations[is_seen]
        model = build(seen).fit(seen, labels[is_seen])
        judged[:, model.classes_] = model.predict_proba(observations[is_judged])
        return is_judged, judged

    groups = sorted({max(int(fold), UNKNOWN) for fold in np.unique(folds)})
    with threadpool_limits(limits=1):
        for is_judged, judged in Parallel(n_jobs=num_workers, backend="threading")(map(delayed(judge), groups)):
            probabilities[is_judged] = judged
    return probabilities


def judge_labels(
    probabilities: NDArray[np.float64],
    *,
    labels: NDArray[np.int64],
    folds: NDArray[np.int8],
    method: Method,
    min_quality: float,
) -> Judgement:
    """Which labels are probably wrong, by cleanlab on the training samples.

    Held-out samples teach nothing: one of them is an issue when another class is more probable, and as probable as it
    usually is for training samples of that class. A class with fewer training samples than folds, or all in one fold,
    is neither judged nor suggested.

    Args:
        probabilities: Out-of-sample class probabilities, shape ``(N, K)``; NaN rows are not judged.
        labels: Class number of each sample, shape ``(N,)``.
        folds: Fold of each training sample, negative for held-out ones, shape ``(N,)``.
        method: cleanlab's rule for which labels are issues.
        min_quality: Labels of this quality and better are never issues.

    Source: C. Northcutt, L. Jiang, I. Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021.
    """
    judgement = unjudged(len(labels))
    classes = _judged_classes(labels, folds=folds, num_classes=probabilities.shape[1])
    if len(classes) < 2:
        return judgement
    is_judged = np.isin(labels, classes) & np.isfinite(probabilities).all(axis=1)
    among = probabilities[np.ix_(is_judged, classes)] + 1e-12  # no zero row where all mass is on classes not judged
    among /= among.sum(axis=1, keepdims=True)
    given = np.searchsorted(classes, labels[is_judged])
    is_train = folds[is_judged] >= 0

    quality = cleanlab.rank.get_label_quality_scores(given, among, method="self_confidence")
    is_candidate = (among.argmax(axis=1) != given) & (quality < min_quality)
    is_issue = np.zeros(len(given), bool)
    found = cleanlab.filter.find_label_issues(given[is_train], among[is_train], filter_by=method, n_jobs=1)
    is_issue[is_train] = found & is_candidate[is_train]
    usual = cleanlab.count.get_confident_thresholds(given[is_train], among[is_train])
    is_confident = among.max(axis=1) >= usual[among.argmax(axis=1)]
    is_issue[~is_train] = is_candidate[~is_train] & is_confident[~is_train]

    judgement.quality[is_judged] = quality
    judgement.suggestion[is_judged] = classes[among.argmax(axis=1)]
    judgement.is_issue[is_judged] = is_issue
    return judgement


def choose_actions(judgement: Judgement, *, is_train: NDArray[np.bool_], policy: Policy, max_share: float) -> list[str]:
    """What happens to each sample: ``policy`` for the worst training issues, ``flag`` for the others, "" for the rest.

    Args:
        judgement: The verdicts.
        is_train: Whether each sample teaches, shape ``(N,)``; the others are only ever flagged.
        policy: What happens to a training sample with an issue.
        max_share: Share of the training samples to act on at most.
    """
    actions: list[str] = ["flag" if issue else "" for issue in judgement.is_issue]
    candidates = np.flatnonzero(judgement.is_issue & is_train)
    worst = candidates[np.argsort(judgement.quality[candidates], kind="stable")]
    for row in worst[: int(max_share * int(is_train.sum()))]:
        actions[row] = policy
    return actions


def tabulate(
    judgement: Judgement, *, actions: Sequence[str], rows: pa.Table, splits: pa.ChunkedArray, classes: Sequence[str]
) -> pa.Table:
    """``rows`` (sample_id, source, label) with split, suggestion, quality, action and a sentence for the ledger."""
    labels = rows["label"].to_pylist()
    suggestions = ["" if number == UNKNOWN else classes[number] for number in judgement.suggestion]
    details = [
        f"labelled {label!r}, looks like {suggestion!r}, quality {quality:.4f}" if action else ""
        for label, suggestion, quality, action in zip(labels, suggestions, judgement.quality, actions, strict=True)
    ]
    columns = {
        "split": splits,
        "suggestion": pa.array(suggestions, pa.string()),
        "quality": pa.array(judgement.quality, pa.float32(), from_pandas=True),
        "action": pa.array(actions, pa.string()),
        "detail": pa.array(details, pa.string()),
    }
    for name, column in columns.items():
        rows = rows.append_column(name, column)
    return rows


def write_suspects(path: Path, *, audited: pa.Table, limit: int) -> None:
    """Write the samples something was said about as CSV, worst label first, at most ``limit``."""
    suspects = audited.filter(pc.not_equal(audited["action"], ""))
    suspects = suspects.sort_by([("quality", "ascending"), ("sample_id", "ascending")]).slice(0, limit)
    with files.atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SUSPECT_COLUMNS)
        for row in suspects.select(SUSPECT_COLUMNS).to_pylist():
            writer.writerow([f"{value:.6f}" if isinstance(value, float) else value for value in row.values()])


def _judged_classes(labels: NDArray[np.int64], *, folds: NDArray[np.int8], num_classes: int) -> NDArray[np.int64]:
    num_folds = int(folds.max(initial=0)) + 1
    taught = [np.flatnonzero((labels == number) & (folds >= 0)) for number in range(num_classes)]
    judged = [
        number for number, rows in enumerate(taught) if len(rows) >= num_folds and len(np.unique(folds[rows])) > 1
    ]
    return np.array(judged, np.int64)
