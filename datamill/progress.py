"""How far long work has come: a bar in a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 2.0  # shorter work shows nothing
LINE_EVERY_S = 10.0


def show_progress(items: Iterable[T], *, total: int | None, label: str) -> Iterator[T]:
    """``items`` unchanged, with their progress on standard error once they take longer than two seconds."""
    return _bar(items, total=total, label=label) if sys.stderr.isatty() else _lines(items, total=total, label=label)


def _bar(items: Iterable[T], *, total: int | None, label: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total)
        for item in items:
            yield item
            progress.advance(task)


def _lines(items: Iterable[T], *, total: int | None, label: str) -> Iterator[T]:
    start = time.monotonic()
    due = start + PATIENCE_S
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now >= due and done != total:
            of = f" of {total}" if total is not None else ""
            print(f"  {label}: {done}{of}, {now - start:.0f} s", file=sys.stderr, flush=True)
            due = now + LINE_EVERY_S
