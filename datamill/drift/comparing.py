"""What of a window is compared with what of the reference, by whom; one pair of samples in memory at a time."""

# Shapes: N samples, D numbers of a row, K classes.

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamill.drift.backends import Backend, Choice, choose
from datamill.drift.columns import Ints, coded, drawn, kind_of, numbers, standardised
from datamill.drift.detectors import Sample, Setting
from datamill.drift.estimation import Judged, judged
from datamill.drift.observations import Observations
from datamill.drift.params import DriftParams
from datamill.drift.verdict import Kind, Outcome

PAIRWISE = ("mmd", "lsdd", "online_mmd")
ROWWISE = ("novelty", "classifier")
BINARY = 2
Map = Callable[[Sample], Sample]
SMALLEST, LARGEST = 1e-38, 1 - 6e-8  # probabilities that float32 can tell from 0 and 1


@dataclass(frozen=True)
class Comparison:
    """Two samples and the detector that compares them.

    Attributes:
        kind: What is looked at.
        name: The detector's name.
        subject: Feature or class; empty for all of them together.
        choice: The detector.
        reference: Sample of the reference.
        window: Sample of the window.
    """

    kind: Kind
    name: str
    subject: str
    choice: Choice
    reference: Sample
    window: Sample


def compare(comparison: Comparison, *, setting: Setting) -> Outcome:
    """What the detector finds; the verdict, where it has a p-value, is yet to come."""
    detector = comparison.choice.detector(comparison.reference, setting=setting)
    found = detector.test(comparison.window)
    return Outcome(
        kind=comparison.kind,
        detector=comparison.name,
        subject=comparison.subject,
        statistic=found.statistic,
        p_value=found.p_value,
        effect=found.effect,
        effect_name=detector.effect_name,
        is_drift=found.is_drift,
        backend=comparison.choice.backend,
        detail=found.detail,
    )


def comparisons(
    reference: Observations, window: Observations, *, params: DriftParams, backend: Backend
) -> Iterator[Comparison]:
    """Every comparison that both sides have enough values for."""
    pair = _Pair(reference, window, params, backend)
    yield from pair.columns()
    yield from pair.joint()
    yield from pair.embeddings()
    yield from pair.predictions()
    yield from label_comparisons(reference, window, params=params, backend=backend)


def label_comparisons(
    reference: Observations, window: Observations, *, params: DriftParams, backend: Backend
) -> Iterator[Comparison]:
    """Those that need labels."""
    pair = _Pair(reference, window, params, backend)
    yield from pair.labels()
    yield from pair.concept()


def log_odds(probability: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Logarithm of p / (1 - p): in the order of p, at a scale on which distances between small p mean something."""
    p = np.clip(probability.astype(np.float64), SMALLEST, LARGEST)
    return np.asarray(np.log(p) - np.log1p(-p))


def blunted(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Fourth roots of probabilities: small ones still count for a distance, and the smallest do not rule it."""
    return np.asarray(np.sqrt(np.sqrt(probabilities.astype(np.float64))))


def has_predictions(reference: Observations, window: Observations) -> bool:
    """Whether both sides have probabilities of the same classes."""
    left, right = reference.probabilities, window.probabilities
    return (
        left is not None and right is not None and left.shape[1] == right.shape[1] and _same_classes(reference, window)
    )


def is_regression(reference: Observations, window: Observations) -> bool:
    """Whether both sides have a regression's predictions."""
    return reference.predictions is not None and window.predictions is not None


def has_targets(reference: Observations, window: Observations, *, params: DriftParams) -> bool:
    """Whether both sides have enough of a regression's targets."""
    return all(
        side.targets is not None and int(np.isfinite(side.targets).sum()) >= params.min_labels
        for side in (reference, window)
    )


def has_embeddings(reference: Observations, window: Observations) -> bool:
    """Whether both sides have embeddings of the same width."""
    left, right = reference.embeddings, window.embeddings
    return left is not None and right is not None and left.shape[1] == right.shape[1]


def has_labels(reference: Observations, window: Observations, *, params: DriftParams) -> bool:
    """Whether both sides have enough labels of the same classes."""
    sides = (reference.labels, window.labels)
    return _same_classes(reference, window) and all(
        labels is not None and int((labels != -1).sum()) >= params.min_labels for labels in sides
    )


def _same_classes(reference: Observations, window: Observations) -> bool:
    return reference.classes == window.classes


@dataclass(frozen=True)
class _Pair:
    """Both sides, and how they are to be compared."""

    reference: Observations
    window: Observations
    params: DriftParams
    backend: Backend

    def columns(self) -> Iterator[Comparison]:
        before, after = self.reference.features, self.window.features
        for name in before.column_names:
            kind = kind_of(before[name])
            if name not in after.column_names or kind is None or kind != kind_of(after[name]):
                continue
            if kind == "number" and self.params.detectors.numbers:
                samples = numbers(before[name]), numbers(after[name])
                yield from self._all("input", self.params.detectors.numbers, name, *samples)
            if kind == "category" and self.params.detectors.categories:
                codes = coded(before[name], after[name])
                names = [one for one in self.params.detectors.categories if one != "fet" or len(codes.names) == BINARY]
                yield from self._all("input", names, name, codes.reference, codes.window, is_category=True)

    def joint(self) -> Iterator[Comparison]:
        for name in self.params.detectors.joint:
            if (choice := choose(name, backend=self.backend)) is not None:
                rows = self._rows(name, choice, of="joint")
                samples = standardised(
                    self.reference.features, self.window.features, reference_rows=rows[0], window_rows=rows[1]
                )
                if samples[0].shape[1]:
                    yield from self._enough("input", name, "", choice, *samples)

    def embeddings(self) -> Iterator[Comparison]:
        if has_embeddings(self.reference, self.window):
            assert self.reference.embeddings is not None
            assert self.window.embeddings is not None
            samples = self.reference.embeddings, self.window.embeddings
            yield from self._drawn("embedding", self.params.detectors.embedding, *samples)

    def predictions(self) -> Iterator[Comparison]:
        if is_regression(self.reference, self.window):
            tests = [name for name in self.params.detectors.prediction if name in ("ks", "cvm", "psi")]
            yield from self._all("prediction", tests, "", *self._finite("predictions"))
        if not has_predictions(self.reference, self.window):
            return
        before, after = answers(self.reference), answers(self.window)
        names = self.params.detectors.prediction
        singles = [name for name in names if name in ("ks", "cvm", "psi")]
        shares = [name for name in names if name == "fet"]
        predicted = before.argmax(axis=1), after.argmax(axis=1)
        for place in range(1 if before.shape[1] == BINARY else 0, before.shape[1]):  # of two, one says all
            subject = _class_name(self.reference, place)
            samples = log_odds(before[:, place]), log_odds(after[:, place])
            yield from self._all("prediction", singles, subject, *samples)
            is_it = [(side == place).astype(np.int64) for side in predicted]
            yield from self._all("prediction", shares, subject, *is_it, is_category=True)
        if "uncertainty" in names:
            yield from self._all("prediction", ["uncertainty"], "", _sums_to_one(before), _sums_to_one(after))
        assert self.reference.probabilities is not None
        assert self.window.probabilities is not None
        rest = [name for name in names if name in (*PAIRWISE, *ROWWISE)]
        sides = self.reference.probabilities, self.window.probabilities
        yield from self._drawn("prediction", rest, *sides, through=blunted)

    def _finite(self, name: str) -> tuple[Sample, Sample]:
        before, after = (getattr(side, name) for side in (self.reference, self.window))
        return before[np.isfinite(before)], after[np.isfinite(after)]

    def labels(self) -> Iterator[Comparison]:
        if has_targets(self.reference, self.window, params=self.params) and self.params.detectors.label:
            yield from self._all("label", self.params.detectors.numbers, "", *self._finite("targets"))
        if not has_labels(self.reference, self.window, params=self.params):
            return
        before, after = self.reference.labels, self.window.labels
        assert before is not None
        assert after is not None
        names = [one for one in self.params.detectors.label if one != "fet" or len(self.reference.classes) == BINARY]
        yield from self._all("label", names, "", before[before >= 0], after[after >= 0], is_category=True)

    def concept(self) -> Iterator[Comparison]:
        is_judged = has_labels(self.reference, self.window, params=self.params)
        if is_judged and has_predictions(self.reference, self.window):
            samples = [judged_answers(side).rows for side in (self.reference, self.window)]
            yield from self._all("concept", self.params.detectors.concept, "", *samples)

    def _drawn(
        self, kind: Kind, names: Sequence[str], before: Sample, after: Sample, *, through: Map | None = None
    ) -> Iterator[Comparison]:
        for name in names:
            if (choice := choose(name, backend=self.backend)) is not None:
                left, right = self._rows(name, choice, of=kind)
                samples = before[left], after[right]
                if through is not None:
                    samples = through(samples[0]), through(samples[1])
                finite = [sample[np.isfinite(sample).all(axis=1)] for sample in samples]
                yield from self._enough(kind, name, "", choice, *finite)

    def _all(
        self,
        kind: Kind,
        names: Sequence[str],
        subject: str,
        before: Sample,
        after: Sample,
        *,
        is_category: bool = False,
    ) -> Iterator[Comparison]:
        for name in names:
            choice = choose(name, backend=self.backend, is_category=is_category)
            if choice is not None:
                yield from self._enough(kind, name, subject, choice, before, after)

    def _enough(
        self, kind: Kind, name: str, subject: str, choice: Choice, before: Sample, after: Sample
    ) -> Iterator[Comparison]:
        if min(len(before), len(after)) >= self.params.min_samples:
            yield Comparison(kind, name, subject, choice, before, after)

    def _rows(self, name: str, choice: Choice, *, of: str) -> tuple[Ints, Ints]:
        """Rows that a test of whole rows can bear, those of the window in the order of time."""
        limit = self.params.max_pairwise_rows if name in PAIRWISE else self.params.max_classifier_rows
        limit = limit if choice.max_rows is None else min(limit, choice.max_rows)
        left = drawn(len(self.reference), limit=limit, seed=self.params.seed, of=f"reference {of}")
        right = drawn(len(self.window), limit=limit, seed=self.params.seed, of=f"window {of}")
        if self.window.times is not None:
            right = right[np.argsort(self.window.times[right], kind="stable")]
        return left, right


def answers(side: Observations) -> NDArray[np.float32]:
    """Class probabilities of the samples that have all of them, shape ``(N, K)``."""
    assert side.probabilities is not None
    return np.asarray(side.probabilities[np.isfinite(side.probabilities).all(axis=1)])


def judged_answers(side: Observations) -> Judged:
    """The model's answers where there is one and the label is known."""
    assert side.probabilities is not None
    assert side.labels is not None
    is_answered = np.isfinite(side.probabilities).all(axis=1)
    return judged(side.probabilities[is_answered], side.labels[is_answered])


def _class_name(observations: Observations, place: int) -> str:
    return observations.classes[place] if place < len(observations.classes) else str(place)


def _sums_to_one(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = probabilities.astype(np.float64)
    return np.asarray(exact / exact.sum(axis=1, keepdims=True))
