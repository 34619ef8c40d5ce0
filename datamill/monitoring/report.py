"""The report of one window: a page that needs nothing from outside, neither script nor picture nor font."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from numpy.typing import NDArray

from datamill import files
from datamill.drift.observations import Observations
from datamill.drift.verdict import Estimate, Outcome
from datamill.modalities import image
from datamill.monitoring import charts
from datamill.monitoring.observing import WatchedModel
from datamill.monitoring.verdicts import Judged
from datamill.monitoring.windows import Window

TEMPLATES = Path(__file__).parent / "templates"
CARDS = Path(__file__).parent.parent / "reporting" / "templates"  # the style that all pages share
LABELS_MARK = "<!-- labels -->"  # where the page about a window waits for what labels tell
MAX_DISTRIBUTIONS, FEWEST_DISTRIBUTIONS = 12, 4
MAX_EXAMPLES, MAX_REFERENCES = 24, 12
MAX_CELLS = 7  # columns of example rows
KINDS = {
    "quality": "Data quality",
    "input": "Inputs",
    "embedding": "Embeddings",
    "prediction": "Predictions",
    "label": "Labels",
    "concept": "Concept",
    "performance": "Performance",
}
EFFECTS = {"cramers_v": "Cramér's V", "psi": "PSI", "auc": "AUC", "mmd": "MMD", "wasserstein": "Wasserstein"}


@dataclass(frozen=True)
class Chart:
    """A titled picture."""

    title: str
    note: str
    svg: Markup
    is_drift: bool = False


@dataclass(frozen=True)
class Example:
    """A sample to look at: a picture, or cells of a row."""

    caption: str
    note: str
    picture: str = ""
    cells: tuple[str, ...] = ()


def write_report(
    path: Path,
    judged: Judged,
    *,
    window: Window,
    model: WatchedModel,
    reference: Observations,
    history: Sequence[Judged],
    true: Mapping[int, Estimate],
) -> None:
    """Write the page about a judged window.

    Args:
        path: Where to.
        judged: What was found.
        window: The window itself.
        model: Who saw it.
        reference: What it was compared with.
        history: Earlier windows, oldest first.
        true: Performance that labels have shown, by number of the window.
    """
    seen = window.observations
    moved = sorted((one for one in judged.verdict.outcomes if one.is_drift), key=_weight)
    columns = _columns(moved, features=seen.features)
    page = (
        _environment()
        .get_template("window.html.j2")
        .render(
            judged=judged,
            verdict=judged.verdict,
            moved=moved,
            status=_status(judged),
            performance=_performance(judged),
            distributions=_distributions(judged, reference=reference, window=seen),
            answers=_answers(reference=reference, window=seen),
            examples=_examples(moved, window=window, columns=columns),
            columns=columns if model.dataset.modality == "tabular" else (),
            references=_references(model),
            trends=_trends([*history, judged], true=true),
            rejects=window.rejects[:MAX_EXAMPLES],
            outcomes=sorted(judged.verdict.outcomes, key=_weight),
        )
    )
    with files.atomic_write(path) as partial:
        partial.write_text(page, encoding="utf-8")


def add_labels(path: Path, labels: Judged, *, judged: Judged) -> None:
    """Put what labels told later into the page about a window; a page that says it already stays as it is.

    Args:
        path: The page.
        labels: What the labels told.
        judged: What was found about the window before.
    """
    page = path.read_text(encoding="utf-8")
    if LABELS_MARK not in page:
        return
    section = (
        _environment()
        .get_template("labels.html.j2")
        .render(
            judged=labels,
            verdict=labels.verdict,
            one=labels.verdict.performance,
            before=judged.verdict.performance,
            status=_status(labels),
            performance=_performance(labels),
            moved=sorted((one for one in labels.verdict.outcomes if one.is_drift), key=_weight),
        )
    )
    with files.atomic_write(path) as partial:
        partial.write_text(page.replace(LABELS_MARK, section, 1), encoding="utf-8")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([TEMPLATES, CARDS]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"effect": _effect, "p": _p_value, "kind": KINDS.__getitem__, "value": _value, "told": told}
    return environment


def _status(judged: Judged) -> tuple[str, str, str]:
    """Style, word and sentence."""
    num = sum(outcome.is_drift for outcome in judged.verdict.outcomes)
    found = f"{num} of {len(judged.verdict.outcomes)} tests and checks found a difference"
    if judged.verdict.is_at_risk:
        return "risk", "Performance at risk", f"The model does worse here than it may. {found}."
    if judged.verdict.is_drift:
        return "drift", "Drift", f"{found}; the model's performance is not at risk as far as can be told."
    return "calm", "No drift", f"{found}."


def _performance(judged: Judged) -> Markup | None:
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


def _distributions(judged: Judged, *, reference: Observations, window: Observations) -> list[Chart]:
    """Features side by side: those that moved, and then the ones that came nearest to it."""
    best: dict[str, Outcome] = {}
    for outcome in sorted(judged.verdict.outcomes, key=_weight):
        if outcome.kind in {"input", "quality"} and outcome.subject in window.features.column_names:
            best.setdefault(outcome.subject, outcome)
    num_moved = sum(outcome.is_drift for outcome in best.values())
    names = list(best)[: min(MAX_DISTRIBUTIONS, max(FEWEST_DISTRIBUTIONS, num_moved))]
    names = names or window.features.column_names[:FEWEST_DISTRIBUTIONS]
    found = []
    for name in names:
        worst = best.get(name)
        svg = _compared(reference.features[name], window.features[name])
        note = "" if worst is None else f"{worst.detector}: {_effect(worst)}"
        found.append(Chart(name, note, svg, is_drift=worst is not None and worst.is_drift))
    return found


def _answers(*, reference: Observations, window: Observations) -> list[Chart]:
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


def _examples(moved: Sequence[Outcome], *, window: Window, columns: Sequence[str]) -> list[Example]:
    """Samples that outcomes name, as far as they are kept; without any, those the model is least sure of."""
    seen = window.observations
    if not len(seen):
        return []
    row_of = {key: row for row, key in enumerate(seen.sample_ids)}
    why: dict[int, str] = {}
    for outcome in moved:
        for key in outcome.detail.get("examples", ()):
            if key in row_of:
                subject = outcome.subject if outcome.kind == "input" else ""
                why.setdefault(row_of[key], subject or f"{KINDS[outcome.kind].lower()} {outcome.subject}".strip())
    kept = {int(row): place for place, row in enumerate(window.kept.rows)}
    is_image = window.kept.inputs is not None and window.kept.inputs.ndim == 4
    if is_image:
        why = {row: told for row, told in why.items() if row in kept}
    if not why:
        rows = window.kept.rows if is_image else np.arange(len(seen))
        order, name = _telling(seen)
        why = {int(row): name for row in rows[np.argsort(order[rows], kind="stable")][:MAX_EXAMPLES]}
    found = []
    for row, told in list(why.items())[:MAX_EXAMPLES]:
        said = _said(seen, row)
        if is_image and window.kept.inputs is not None:
            found.append(Example(said, told, picture=_data_uri(window.kept.inputs[kept[row]])))
        else:
            cells = tuple(_cell(seen.features[name][row].as_py()) for name in columns)
            found.append(Example(said, told, cells=cells))
    return found


def _telling(seen: Observations) -> tuple[NDArray[np.floating[Any]], str]:
    """An order in which the samples that tell most come first, and what they are."""
    if seen.probabilities is not None:
        return seen.probabilities.max(axis=1), "least sure"
    assert seen.predictions is not None
    return -np.nan_to_num(seen.predictions), "largest prediction"


def _said(seen: Observations, row: int) -> str:
    if seen.probabilities is None:
        assert seen.predictions is not None
        return f"{seen.predictions[row]:.4g}"
    number = int(seen.probabilities[row].argmax())
    return f"{seen.classes[number]} {seen.probabilities[row, number]:.0%}"


def _references(model: WatchedModel) -> list[Example]:
    """A few samples that the model was measured on, for comparison."""
    test = model.reference.only("test")
    if test.inputs.ndim != 4:
        return []
    rows = np.linspace(0, len(test) - 1, min(MAX_REFERENCES, len(test))).astype(int)
    if test.is_regression:
        names = [f"{value:.4g}" for value in test.targets.tolist()]
    else:
        names = [model.dataset.classes[label] for label in test.rows["label"].to_pylist()]
    return [Example(names[row], "", picture=_data_uri(test.inputs[row])) for row in rows.tolist()]


def _trends(windows: Sequence[Judged], *, true: Mapping[int, Estimate]) -> list[Chart]:
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


def _num_moved(judged: Judged) -> float:
    return float(sum(outcome.is_drift for outcome in judged.verdict.outcomes))


def _columns(moved: Sequence[Outcome], *, features: pa.Table) -> list[str]:
    """Columns to show of example rows: those that moved, then the others."""
    first = [one.subject for one in moved if one.subject in features.column_names]
    return list(dict.fromkeys([*first, *features.column_names]))[:MAX_CELLS]


def _weight(outcome: Outcome) -> tuple[Any, ...]:
    """Sorts what matters most first."""
    p_value = 1.0 if outcome.p_value is None else outcome.p_value
    return not outcome.is_drift, list(KINDS).index(outcome.kind), p_value, -abs(np.nan_to_num(outcome.effect))


def _value(one: Estimate) -> str:
    return told(one.estimated, one)


def told(value: float, one: Estimate) -> str:
    """A value of an estimate in its unit: a share in per cent, a loss as it is."""
    return f"{value:.1%}" if one.metric == "accuracy" else f"{value:.4g}"


def _effect(outcome: Outcome) -> str:
    name = EFFECTS.get(outcome.effect_name, outcome.effect_name)
    return f"{outcome.effect:.1%}" if name == "share" else f"{name} {outcome.effect:.3g}"


def _p_value(outcome: Outcome) -> str:
    if outcome.p_value is None:
        return ""
    return "< 1e-6" if outcome.p_value < 1e-6 else f"{outcome.p_value:.2g}"


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _shares(numbers: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    return np.bincount(numbers, minlength=count) / max(1, len(numbers))


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    encoded = base64.b64encode(image.encode_png(np.ascontiguousarray(pixels))).decode("ascii")
    return f"data:image/png;base64,{encoded}"
