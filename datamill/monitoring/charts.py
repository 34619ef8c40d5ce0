"""Small charts as inline SVG, whose colours follow the page: reference in grey, the window in colour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

WIDTH, HEIGHT = 340, 132  # px of a chart
LEFT, RIGHT, TOP, BOTTOM = 8, 8, 8, 20  # px around it
NUM_BINS = 28
TRIM = 0.005  # share of values at either end that may fall outside of the axis
MAX_BARS = 8


@dataclass(frozen=True)
class Point:
    """A window in a trend: its number, its value, and the ends of the value's interval where it has one."""

    number: int
    value: float
    low: float | None = None
    high: float | None = None
    is_marked: bool = False


def histogram(reference: NDArray[np.float64], window: NDArray[np.float64]) -> Markup:
    """Two distributions of a number over one axis, each of height by share of its own samples.

    Args:
        reference: Values, shape ``(N,)``; missing and non-finite ones are left out.
        window: Values, shape ``(M,)``.
    """
    sides = [values[np.isfinite(values)] for values in (reference, window)]
    together = np.concatenate([np.quantile(side, [TRIM, 1 - TRIM]) for side in sides if len(side)] or [np.zeros(2)])
    low, high = float(together.min()), float(together.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, NUM_BINS + 1)
    shares = [np.histogram(np.clip(side, low, high), edges)[0] / max(1, len(side)) for side in sides]
    top = max(float(share.max()) for share in shares) or 1.0
    marks = [_area(shares[0], top=top, style="ref"), _area(shares[1], top=top, style="win")]
    for side, style in zip(sides, ("ref", "win"), strict=True):
        if len(side):
            x = LEFT + (float(np.clip(np.median(side), low, high)) - low) / (high - low) * (WIDTH - LEFT - RIGHT)
            marks.append(f'<line class="median {style}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    return _svg([*marks, _axis(low, high)], label="reference and window")


def bars(names: Sequence[str], *, reference: NDArray[np.float64], window: NDArray[np.float64]) -> Markup:
    """Shares of categories, the largest first: a grey bar for the reference above a coloured one for the window."""
    order = np.argsort(-np.maximum(reference, window), kind="stable")[:MAX_BARS]
    top = float(np.maximum(reference, window).max(initial=0.0)) or 1.0
    row, text = 26, 92  # px of a row, and of the names
    marks = []
    for place, number in enumerate(order.tolist()):
        y = 4 + place * row
        marks.append(f'<text class="name" x="{text - 8}" y="{y + 14}">{escape(_short(names[number]))}</text>')
        for offset, share, style in ((0, reference[number], "ref"), (10, window[number], "win")):
            width = max(1.0, float(share) / top * (WIDTH - text - 48))
            marks.append(f'<rect class="{style}" x="{text}" y="{y + offset}" width="{width:.1f}" height="9" rx="1.5"/>')
        told = f"{float(window[number]):.1%}"
        at = text + max(float(window[number]), float(reference[number])) / top * (WIDTH - text - 48)
        marks.append(f'<text class="value" x="{at + 6:.1f}" y="{y + 14}">{told}</text>')
    return _svg(marks, label="shares in reference and window", height=8 + row * max(1, len(order)))


def trend(
    points: Sequence[Point], *, reference: float | None = None, true: Mapping[int, float] | None = None
) -> Markup:
    """A value over the windows, with its interval as a band; marked windows as filled dots.

    Args:
        points: Windows, oldest first.
        reference: A level to compare with.
        true: Values by number of a window that hold where the points are estimates; drawn as squares.
    """
    width, height = 700, 150
    true = true or {}
    ends = [end for point in points for end in (point.value, point.low, point.high) if end is not None]
    ends += [*true.values(), *([] if reference is None else [reference])]
    low, high = min(ends), max(ends)
    margin = (high - low) * 0.12 or 0.05
    low, high = low - margin, high + margin
    step = (width - 76) / max(1, len(points) - 1)
    xs = [56 + step * place if len(points) > 1 else width / 2 for place in range(len(points))]

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (height - TOP - BOTTOM)

    marks = []
    for value in sorted({min(ends), max(ends)}):
        marks.append(f'<line class="base" x1="56" x2="{width - 20}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        marks.append(f'<text class="axis" x="48" y="{y(value) + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    if reference is not None:
        marks.append(f'<line class="level" x1="56" x2="{width - 20}" y1="{y(reference):.1f}" y2="{y(reference):.1f}"/>')
    banded = [(x, p.low, p.high) for x, p in zip(xs, points, strict=True) if p.low is not None and p.high is not None]
    if len(banded) > 1:
        upper = " ".join(f"{x:.1f},{y(top):.1f}" for x, _, top in banded)
        lower = " ".join(f"{x:.1f},{y(bottom):.1f}" for x, bottom, _ in reversed(banded))
        marks.append(f'<polygon class="band" points="{upper} {lower}"/>')
    elif banded:
        x, bottom, top = banded[0]
        marks.append(f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{y(bottom):.1f}" y2="{y(top):.1f}"/>')
    path = " ".join(f"{x:.1f},{y(point.value):.1f}" for x, point in zip(xs, points, strict=True))
    marks.append(f'<polyline class="line" points="{path}"/>')
    for x, point in zip(xs, points, strict=True):
        style = "dot marked" if point.is_marked else "dot"
        marks.append(f'<circle class="{style}" cx="{x:.1f}" cy="{y(point.value):.1f}" r="3.6"/>')
        if point.number in true:
            at = f'x="{x - 3.2:.1f}" y="{y(true[point.number]) - 3.2:.1f}"'
            marks.append(f'<rect class="true" {at} width="6.4" height="6.4"/>')
    for place in sorted({0, len(points) - 1}):
        anchor = "start" if place == 0 and len(points) > 1 else "end" if place else "middle"
        at = f'x="{xs[place]:.1f}" y="{height - 5}" text-anchor="{anchor}"'
        marks.append(f'<text class="axis" {at}>{points[place].number}</text>')
    return _svg(marks, label="value by window", width=width, height=height)


def interval(
    *, value: float, low: float, high: float, reference: float, is_bad: bool, most: float | None = 1.0
) -> Markup:
    """A value of 0 or more, ``most`` at the most, with its interval on a line, beside the reference's."""
    width, height = 700, 62
    ends = [value, low, high, reference]
    margin = max(0.02 * (most or max(ends) or 1.0), (max(ends) - min(ends)) * 0.3)
    left, right = max(0.0, min(ends) - margin), max(ends) + margin
    right = right if most is None else min(most, right)

    def x(one: float) -> float:
        return 40 + (one - left) / (right - left) * (width - 80)

    style, told = "bad" if is_bad else "good", _number(reference)
    anchor = "end" if x(reference) > width * 0.8 else "start" if x(reference) < width * 0.2 else "middle"
    marks = [
        f'<line class="rail" x1="{x(left):.1f}" x2="{x(right):.1f}" y1="31" y2="31"/>',
        f'<line class="span {style}" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="31" y2="31"/>',
        f'<line class="level" x1="{x(reference):.1f}" x2="{x(reference):.1f}" y1="16" y2="46"/>',
        f'<circle class="point {style}" cx="{x(value):.1f}" cy="31" r="7"/>',
        f'<text class="axis" x="{x(left):.1f}" y="58" text-anchor="middle">{_number(left)}</text>',
        f'<text class="axis" x="{x(right):.1f}" y="58" text-anchor="middle">{_number(right)}</text>',
        f'<text class="axis" x="{x(reference):.1f}" y="11" text-anchor="{anchor}">reference {told}</text>',
    ]
    return _svg(marks, label=f"{value:.3f}, from {low:.3f} to {high:.3f}", width=width, height=height)


def _area(shares: NDArray[np.float64], *, top: float, style: str) -> str:
    """Steps of a histogram as a closed shape."""
    step = (WIDTH - LEFT - RIGHT) / len(shares)
    base = HEIGHT - BOTTOM
    points = [f"{LEFT},{base}"]
    for place, share in enumerate(shares.tolist()):
        y = base - share / top * (base - TOP)
        points += [f"{LEFT + place * step:.1f},{y:.1f}", f"{LEFT + (place + 1) * step:.1f},{y:.1f}"]
    return f'<polygon class="area {style}" points="{" ".join([*points, f"{WIDTH - RIGHT},{base}"])}"/>'


def _axis(low: float, high: float) -> str:
    base = HEIGHT - BOTTOM
    return (
        f'<line class="base" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>'
        f'<text class="axis" x="{LEFT}" y="{HEIGHT - 5}">{_number(low)}</text>'
        f'<text class="axis" x="{WIDTH / 2}" y="{HEIGHT - 5}" text-anchor="middle">{_number((low + high) / 2)}</text>'
        f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">{_number(high)}</text>'
    )


def _svg(marks: Sequence[str], *, label: str, width: int = WIDTH, height: int = HEIGHT) -> Markup:
    content = "".join(marks)
    return Markup(  # noqa: S704 - names from the data were escaped, the rest is numbers of ours
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{content}</svg>'
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _short(name: str) -> str:
    return name if len(name) <= 13 else name[:12] + "…"
