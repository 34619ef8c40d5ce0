"""What a pass of the watch found, on the console."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datamill.drift.verdict import Outcome
from datamill.monitoring.verdicts import REPORT, Judged, window_folder
from datamill.monitoring.watching import Pass

MOST_ROWS = 15
STYLES = {"performance at risk": "bold red", "drift": "bold yellow", "no drift": "bold green"}


def show_pass(found: Pass, *, root: Path, console: Console | None = None) -> None:
    """Print what was judged, what moved, the verdict and where the report is."""
    console = console or Console()
    if found.judged is None:
        waiting = f"; {found.num_waiting} files wait, too young or damaged" if found.num_waiting else ""
        console.print(f"nothing new{waiting}")
        for note in found.notes:
            console.print(f"  note: {note}", style="dim", markup=False)
    else:
        _show(found.judged, root=root, console=console)
    if found.labels:
        console.print(f"labels: {found.labels}", markup=False, highlight=False)
        for note in found.labels.notes:
            console.print(f"  note: {note}", style="dim", markup=False, highlight=False)
    for judged in found.labelled:
        _show(judged, root=root, console=console)


def word_of(judged: Judged) -> str:
    """The verdict in two words."""
    if judged.verdict.is_at_risk:
        return "performance at risk"
    return "drift" if judged.verdict.is_drift else "no drift"


def _show(judged: Judged, *, root: Path, console: Console) -> None:
    verdict, word = judged.verdict, word_of(judged)
    waiting = f", {judged.num_waiting} files wait" if judged.num_waiting else ""
    what, size = f"window {judged.number}", f"{verdict.num_samples} samples, {judged.num_rejects} rejects{waiting}"
    if judged.about == "labels":
        what, size = f"labels of window {judged.number}", f"{verdict.num_samples} labels"
    console.print(f"{what}: [{STYLES[word]}]{word}[/] · {size}, model {judged.model}")
    one = verdict.performance
    if one is not None:
        told = "measured" if one.is_measured else "estimated"
        console.print(
            f"{one.metric} {told} {one.estimated:.3f} ({one.low:.3f} to {one.high:.3f}); reference {one.reference:.3f}",
            highlight=False,
        )
    moved = [outcome for outcome in verdict.outcomes if outcome.is_drift]
    if moved:
        console.print(_table(moved))
    for note in verdict.notes:
        console.print(f"  note: {note}", style="dim", markup=False, highlight=False)
    report = window_folder(root.resolve(), judged.window) / REPORT
    console.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)


def _table(moved: list[Outcome]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("moved", "of", "by", "effect", "p"):
        table.add_column(column, justify="right" if column in {"effect", "p"} else "left", overflow="fold")
    for one in moved[:MOST_ROWS]:
        p_value = "" if one.p_value is None else f"{one.p_value:.2g}"
        table.add_row(
            one.kind, escape(one.subject or "all"), one.detector, f"{one.effect_name} {one.effect:.3g}", p_value
        )
    if len(moved) > MOST_ROWS:
        table.add_row(f"and {len(moved) - MOST_ROWS} more", "", "", "", "")
    return table
