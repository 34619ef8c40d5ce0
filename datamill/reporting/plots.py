"""The plots of the cards, in one style; each function returns a figure, ``to_png`` and ``to_svg`` make files of it."""

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray

from datamill.evaluation.calibration import Bin
from datamill.evaluation.slices import Slice
from datamill.reporting.funnel import Step
from datamill.training.history import EpochResult, best_epoch

P = ParamSpec("P")

INK = "#1f2328"  # becomes the page's own text colour in SVG, so that plots follow a dark page
BLUE, ORANGE, GREY = "#3b76d6", "#e0742c", "#8a94a0"
WIDTH = 8.2  # inch; as wide as the page
PNG_DPI = 160
MAX_NAMED = 30  # classes whose names and counts still fit on a plot
STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "font.size": 9,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a class name is a dollar sign
    "xtick.color": INK,
    "ytick.color": INK,
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """``draw`` with the style of the cards."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context({**mpl.rcParamsDefault, **STYLE, "backend": mpl.rcParams["backend"]}):
            return draw(*args, **kwargs)

    return drawn


@styled
def confusion_figure(counts: NDArray[np.int64], *, classes: Sequence[str]) -> Figure:
    """Share of each true class (row) that was given each class (column), with counts where they fit."""
    num_classes = len(classes)
    side = min(WIDTH - 0.8, 2.2 + 0.42 * num_classes)
    figure, axes = _figure(side + 0.8, side)
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    lines = 0.5 if num_classes <= MAX_NAMED else 0.0
    mesh = axes.pcolormesh(share, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=lines)
    axes.set(xlabel="predicted", ylabel="true", aspect="equal")
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if num_classes <= MAX_NAMED:
        ticks = np.arange(num_classes) + 0.5
        axes.set_xticks(ticks, [_short(name) for name in classes], rotation=0 if _are_brief(classes) else 60)
        axes.set_yticks(ticks, [_short(name) for name in classes])
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if share[row, column] > 0.5 else "#10243e"
            axes.text(column + 0.5, row + 0.5, str(counts[row, column]), ha="center", va="center", color=colour, size=8)
    bar = figure.colorbar(mesh, ax=axes, shrink=0.6, format=PercentFormatter(1))
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_label("share of the true class")
    return figure


@styled
def reliability_figure(bins: Sequence[Bin]) -> Figure:
    """Accuracy against confidence by bin; the diagonal is perfect calibration, the bars below show how many."""
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    confidence = [entry.confidence for entry in bins]
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect")
    upper.plot(confidence, [entry.accuracy for entry in bins], color=BLUE, marker="o", markersize=5, label="network")
    upper.set(ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.04))
    upper.legend(loc="upper left")
    lower.bar(confidence, [entry.count for entry in bins], width=0.03, color=GREY)
    lower.set(xlabel="confidence", ylabel="samples")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure


@styled
def curves_figure(history: Sequence[EpochResult]) -> Figure:
    """Loss and accuracy by epoch, training and validation, with the epoch that was kept."""
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    epochs, kept = [result.epoch for result in history], best_epoch(history)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split, colour in (("train", GREY), ("validation", BLUE)):
            values = [getattr(result, f"{split}_{name}") for result in history]
            if any(value is not None for value in values):
                points = [np.nan if value is None else value for value in values]
                axes.plot(epochs, points, color=colour, label=split, marker="o" if len(epochs) < 3 else None)
        axes.axvline(kept, color=ORANGE, linewidth=1, linestyle=":", label=f"kept: epoch {kept}")
        axes.set(xlabel="epoch", title=name, xlim=(0.5, max(epochs) + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _grid(axes, axis="y")
    axes.legend(loc="best")
    return figure


@styled
def slices_figure(slices: Sequence[Slice], *, overall: float) -> Figure:
    """Accuracy of each slice with its interval, beside the accuracy over all."""
    figure, axes = _figure(WIDTH, 0.9 + 0.27 * len(slices))
    rows = np.arange(len(slices))
    accuracy = np.array([entry.accuracy for entry in slices])
    below = np.maximum(0, accuracy - [entry.low for entry in slices])
    above = np.maximum(0, [entry.high for entry in slices] - accuracy)
    axes.axvline(overall, color=GREY, linestyle="--", linewidth=1)
    axes.errorbar(accuracy, rows, xerr=np.stack([below, above]), fmt="o", color=BLUE, markersize=5, elinewidth=1.4)
    names = [f"{_short(entry.property, 18)}: {_short(entry.value, 22)}  ({entry.count:,})" for entry in slices]
    axes.set_yticks(rows, names)
    axes.set(xlabel="accuracy", ylim=(len(slices) - 0.5, -0.5))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    _grid(axes, axis="x")
    return figure


@styled
def balance_figure(
    source: Mapping[str, NDArray[np.int64]], *, made: NDArray[np.int64], classes: Sequence[str]
) -> Figure:
    """Samples of each class in each split.

    Args:
        source: By split, samples of each class that came from the source.
        made: Generated samples of each class; all of them are in train.
        classes: Class names.
    """
    figure = Figure(figsize=(WIDTH, 1.0 + 0.2 * min(MAX_NAMED, max(4, len(classes)))), layout="constrained")
    rows = np.arange(len(classes))
    for axes, (split, counts) in zip(figure.subplots(1, len(source), sharey=True), source.items(), strict=True):
        axes.barh(rows, counts, color=BLUE, height=0.72, label="source")
        total = int(counts.sum())
        if split == "train" and made.sum():
            axes.barh(rows, made, left=counts, color=ORANGE, height=0.72, label="generated")
            total += int(made.sum())
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, handlelength=1.2)
        axes.set(title=f"{split}: {total:,}", xlim=(0, None if total else 1))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.tick_params(axis="y", length=0)
        _grid(axes, axis="x")
    figure.axes[0].set_ylim(len(classes) - 0.4, -0.6)
    names = [_short(name) for name in classes] if len(classes) <= MAX_NAMED else []
    figure.axes[0].set_yticks(rows[: len(names)], names)
    return figure


@styled
def funnel_figure(steps: Sequence[Step]) -> Figure:
    """Samples that went on from each stage, and those that were lost there."""
    figure, axes = _figure(WIDTH, 0.8 + 0.34 * len(steps))
    rows = np.arange(len(steps))
    survived = np.array([step.survived for step in steps])
    axes.barh(rows, survived, color=BLUE, height=0.66, label="went on")
    axes.barh(rows, [step.lost for step in steps], left=survived, color=ORANGE, height=0.66, label="lost here")
    for row, step in enumerate(steps):
        changes = (f"{step.added:,} new" if step.added else "", f"{step.lost:,} lost" if step.lost else "")
        note = ", ".join([f"{step.survived:,}", *filter(None, changes)])
        axes.text(step.survived + step.lost, row, f" {note}", va="center", size=8.5)
    axes.set_yticks(rows, [step.name for step in steps])
    axes.set(ylim=(len(steps) - 0.5, -0.5), xlabel="samples")
    axes.margins(x=0.16)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3, handlelength=1.2)
    return figure


def to_png(figure: Figure) -> bytes:
    """The figure on white, for Markdown."""
    buffer = io.BytesIO()
    with _quiet(), mpl.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=PNG_DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def to_svg(figure: Figure, *, name: str) -> str:
    """The figure as an SVG element without background, in the text colour of the page around it.

    Args:
        figure: What to draw.
        name: Put before every identifier, so that several figures can share a page.
    """
    buffer = io.StringIO()
    with _quiet(), mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    return re.sub(r'(url\(|href=")#', rf"\g<1>#{name}-", svg)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _grid(axes: Axes, *, axis: str) -> None:
    axes.grid(axis=axis, color=GREY, alpha=0.25, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def _quiet() -> warnings.catch_warnings:  # type: ignore[type-arg]
    """No warnings: a class name may hold signs that the font lacks; the page's own font draws them."""
    return warnings.catch_warnings(action="ignore")


def _short(name: str, limit: int = 16) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _are_brief(names: Sequence[str]) -> bool:
    return max(len(name) for name in names) <= 3
