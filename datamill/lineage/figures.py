"""The plots of the page that explains a difference, in the style of the cards."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from datamill.lineage.explanation import Explanation
from datamill.reporting.plots import BLUE, GREY, ORANGE, WIDTH, styled

PARTS = {
    "left": "samples no longer tested",
    "joined": "samples newly tested",
    "changed": "test samples whose content changed",
    "truth": "test labels that changed",
    "model": "the model, on the same samples and labels",
    "other": "no common test samples: all of it",
}
MAX_BARS = 8
MAX_CHARS = 58


@styled
def bridge_figure(found: Explanation) -> Figure:
    """From the number before to the number after, one step per exact part."""
    steps = [(PARTS[name], value) for name, value in found.decomposition.parts.items() if value]
    figure, axes = _figure(1.5 + 0.36 * len(steps))
    starts = found.value_a + np.cumsum([0.0, *(value for _, value in steps)])
    rows = np.arange(len(steps) + 2)
    for row, (start, (_, value)) in enumerate(zip(starts, steps, strict=False), start=1):
        axes.barh(row, value, left=start, height=0.6, color=BLUE if value > 0 else ORANGE)
        end = max(start, start + value)
        axes.annotate(f"{value:+.4f}", (end, row), xytext=(5, 0), textcoords="offset points", va="center", size=8.5)
    for row, value in ((0, found.value_a), (len(steps) + 1, found.value_b)):
        axes.plot([value], [row], marker="D", color=GREY, markersize=7)
        axes.annotate(f"{value:.4f}", (value, row), xytext=(9, 0), textcoords="offset points", va="center", size=9)
    axes.set_yticks(rows, ["before", *(name for name, _ in steps), "after"])
    axes.set(ylim=(len(steps) + 1.6, -0.6), xlabel=found.metric)
    axes.use_sticky_edges = False  # else the first marker is cut in half
    axes.margins(x=0.14)
    return figure


@styled
def causes_figure(found: Explanation) -> Figure:
    """What each cause accounts for: the exact part and the judged one."""
    shown = found.ranked[:MAX_BARS]
    figure, axes = _figure(1.1 + 0.42 * len(shown))
    rows = np.arange(len(shown))
    axes.barh(rows - 0.17, [one.exact for one in shown], height=0.32, color=BLUE, label="exact, by its test samples")
    axes.barh(rows + 0.17, [one.judged for one in shown], height=0.32, color=GREY, label="judged, of the model's part")
    axes.axvline(0, color=GREY, linewidth=0.8)
    names = [f"{number}. {_short(one.cause.title)}" for number, one in enumerate(shown, start=1)]
    axes.set_yticks(rows, names)
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel=f"accounts for, of {found.difference:+.4f} {found.metric}")
    axes.margins(x=0.12)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2, handlelength=1.2)
    return figure


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _short(name: str) -> str:
    return name if len(name) <= MAX_CHARS else name[: MAX_CHARS - 1] + "…"
