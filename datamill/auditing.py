"""Finds labels that are probably wrong: confident learning on probabilities by models that have not seen the sample.

Samples are read as streams. Models are fitted on a bounded number of training samples and judge all of them; the
probabilities wait in a file, and what is held of each sample is a few numbers, 20 bytes.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, final

import cleanlab.count
import cleanlab.filter
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from datamill import files, ledger, parts, reading, sampling
from datamill.confident import Block, IssueRule, Method, confident_thresholds
from datamill.derived import iter_chosen
from datamill.modalities import modality_of
from datamill.samples import Dataset
from datamill.splitting import SPLITS

Policy = Literal["off", "flag", "drop", "relabel", "down_weight"]
Probabilities = Callable[[], Iterable[NDArray[np.float64]]]
"""Starts reading the class probabilities of all samples, block by block, shape ``(B, K)`` each."""
Models = Mapping[int, Any]
"""Fitted classifiers by the fold they have not seen; ``None`` where there was too little to learn from."""

MAX_ITERATIONS = 300  # whitened or standardised features converge in a fraction of it
EXACT_ROWS = 200_000  # judged samples up to which cleanlab sees all probabilities at once
OBSERVED_ROWS = 16_384  # observed at a time
BLOCK_VALUES = 1_000_000  # probabilities read at a time: 8 MB
UNKNOWN = -1
HELD_OUT = -1
FLAG, TREAT = 1, 2  # what happens to a sample: nothing (0), a flag, the policy
SUSPECT_COLUMNS = ["sample_id", "source", "split", "label", "suggestion", "quality", "action"]


@dataclass(frozen=True)
class Roster:
    """The samples to judge; one entry per sample, in sample order.

    Attributes:
        is_left: Which of all samples they are, shape ``(M,)``.
        labels: Number of the given class, int32, shape ``(N,)``.
        splits: Position in ``SPLITS``, int8, shape ``(N,)``.
        folds: Fold of a training sample, negative for held-out ones, int8, shape ``(N,)``.
        is_taught: Training samples that models are fitted on, shape ``(N,)``.
    """

    is_left: NDArray[np.bool_]
    labels: NDArray[np.int32]
    splits: NDArray[np.int8]
    folds: NDArray[np.int8]
    is_taught: NDArray[np.bool_]


@dataclass(frozen=True)
class Judgement:
    """What the audit thinks of each label; one entry per sample.

    Attributes:
        quality: Probability of the given label in [0, 1], float32, NaN where not judged, shape ``(N,)``.
        suggestion: Number of the most probable class, ``UNKNOWN`` where not judged, int32, shape ``(N,)``.
        is_issue: Whether the label is probably wrong, shape ``(N,)``.
    """

    quality: NDArray[np.float32]
    suggestion: NDArray[np.int32]
    is_issue: NDArray[np.bool_]


def unjudged(num_samples: int) -> Judgement:
    """The judgement of an audit that judges nobody."""
    return Judgement(
        quality=np.full(num_samples, np.nan, np.float32),
        suggestion=np.full(num_samples, UNKNOWN, np.int32),
        is_issue=np.zeros(num_samples, bool),
    )


def read_roster(samples: Path, *, assignments: Path, classes: Sequence[str], max_rows: int, key: str) -> Roster:
    """The survivors of the split, and which of them models are fitted on: at most ``max_rows``, chosen by ``key``."""
    known, positions = pa.array(classes, pa.string()), pa.array(SPLITS)
    placed = ledger.iter_tables(assignments, columns=["sample_id", "fate", "split", "fold"])
    cursor = reading.Cursor(placed, name=str(assignments))
    draw = sampling.BottomK(max_rows, key=key)
    draw.add(pa.table({"sample_id": pa.array([], pa.string()), "row": pa.array([], pa.int64())}))
    is_left, labels, splits, folds = ([np.empty(0, kind)] for kind in (np.bool_, np.int32, np.int8, np.int8))
    num_left = 0
    for table in parts.iter_tables(samples, columns=["sample_id", "label"], rows=OBSERVED_ROWS):
        rows, verdicts = cursor.advance(table["sample_id"])
        is_surviving = ledger.is_surviving(verdicts)
        rows, verdicts = rows[is_surviving.to_numpy()], verdicts.filter(is_surviving)
        split = pc.index_in(verdicts["split"], value_set=positions).to_numpy().astype(np.int8)
        numbers = num_left + np.arange(len(rows))
        draw.add(pa.table({"sample_id": verdicts["sample_id"], "row": numbers}).filter(pa.array(split == 0)))
        is_left.append(np.isin(np.arange(table.num_rows), rows))
        labels.append(pc.index_in(table["label"].take(pa.array(rows)), value_set=known).to_numpy())
        splits.append(split)
        folds.append(verdicts["fold"].to_numpy())
        num_left += len(rows)
    cursor.require_end()
    is_taught = np.zeros(num_left, bool)
    is_taught[draw.table()["row"].to_numpy()] = True
    return Roster(
        is_left=np.concatenate(is_left),
        labels=np.concatenate(labels),
        splits=np.concatenate(splits),
        folds=np.concatenate(folds),
        is_taught=is_taught,
    )


def observe(
    tables: Iterable[pa.Table], *, roster: Roster, wanted: NDArray[np.bool_], dataset: Dataset
) -> Iterator[Any]:
    """What the vectorizer takes, block by block: arrays or data frames with one row per wanted sample, in order.

    Args:
        tables: All samples of the source: their thumbnails, or their features.
        roster: Which of them are left.
        wanted: Which of these are wanted, shape ``(N,)``.
        dataset: What the samples are.
    """
    place, stop = 0, 0
    for table in tables:
        left = np.flatnonzero(roster.is_left[place : place + table.num_rows])
        place += table.num_rows
        start, stop = stop, stop + len(left)
        rows = left[wanted[start:stop]]
        if len(rows):
            yield _observations(table.take(pa.array(rows)), dataset=dataset)


def join(blocks: Iterable[Any]) -> Any:
    """All observations as one array or data frame; there must be some."""
    pieces = list(blocks)
    return np.concatenate(pieces) if isinstance(pieces[0], np.ndarray) else pd.concat(pieces, ignore_index=True)


def build_model(observations: Any, *, dataset: Dataset) -> Pipeline:
    """An unfitted logistic regression on the modality's features, fit to the shape of ``observations``."""
    vectorizer = modality_of(dataset).vectorizer(dataset=dataset)
    num_components = vectorizer.get_params().get("n_components")
    if num_components is not None:
        vectorizer.set_params(n_components=min(num_components, *observations.shape))
    return make_pipeline(vectorizer, LogisticRegression(max_iter=MAX_ITERATIONS))


def fit_models(
    observations: Any,
    *,
    labels: NDArray[np.int32],
    folds: NDArray[np.int8],
    build: Callable[[Any], Any],
    num_workers: int,
) -> Models:
    """A model for each fold, by the others; and one for held-out samples, by all.

    ``None`` stands for a model that would have seen fewer than two classes. Each model computes on one thread, so that
    the bytes do not depend on the number of workers.

    Args:
        observations: Samples to fit on, an array or data frame of T rows.
        labels: Number of each one's class, shape ``(T,)``.
        folds: Their folds, 0 and more, shape ``(T,)``.
        build: Makes an unfitted classifier for the rows it will be fitted on.
        num_workers: Models fitted at a time.
    """

    def fit(fold: int) -> Any:
        is_seen = folds != fold
        seen = observations[is_seen]
        return build(seen).fit(seen, labels[is_seen]) if len(np.unique(labels[is_seen])) > 1 else None

    groups = [HELD_OUT, *np.unique(folds).tolist()]
    with threadpool_limits(limits=1):
        models = Parallel(n_jobs=num_workers, backend="threading")(map(delayed(fit), groups))
    return dict(zip(groups, models, strict=True))


def out_of_sample(
    blocks: Iterable[Any], *, models: Models, folds: NDArray[np.int8], num_classes: int
) -> Iterator[NDArray[np.float64]]:
    """Class probabilities of every sample by a model that has not seen it, shape ``(B, K)`` for each block.

    A training sample is judged by the model of the other folds, a held-out sample by the model of all of train. Rows
    are NaN where there is no such model.

    Args:
        blocks: Observations of all samples, in order.
        models: One for each fold, and for ``HELD_OUT``; a fold without one of its own is judged by that of all.
        folds: Fold of each training sample, negative for held-out ones, shape ``(N,)``.
        num_classes: K, the number of classes.
    """
    stop = 0
    with threadpool_limits(limits=1):
        for block in blocks:
            start, stop = stop, stop + len(block)
            groups = np.where(np.isin(folds[start:stop], list(models)), folds[start:stop], HELD_OUT)
            probabilities = np.full((len(block), num_classes), np.nan)
            for group in np.unique(groups).tolist():
                model, is_judged = models[group], groups == group
                if model is not None:
                    judged = np.zeros((int(is_judged.sum()), num_classes))
                    judged[:, model.classes_] = model.predict_proba(block[is_judged])
                    probabilities[is_judged] = judged
            yield probabilities


@final
class ProbabilityFile:
    """Class probabilities of all samples in a file, read back block by block as often as needed."""

    def __init__(self, path: Path, blocks: Iterable[NDArray[np.float64]], *, num_classes: int) -> None:
        """Write them; each block has the shape ``(B, num_classes)``."""
        self._path = path
        self._num_classes = num_classes
        with path.open("wb") as file:
            for block in blocks:
                block.tofile(file)

    def __call__(self) -> Iterator[NDArray[np.float64]]:
        """Start reading, from the first sample on."""
        rows = max(1, BLOCK_VALUES // self._num_classes)
        with self._path.open("rb") as file:
            while (block := np.fromfile(file, np.float64, count=rows * self._num_classes)).size:
                yield block.reshape(-1, self._num_classes)


def judge_labels(
    probabilities: Probabilities,
    *,
    labels: NDArray[np.int32],
    folds: NDArray[np.int8],
    is_taught: NDArray[np.bool_],
    num_classes: int,
    method: Method,
    min_quality: float,
) -> Judgement:
    """Which labels are probably wrong, by cleanlab's rules on the training samples.

    Held-out samples teach nothing: one of them is an issue when another class is more probable, and as probable as it
    usually is for training samples of that class. A class with fewer samples to fit on than folds, or all in one fold,
    is neither judged nor suggested. Beyond ``EXACT_ROWS`` the rules are applied block by block (``confident``).

    Args:
        probabilities: Starts reading out-of-sample class probabilities; NaN rows are not judged.
        labels: Number of each sample's class, shape ``(N,)``.
        folds: Fold of each training sample, negative for held-out ones, shape ``(N,)``.
        is_taught: Which samples the models were fitted on, shape ``(N,)``.
        num_classes: K.
        method: cleanlab's rule for which labels are issues.
        min_quality: Labels of this quality and better are never issues.
    """
    judgement = unjudged(len(labels))
    classes = _judged_classes(labels[is_taught], folds=folds[is_taught], num_classes=num_classes)
    if len(classes) < 2:
        return judgement
    is_small = len(labels) <= EXACT_ROWS
    read = (lambda: [np.concatenate(list(probabilities()))]) if is_small else probabilities

    def judged() -> Iterator[tuple[NDArray[np.int64], Block]]:
        return _judged_blocks(read(), labels=labels, classes=classes)

    def train() -> Iterator[Block]:
        for rows, (given, among) in judged():
            is_train = folds[rows] >= 0
            yield given[is_train], among[is_train]

    find: Callable[..., NDArray[np.bool_]]
    if is_small:
        ((given, among),) = train()
        usual = cleanlab.count.get_confident_thresholds(given, among)
        find = partial(cleanlab.filter.find_label_issues, filter_by=method, n_jobs=1)
    else:
        usual = confident_thresholds(train, num_classes=len(classes))
        given = np.concatenate([given for given, _ in train()])
        find = IssueRule(train, labels=given, method=method, thresholds=usual).find
    for rows, (given, among) in judged():
        is_train = folds[rows] >= 0
        favourite = among.argmax(axis=1)
        quality = among[np.arange(len(given)), given]
        is_issue = among.max(axis=1) >= usual[favourite]
        is_issue[is_train] = find(given[is_train], among[is_train])
        judgement.quality[rows] = quality
        judgement.suggestion[rows] = classes[favourite]
        judgement.is_issue[rows] = is_issue & (favourite != given) & (quality < min_quality)
    return judgement


def choose_actions(judgement: Judgement, *, is_train: NDArray[np.bool_], max_share: float) -> NDArray[np.int8]:
    """What happens to each sample, shape ``(N,)``: ``TREAT`` the worst training issues, ``FLAG`` the others.

    Args:
        judgement: The verdicts.
        is_train: Whether each sample teaches, shape ``(N,)``; the others are only ever flagged.
        max_share: Share of the training samples to act on at most.
    """
    actions = np.where(judgement.is_issue, np.int8(FLAG), np.int8(0))
    candidates = np.flatnonzero(judgement.is_issue & is_train)
    worst = candidates[np.argsort(judgement.quality[candidates], kind="stable")]
    actions[worst[: int(max_share * int(is_train.sum()))]] = TREAT
    return actions


def iter_audited(
    assignments: Path,
    *,
    roster: Roster,
    judgement: Judgement,
    actions: NDArray[np.int8],
    policy: Policy,
    classes: Sequence[str],
) -> Iterator[tuple[slice, pa.Table]]:
    """The samples with split, label, suggestion, quality, action and a sentence for the ledger, and their rows.

    Args:
        assignments: Ledger whose survivors the roster was read from.
        roster: The samples.
        judgement: What the audit thinks of them.
        actions: What happens to them (``choose_actions``).
        policy: Name of the action ``TREAT``.
        classes: Class names by number.
    """
    names = pa.array([*classes, ""], pa.string())  # of -1, too
    stop = 0
    for survivors in ledger.iter_survivors(assignments):
        start, stop = stop, stop + survivors.num_rows
        rows = slice(start, stop)
        quality = judgement.quality[rows]
        columns = {
            "sample_id": survivors["sample_id"],
            "split": pa.array(SPLITS).take(pa.array(roster.splits[rows])),
            "label": names.take(pa.array(roster.labels[rows])),
            "suggestion": names.take(pa.array(judgement.suggestion[rows] % len(names))),
            "quality": pa.array(quality, pa.float32(), mask=np.isnan(quality)),
            "action": pa.array(["", "flag", policy]).take(pa.array(actions[rows])),
        }
        details = np.full(stop - start, "", object)
        for row in np.flatnonzero(actions[rows]):
            label, suggestion = columns["label"][row].as_py(), columns["suggestion"][row].as_py()
            details[row] = f"labelled {label!r}, looks like {suggestion!r}, quality {quality[row]:.4f}"
        yield rows, pa.table({**columns, "detail": pa.array(details, pa.string())})


def is_suspect(judgement: Judgement, *, actions: NDArray[np.int8], limit: int) -> NDArray[np.bool_]:
    """The samples something was said about, but for those that ``limit`` others are worse than, shape ``(N,)``."""
    is_worst = actions > 0
    quality = judgement.quality[is_worst]
    if len(quality) > limit:
        is_worst &= judgement.quality <= np.partition(quality, limit - 1)[limit - 1]
    return is_worst


def write_suspects(path: Path, *, suspects: pa.Table, samples: Path, limit: int) -> None:
    """Write suspects as CSV, worst label first, at most ``limit``.

    Args:
        path: The CSV file.
        suspects: ``sample_id`` and what ``tabulate`` says.
        samples: Parts folder that knows their ``source``.
        limit: Most rows (count).
    """
    worst = suspects.sort_by([("quality", "ascending"), ("sample_id", "ascending")]).slice(0, limit)
    source_of: dict[str, str] = {}
    for table in iter_chosen(samples, wanted=worst["sample_id"].to_pylist(), columns=["sample_id", "source"]):
        source_of |= dict(zip(table["sample_id"].to_pylist(), table["source"].to_pylist(), strict=True))
    with files.atomic_write(path) as partial_path, partial_path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SUSPECT_COLUMNS)
        for row in worst.to_pylist():
            row["source"], row["quality"] = source_of[row["sample_id"]], f"{row['quality']:.6f}"
            writer.writerow([row[name] for name in SUSPECT_COLUMNS])


def _observations(table: pa.Table, *, dataset: Dataset) -> Any:
    """Observations of samples: of images from their thumbnails."""
    if "thumbnail" not in table.column_names:
        return modality_of(dataset).observations(table, dataset=dataset)
    column = table["thumbnail"].combine_chunks()
    pixels = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * column.type.byte_width :]
    values = pixels[: len(column) * column.type.byte_width].reshape(len(column), -1)
    return values / np.float32(255)


def _judged_blocks(
    blocks: Iterable[NDArray[np.float64]], *, labels: NDArray[np.int32], classes: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], Block]]:
    """Rows of judged samples, with given labels and probabilities among the judged ``classes``."""
    place_of = np.full(labels.max(initial=0) + 1 + classes.max(), -1, np.int32)
    place_of[classes] = np.arange(len(classes))
    stop = 0
    for block in blocks:
        start, stop = stop, stop + len(block)
        given = place_of[labels[start:stop]]
        rows = np.flatnonzero((given >= 0) & np.isfinite(block[:, 0]))  # a row is finite or not as a whole
        among = block[:, classes] + 1e-12  # no zero row where all mass is on classes not judged
        if len(rows) < len(block):
            given, among = given[rows], among[rows]
        among /= among.sum(axis=1, keepdims=True)
        yield start + rows, (given, among)


def _judged_classes(labels: NDArray[np.int32], *, folds: NDArray[np.int8], num_classes: int) -> NDArray[np.int64]:
    num_folds = int(folds.max(initial=0)) + 1
    cells = labels.astype(np.int64) * num_folds + folds
    counts = np.bincount(cells, minlength=num_classes * num_folds).reshape(num_classes, num_folds)
    return np.flatnonzero((counts.sum(axis=1) >= num_folds) & ((counts > 0).sum(axis=1) > 1))
