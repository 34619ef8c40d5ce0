"""Which labels are probably wrong: confident learning on probabilities by models that have not seen the sample.

Models are fitted on a bounded number of training samples and judge all of them; the probabilities wait in a file, and
what is held of each sample is a few numbers, 9 bytes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import cleanlab.count
import cleanlab.filter
import numpy as np
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from datamill import arrays
from datamill.auditing.linear import LinearClassifier, is_linear, simplified
from datamill.confident import Block, IssueRule, Method, confident_thresholds
from datamill.modalities import modality_of
from datamill.samples import Dataset

Probabilities = Callable[[], Iterable[NDArray[np.float64]]]
"""Starts reading the class probabilities of all samples, block by block, shape ``(B, K)`` each."""
Models = Mapping[int, Any]
"""Fitted classifiers by the fold they have not seen; ``None`` where there was too little to learn from."""

AMPLE_ROWS = 100  # of each class in each fold, from which on a model of one fold is worth being averaged
MAX_ITERATIONS = 300  # whitened or standardised features converge in a fraction of it
EXACT_ROWS = 200_000  # judged samples up to which cleanlab sees all probabilities at once
BLOCK_VALUES = 2**18  # probabilities read at a time: 2 MiB
UNKNOWN = -1
HELD_OUT = -1


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

    Where every fold has ``AMPLE_ROWS`` of every class, linear models are fitted to one fold each, and their means are
    the models: a sixth of the work, about as good. ``None`` stands for a model that would have seen fewer than two
    classes. Each model computes on one thread, so that the bytes do not depend on the number of workers.

    Args:
        observations: Samples to fit on, an array or data frame of T rows.
        labels: Number of each one's class, shape ``(T,)``.
        folds: Their folds, 0 and more, shape ``(T,)``.
        build: Makes an unfitted classifier for the rows it will be fitted on.
        num_workers: Models fitted at a time.

    Source: Y. Zhang, J. Duchi, M. Wainwright, "Communication-Efficient Algorithms for Statistical Optimization", 2013.
    """

    def fit(is_seen: NDArray[np.bool_]) -> Any:
        seen = observations[is_seen]
        return simplified(build(seen).fit(seen, labels[is_seen])) if len(np.unique(labels[is_seen])) > 1 else None

    numbers = np.unique(folds).tolist()
    groups = [HELD_OUT, *numbers]
    are_apart = _are_ample(labels, folds=folds) and is_linear(build(observations))
    seen_by = [folds == fold for fold in numbers] if are_apart else [folds != fold for fold in groups]
    with threadpool_limits(limits=1):
        models = Parallel(n_jobs=num_workers, backend="threading")(map(delayed(fit), seen_by))
    if not are_apart:
        return dict(zip(groups, models, strict=True))
    return {
        fold: LinearClassifier.mean([model for other, model in zip(numbers, models, strict=True) if other != fold])
        for fold in groups
    }


def out_of_sample(
    blocks: Iterable[Any], *, models: Models, folds: NDArray[np.int8], num_classes: int, num_workers: int
) -> Iterator[NDArray[np.float64]]:
    """Class probabilities of every sample by a model that has not seen it, shape ``(B, K)`` for each block.

    A training sample is judged by the model of the other folds, a held-out sample by the model of all of train. Rows
    are NaN where there is no such model. Blocks are judged while the next ones are read.

    Args:
        blocks: Observations of all samples, in order.
        models: One for each fold, and for ``HELD_OUT``; a fold without one of its own is judged by that of all.
        folds: Fold of each training sample, negative for held-out ones, shape ``(N,)``.
        num_classes: K, the number of classes.
        num_workers: Blocks judged at a time.
    """
    is_known = np.isin(np.arange(256, dtype=np.uint8).view(np.int8), list(models))

    def judge(block: Any, its_folds: NDArray[np.int8]) -> NDArray[np.float64]:
        probabilities = np.full((len(block), num_classes), np.nan)
        groups = np.where(is_known[its_folds.view(np.uint8)], its_folds, np.int8(HELD_OUT))
        for group in np.unique(groups).tolist():
            model, is_judged = models[group], groups == group
            if model is not None:
                judged = np.zeros((int(is_judged.sum()), num_classes))
                judged[:, model.classes_] = model.predict_proba(block[is_judged])
                probabilities[is_judged] = judged
        return probabilities

    stop, waiting = 0, deque[Future[NDArray[np.float64]]]()
    with threadpool_limits(limits=1), ThreadPoolExecutor(num_workers) as threads:
        for block in blocks:
            start, stop = stop, stop + len(block)
            waiting.append(threads.submit(judge, block, folds[start:stop]))
            if len(waiting) > num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@final
class ProbabilityFile:
    """Class probabilities of all samples in a file, read back block by block as often as needed."""

    def __init__(self, path: Path, blocks: Iterable[NDArray[np.float64]], *, num_classes: int) -> None:
        """Write them; each block has the shape ``(B, num_classes)``."""
        self._path = path
        self._num_classes = num_classes
        with path.open("wb") as file:
            for block in blocks:
                arrays.append(file, block)

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
        find = IssueRule(train, method=method, thresholds=usual).find
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
        among = block if len(classes) == block.shape[1] else _among(block, classes=classes)
        if len(rows) < len(block):
            given, among = given[rows], among[rows]
        yield start + rows, (given, among)


def _among(block: NDArray[np.float64], *, classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probabilities among some classes only; their sum is 1 again."""
    among = block[:, classes] + 1e-12  # no zero row where all mass is on the other ones
    among /= among.sum(axis=1, keepdims=True)
    return among


def _are_ample(labels: NDArray[np.int32], *, folds: NDArray[np.int8]) -> bool:
    """Whether there are several folds, and every class has enough rows in each of them."""
    counts = _counts(labels, folds=folds, num_classes=int(labels.max(initial=0)) + 1)
    counts = counts[counts.any(axis=1)][:, counts.any(axis=0)]
    return counts.shape[1] > 1 and bool(counts.min() >= AMPLE_ROWS)


def _counts(labels: NDArray[np.int32], *, folds: NDArray[np.int8], num_classes: int) -> NDArray[np.int64]:
    """Rows of each class in each fold, shape ``(K, folds)``."""
    num_folds = int(folds.max(initial=0)) + 1
    cells = labels.astype(np.int64) * num_folds + folds
    return np.bincount(cells, minlength=num_classes * num_folds).reshape(num_classes, num_folds)


def _judged_classes(labels: NDArray[np.int32], *, folds: NDArray[np.int8], num_classes: int) -> NDArray[np.int64]:
    counts = _counts(labels, folds=folds, num_classes=num_classes)
    return np.flatnonzero((counts.sum(axis=1) >= counts.shape[1]) & ((counts > 0).sum(axis=1) > 1))
