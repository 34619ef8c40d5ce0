"""Image sheets: many small pictures on one page, each with a title; equal pictures give equal bytes."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from datamill import files

DPI = 100
POINT = DPI / 72  # px
MIN_CELL = 96  # px; smaller pictures are enlarged by a whole factor up to about this side
MAX_CELL = 192  # px; larger pictures are shrunk to this side
PAGE_WIDTH = 1060  # px; wider pages are shrunk on the cards until their titles cannot be read
MARGIN = 16  # px around the page
GAP = 10  # px between pictures
TITLE_LINE = 14  # px
HEADING_LINE = 22  # px
FRAME = 2  # px
MIN_WIDTH = 420  # px; a heading needs room even above a single picture
INK, FAINT, FRAME_COLOUR = "#1f2933", "#52606d", "#cbd2d9"
BEFORE, AFTER = "#1f2933", "#d9480f"
MAX_STRIPS = 24  # features that fit on one page


def write_sheet(
    path: Path,
    pictures: Sequence[NDArray[np.uint8]],
    titles: Sequence[str],
    columns: int,
    heading: str,
    *,
    colours: Sequence[str] | None = None,
) -> None:
    """Write pictures row by row as one PNG; with no picture, the heading alone.

    Tiny pictures are enlarged by a whole factor without smoothing, so that every pixel stays a sharp square; large
    ones are shrunk by area averaging, to what lets the columns fit on a page.

    Args:
        path: The PNG file.
        pictures: RGB pictures, shape (H, W, 3) each; sizes may differ.
        titles: Text below each picture, lines separated by a newline; as many as ``pictures``. A line that is wider
            than its picture's cell is cut.
        columns: Pictures in a row (count, at least 1).
        heading: Text on top of the page, lines separated by a newline; the first one stands out.
        colours: Frame and title colour of each picture, ``#rrggbb``; grey when left out.
    """
    assert len(pictures) == len(titles), f"{len(pictures)} pictures have {len(titles)} titles"
    assert columns >= 1, f"columns must be at least 1, was {columns}"
    cell = _cell_side(pictures, most=max(MIN_CELL, min(MAX_CELL, (PAGE_WIDTH - 2 * MARGIN) // columns - GAP)))
    fitted = [_fit(picture, side=cell) for picture in pictures]
    frames = list(colours) if colours is not None else [FRAME_COLOUR] * len(pictures)
    inks = list(colours) if colours is not None else [INK] * len(pictures)
    used = max(1, min(columns, len(pictures)))
    tallest = max((picture.shape[0] for picture in fitted), default=cell)
    row_height = tallest + TITLE_LINE * max((title.count("\n") + 1 for title in titles), default=1) + GAP
    top = MARGIN + HEADING_LINE * (heading.count("\n") + 1)
    page = _page(
        height=top + row_height * -(-len(pictures) // columns) + MARGIN // 2,
        width=max(MIN_WIDTH, _heading_width(heading), 2 * MARGIN + used * (cell + GAP) - GAP),
    )
    figure = _figure(height=page.shape[0], width=page.shape[1])
    _write_heading(figure, heading=heading)
    for index, picture in enumerate(fitted):
        row, column = divmod(index, columns)
        y, x = top + row * row_height, MARGIN + column * (cell + GAP)
        _paste(page, picture, y=y, x=x, cell=(tallest, cell), colour=frames[index])
        _text(
            figure,
            _cut(titles[index], width=cell + GAP),
            y=y + tallest + 3,
            x=x + cell / 2,
            size=7.5,
            colour=inks[index],
            align="center",
        )
    figure.figimage(page, resize=False, zorder=-1)
    _save(figure, path)


def write_strips(
    path: Path,
    names: Sequence[str],
    before: NDArray[np.float64],
    after: NDArray[np.float64] | None,
    heading: str,
) -> None:
    """Write one line per feature with the values of a few rows before and after a change, as one PNG.

    Args:
        path: The PNG file.
        names: Feature names, ``F`` of them; the first ``MAX_STRIPS`` are drawn.
        before: Values in standard deviations from the feature's mean, shape (N, F); NaN is left out.
        after: The changed values, shape (N, F), or None where nothing changes.
        heading: Text on top, lines separated by a newline; the first one stands out.
    """
    drawn = list(names)[:MAX_STRIPS]
    top = MARGIN + HEADING_LINE * (heading.count("\n") + 1)
    height = top + 26 * max(1, len(drawn)) + 60
    width = max(820, _heading_width(heading))
    figure = _figure(height=height, width=width)
    _write_heading(figure, heading=heading)
    axes = figure.add_axes((0.28, 46 / height, 0.69, (height - top - 54) / height))
    lines = np.arange(len(drawn), dtype=np.float64)
    for line in lines:
        axes.axhline(line, color=FRAME_COLOUR, linewidth=0.8, zorder=0)
    axes.scatter(before[:, : len(drawn)].T, np.repeat(lines, len(before)) - 0.13, s=14, color=BEFORE, label="original")
    if after is not None:
        axes.scatter(
            after[:, : len(drawn)].T, np.repeat(lines, len(after)) + 0.17, s=11, color=AFTER, label="augmented"
        )
    axes.set_yticks(lines, [name[:32] for name in drawn], fontsize=8)
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    hidden = f"; first {len(drawn)} of {len(names)} features" if len(drawn) < len(names) else ""
    axes.set_xlabel(f"standard deviations from the feature's mean over train{hidden}", fontsize=8, color=FAINT)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="upper right", ncols=2, fontsize=8, frameon=False, bbox_to_anchor=(0.985, 1 - 6 / height))
    _save(figure, path)


def columns_for(pictures: Sequence[NDArray[np.uint8]], *, most: int) -> int:
    """How many of these pictures stand side by side on a page without being shrunk below ``MAX_CELL``."""
    cell = _cell_side(pictures, most=MAX_CELL)
    return max(1, min(most, (PAGE_WIDTH - 2 * MARGIN) // (cell + GAP)))


def _cell_side(pictures: Sequence[NDArray[np.uint8]], *, most: int) -> int:
    largest = max((max(picture.shape[:2]) for picture in pictures), default=MIN_CELL)
    return max(largest, largest * (MIN_CELL // largest)) if largest <= MIN_CELL else min(largest, most)


def _fit(picture: NDArray[np.uint8], *, side: int) -> NDArray[np.uint8]:
    """The picture as large as ``side`` allows, shape (H, W, 3)."""
    largest = max(picture.shape[:2])
    if largest <= side:
        factor = side // largest
        return picture.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = (max(1, round(length * side / largest)) for length in picture.shape[:2])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _page(*, height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 255, np.uint8)


def _paste(
    page: NDArray[np.uint8], picture: NDArray[np.uint8], *, y: int, x: int, cell: tuple[int, int], colour: str
) -> None:
    """Put a picture in the middle of its cell and draw a frame around it."""
    height, width = picture.shape[:2]
    y, x = y + (cell[0] - height) // 2, x + (cell[1] - width) // 2
    rgb = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    page[y - FRAME : y + height + FRAME, x - FRAME : x + width + FRAME] = rgb
    page[y : y + height, x : x + width] = picture


def _cut(title: str, *, width: int) -> str:
    """The title with every line cut to what fits in ``width`` px."""
    fits = int(width / (7.5 * POINT * 0.58))
    return "\n".join(line if len(line) <= fits else line[: fits - 1] + "…" for line in title.split("\n"))


def _figure(*, height: int, width: int) -> Figure:
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _write_heading(figure: Figure, *, heading: str) -> None:
    for line, text in enumerate(heading.split("\n")):
        size, colour = (11.0, INK) if line == 0 else (8.5, FAINT)
        _text(figure, text, y=MARGIN - 4 + line * HEADING_LINE, x=MARGIN, size=size, colour=colour, align="left")


def _heading_width(heading: str) -> int:
    """Room the longest line needs (px); glyphs of the default font are about 0.62 of their size wide."""
    sizes = [11.0 if line == 0 else 8.5 for line in range(heading.count("\n") + 1)]
    widths = [len(text) * size * POINT * 0.62 for text, size in zip(heading.split("\n"), sizes, strict=True)]
    return 2 * MARGIN + int(max(widths))


def _text(figure: Figure, text: str, *, y: float, x: float, size: float, colour: str, align: str) -> None:
    """Text with its upper edge at ``y`` px from the top; a dollar sign is a dollar sign, not mathematics."""
    height, width = figure.get_figheight() * DPI, figure.get_figwidth() * DPI
    drawn = figure.text(
        x / width, 1 - y / height, text, fontsize=size, color=colour, ha=align, va="top", linespacing=1.15
    )
    drawn.set_parse_math(False)


def _save(figure: Figure, path: Path) -> None:
    """Write the PNG without the library's version in it, so that equal pictures give equal bytes."""
    with files.atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=DPI, metadata={"Software": None})
