"""The report of one window: a page that needs nothing from outside, neither script nor picture nor font."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from datamill import files
from datamill.drift.observations import Observations
from datamill.drift.verdict import Estimate
from datamill.monitoring import examples, figures, wording
from datamill.monitoring.observing import WatchedModel
from datamill.monitoring.verdicts import Judged
from datamill.monitoring.windows import Window

TEMPLATES = Path(__file__).parent / "templates"
CARDS = Path(__file__).parent.parent / "reporting" / "templates"  # the style that all pages share
LABELS_MARK = "<!-- labels -->"  # where the page about a window waits for what labels tell


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
    moved = sorted((one for one in judged.verdict.outcomes if one.is_drift), key=wording.weight)
    columns = examples.columns(moved, features=seen.features)
    page = (
        _environment()
        .get_template("window.html.j2")
        .render(
            judged=judged,
            verdict=judged.verdict,
            moved=moved,
            status=_status(judged),
            performance=figures.performance(judged),
            distributions=figures.distributions(judged, reference=reference, window=seen),
            answers=figures.answers(reference=reference, window=seen),
            examples=examples.chosen(moved, window=window, columns=columns),
            columns=columns if model.dataset.modality == "tabular" else (),
            references=examples.of_reference(model),
            trends=figures.trends([*history, judged], true=true),
            rejects=window.rejects[: examples.MAX_EXAMPLES],
            outcomes=sorted(judged.verdict.outcomes, key=wording.weight),
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
            performance=figures.performance(labels),
            moved=sorted((one for one in labels.verdict.outcomes if one.is_drift), key=wording.weight),
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
    environment.filters |= {
        "effect": wording.effect,
        "p": wording.p_value,
        "kind": wording.KINDS.__getitem__,
        "value": wording.value,
        "told": wording.told,
    }
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
