"""The pictures on the page about a window: features and answers beside the reference's, and what went before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from numpy.typing import NDArray

from datamill.drift.observations import Observations
from datamill.drift.verdict import Estimate, Outcome
from datamill.monitoring import charts, wording
from datamill.monitoring.verdicts import Judged

MAX_DISTRIBUTIONS, FEWEST_DISTRIBUTIONS = 12, 4


@dataclass(frozen=True)
class Chart:
    """A titled picture."""

    title: str
    note: str
    svg: Markup
    is_drift: bool = False


def performance(judged: Judged) -> Markup | None:
    """The model's performance with its interval and the reference; ``None`` where nothing is known of it."""
    one = judged.verdict.performance
    if one is None:
        return None
    return charts.interval(
        value=one.estimated,
        low=one.low,
        high=one.high,
        reference=one.reference,
        is_bad=one.is_at_risk,
        most=1.0 if one.metric == "accuracy" else None,
    )


def distributions(judged: Judged, *, reference: Observations, window: Observations) -> list[Chart]:
    """Features side by side: those that moved, and then the ones that came nearest to it."""
    best: dict[str, Outcome] = {}
    for outcome in sorted(judged.verdict.outcomes, key=wording.weight):
        if outcome.kind in {"input", "quality"} and outcome.subject in window.features.column_names:
            best.setdefault(outcome.subject, outcome)
    num_moved = sum(outcome.is_drift for outcome in best.values())
    names = list(best)[: min(MAX_DISTRIBUTIONS, max(FEWEST_DISTRIBUTIONS, num_moved))]
    names = names or window.features.column_names[:FEWEST_DISTRIBUTIONS]
    found = []
    for name in names:
        worst = best.get(name)
        svg = _compared(reference.features[name], window.features[name])
        note = "" if worst is None else f"{worst.detector}: {wording.effect(worst)}"
        found.append(Chart(name, note, svg, is_drift=worst is not None and worst.is_drift))
    return found


def answers(*, reference: Observations, window: Observations) -> list[Chart]:
    """Predicted classes, confidence, and labels where there are any; or numbers of a regression."""
    if reference.predictions is not None and window.predictions is not None:
        return _numbers(reference, window)
    assert reference.probabilities is not None
    assert window.probabilities is not None
    if not len(window):
        return []
    num_classes = len(window.classes)
    shares = [_shares(one.argmax(axis=1), num_classes) for one in (reference.probabilities, window.probabilities)]
    confidences = [one.max(axis=1).astype(np.float64) for one in (reference.probabilities, window.probabilities)]
    found = [
        Chart(
            "predicted class", "share of samples", charts.bars(window.classes, reference=shares[0], window=shares[1])
        ),
        Chart("confidence", "of the predicted class", charts.histogram(*confidences)),
    ]
    known = [labels[labels >= 0] for labels in (reference.labels, window.labels) if labels is not None]
    if len(known) == 2 and all(map(len, known)):
        counted = [_shares(labels, num_classes) for labels in known]
        svg = charts.bars(window.classes, reference=counted[0], window=counted[1])
        found.append(Chart("true class", f"of {len(known[1])} labelled samples", svg))
    return found


def trends(windows: Sequence[Judged], *, true: Mapping[int, Estimate]) -> list[Chart]:
    """How performance, drift and volume went over the last windows."""
    found = []
    judged = [(one, one.verdict.performance) for one in windows if one.verdict.performance is not None]
    if judged:
        points = [
            charts.Point(one.number, its.estimated, its.low, its.high, is_marked=its.is_at_risk)
            for one, its in judged
            if its is not None
        ]
        last = judged[-1][1]
        assert last is not None
        values = {number: one.estimated for number, one in true.items()}
        svg = charts.trend(points, reference=last.reference, true=values)
        note = "with its interval; the dashed line is the reference" + (", squares are measured" if values else "")
        found.append(Chart(last.metric, note, svg))
    counts = [charts.Point(one.number, _num_moved(one), is_marked=one.verdict.is_drift) for one in windows]
    found.append(Chart("differences found", "tests and checks by window", charts.trend(counts)))
    volumes = [charts.Point(one.number, float(one.verdict.num_samples)) for one in windows]
    found.append(Chart("samples", "by window", charts.trend(volumes)))
    return found


def _numbers(reference: Observations, window: Observations) -> list[Chart]:
    assert reference.predictions is not None
    assert window.predictions is not None
    found = [Chart("prediction", "of the model", charts.histogram(reference.predictions, window.predictions))]
    if reference.targets is not None and window.targets is not None and np.isfinite(window.targets).any():
        svg = charts.histogram(reference.targets, window.targets)
        found.append(Chart("target", f"of {int(np.isfinite(window.targets).sum())} labelled samples", svg))
    return found


def _compared(reference: pa.ChunkedArray, window: pa.ChunkedArray) -> Markup:
    if pa.types.is_floating(reference.type):
        return charts.histogram(reference.to_numpy(), window.to_numpy())
    names = pc.unique(pa.concat_arrays([*reference.chunks, *window.chunks])).to_pylist()
    values = pa.array(names, reference.type)
    counted = []
    for side in (reference, window):
        places = pc.index_in(side, value_set=values).to_numpy()
        counted.append(_shares(places, len(names)))
    shown = ["(missing)" if name is None else name for name in names]
    return charts.bars(shown, reference=counted[0], window=counted[1])


def _num_moved(judged: Judged) -> float:
    return float(sum(outcome.is_drift for outcome in judged.verdict.outcomes))


def _shares(numbers: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    return np.bincount(numbers, minlength=count) / max(1, len(numbers))
