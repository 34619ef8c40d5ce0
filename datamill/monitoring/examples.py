"""The samples on the page about a window: those that outcomes name, and some of the reference's."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datamill.drift.observations import Observations
from datamill.drift.verdict import Outcome
from datamill.modalities import image
from datamill.monitoring.observing import WatchedModel
from datamill.monitoring.windows import Window
from datamill.monitoring.wording import KINDS

MAX_EXAMPLES, MAX_REFERENCES = 24, 12
MAX_CELLS = 7  # columns of example rows


@dataclass(frozen=True)
class Example:
    """A sample to look at: a picture, or cells of a row."""

    caption: str
    note: str
    picture: str = ""
    cells: tuple[str, ...] = ()


def chosen(moved: Sequence[Outcome], *, window: Window, columns: Sequence[str]) -> list[Example]:
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


def of_reference(model: WatchedModel) -> list[Example]:
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


def columns(moved: Sequence[Outcome], *, features: pa.Table) -> list[str]:
    """Columns to show of example rows: those that moved, then the others."""
    first = [one.subject for one in moved if one.subject in features.column_names]
    return list(dict.fromkeys([*first, *features.column_names]))[:MAX_CELLS]


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


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    encoded = base64.b64encode(image.encode_png(np.ascontiguousarray(pixels))).decode("ascii")
    return f"data:image/png;base64,{encoded}"
