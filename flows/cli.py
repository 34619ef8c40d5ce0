"""The ``datamill`` command. Imports little at the top, so that help answers at once."""

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from datamill.promotion.reasons import Decision

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # joins the lines of a paragraph
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The data work of deep learning as one pipeline: every sample accounted for, from source to exported model.",
)

Root = Annotated[Path, typer.Option("--root", help="The workspace.", show_default="this folder")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def clear_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """``command`` with datamill's errors as one message on standard error; ``--debug`` lets them through."""

    @wraps(command)
    def guarded(*args: Any, **options: Any) -> Any:
        from datamill.errors import DatamillError

        try:
            return command(*args, **options)
        except DatamillError as error:
            if options.get("debug"):
                raise
            typer.secho(f"error: {error}", fg="red", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            typer.secho("interrupted; the same command goes on from here", err=True)
            raise typer.Exit(130) from None

    return guarded


@app.command()
@clear_errors
def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make a workspace; what is in it stays.")],
    example: Annotated[
        str | None, typer.Option(help="Begin with this example's params.yaml.", show_default="a neutral one")
    ] = None,
    debug: Debug = False,
) -> None:
    """Make a workspace of your own: Git and DVC repository, params.yaml, dvc.yaml, README."""
    from flows.workspace import create_workspace

    written = create_workspace(folder, example=example)
    typer.echo(f"{folder} is a workspace" + (f"; wrote {', '.join(written)}" if written else " already; nothing to do"))
    typer.echo(f"next: edit ingest.source in {folder / 'params.yaml'}, then")
    typer.echo(f"  cd {shlex.quote(str(folder))} && datamill run")


@app.command()
@clear_errors
def run(
    target: Annotated[str | None, typer.Option(help="Run this stage and what it needs.", show_default="all")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change params.yaml first; repeatable."),
    ] = None,
    dry: Annotated[
        bool,
        typer.Option(
            "--dry", help="Only say what would be done, why, and roughly how long; changes nothing, --set included."
        ),
    ] = False,
    root: Root = Path(),
    debug: Debug = False,
) -> None:
    """Bring the workspace up to date; only what changed is done again."""
    _prepare_prefect(debug=debug)
    from datamill import config, dvcfile
    from tasks import PIPELINE

    with _put_back(root / config.PARAMS_FILE, root / dvcfile.DVC_FILE) if dry else nullcontext():
        for change in config.set_params(assignments or [], stages=PIPELINE, root=root) if assignments else []:
            typer.echo(f"params.yaml: {change}{' (only supposed)' * dry}")
        config.load_params(PIPELINE, root=root)  # a typo is told before Prefect takes seconds to start
        if dry:
            _tell_forecast(root, target=target)
            return
    from flows.interrupting import exit_at_interrupt
    from flows.training import train_model

    exit_at_interrupt()
    statuses = train_model(root=str(root.resolve()), target=target)
    executed = sum(status == "executed" for status in statuses.values())
    typer.echo(f"up to date: {executed} of {len(statuses)} stages ran, {len(statuses) - executed} were cached")
    typer.echo("see `datamill report` for the result, `datamill ui` for runs and curves")


@app.command()
@clear_errors
def watch(
    every: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Look again and again.", show_default="once", min=1)
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once; the default.")] = False,
    source: Annotated[
        str | None, typer.Option(metavar="PATH", help="Read this.", show_default="source.data.path of watch.yaml")
    ] = None,
    root: Root = Path(),
    debug: Debug = False,
) -> None:
    """Judge new data against what the model was measured on: what moved, and whether it matters."""
    _prepare_prefect(debug=debug)
    import time

    from datamill.errors import ParamsError
    from datamill.monitoring.config import load_watch, require_source
    from datamill.monitoring.params import SourceParams

    if once and every is not None:
        raise ParamsError("--once and --every contradict each other; give one of them")
    params = load_watch(root.resolve()).of(SourceParams)  # a typo is told before Prefect takes seconds to start
    require_source(params, root=root.resolve(), source=source)
    from flows.interrupting import exit_at_interrupt
    from flows.monitoring import watch_drift
    from flows.showing import show_pass

    exit_at_interrupt()
    while True:
        show_pass(watch_drift(root=str(root.resolve()), source=source), root=root)
        if every is None:
            return
        time.sleep(every)


@app.command()
@clear_errors
def trace(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="A sample, a source, a row of a shard, a model, an alert: see above.")
    ],
    root: Root = Path(),
    debug: Debug = False,
) -> None:
    """Tell the story of one thing: where it came from, what was decided about it and why, what came of it.

    A sample is named by the beginning of its id or the end of its source key, a row of a shard as `train:12`. A prefix
    says what else is meant: `source:`, `prediction:`, `model:` (a run or `champion`), `alert:`, `window:`.
    """
    from rich.console import Console
    from rich.table import Table

    from datamill import tracing
    from tasks import PIPELINE

    trail = tracing.trace(what, stages=PIPELINE, root=root)
    table = Table(title=trail.title, title_justify="left", box=None, pad_edge=False)
    for column in ("stage", "fate", "because", "and"):
        table.add_column(column, overflow="fold")
    for chapter in trail.chapters:
        facts = dict(chapter.facts)
        because = [str(facts.pop(key)) for key in ("reason", "detail") if key in facts]
        fate = facts.pop("fate", "")
        told = "\n".join(f"{key} {_shown(value)}" for key, value in facts.items())
        table.add_row(chapter.stage, str(fate), ": ".join(because), told)
    Console(markup=False).print(table)  # what a file's name holds is no style


@app.command()
@clear_errors
def why(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="The run before: see above.")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The run after.")] = "workspace",
    metric: Annotated[
        str, typer.Option(help="A headline metric of test; validation.accuracy is the other split's.")
    ] = "accuracy",
    html: Annotated[Path | None, typer.Option(help="Write the page with its plots to this file, too.")] = None,
    root: Root = Path(),
    debug: Debug = False,
) -> None:
    """Explain why a metric differs between two runs: what changed, what followed, what accounts for how much.

    A run is a Git revision, the key of a recorded session or its beginning, an MLflow run's id, `workspace` (as it is
    now), `champion`, or the folder of another workspace.
    """
    from rich.console import Console
    from rich.markdown import Markdown

    from datamill.lineage import telling
    from datamill.lineage.explaining import explain
    from datamill.lineage.runs import find_run
    from tasks import PIPELINE

    before, after = (find_run(text, stages=PIPELINE, root=root) for text in (run_a, run_b))
    found = explain(before, after, metric=metric, stages=PIPELINE)
    Console().print(Markdown(telling.to_markdown(found)))
    if html is not None:
        telling.write_html(html, found)
        typer.echo(f"HTML: {html.resolve()}")


@app.command()
@clear_errors
def report(
    card: Annotated[str, typer.Option(help="Which card: model or data.")] = "model",
    browser: Annotated[bool, typer.Option("--open", help="Open the HTML card in a browser.")] = False,
    root: Root = Path(),
    debug: Debug = False,
) -> None:
    """Print a card of the last run, or open it."""
    from rich.console import Console
    from rich.markdown import Markdown

    from datamill import catalog
    from datamill.errors import ParamsError, StageError

    if card not in {"model", "data"}:
        raise ParamsError(f"--card is {card!r}; use 'model' or 'data'")
    folder = root / catalog.EXPORT_CARDS.path
    page = folder / f"{card}_card.html"
    if not page.exists():
        raise StageError(f"{page} is not there; `datamill run` writes it at its end")
    if browser:
        typer.launch(page.resolve().as_uri())
    else:
        text = (folder / f"{card}_card.md").read_text(encoding="utf-8")
        Console().print(Markdown(re.sub(r"!\[(.*)\]\(.*\)", r"*Picture on the HTML page: \1.*", text)))
    typer.echo(f"HTML: {page.resolve()}")


@app.command()
@clear_errors
def digest(
    since: Annotated[
        str | None,
        typer.Option(
            help="A time (2026-03-01, 2026-03-01T08:00) or how long ago (36h, 7d).", show_default="latest digest"
        ),
    ] = None,
    root: Root = Path(),
    debug: Debug = False,
) -> None:
    """Tell what monitoring noticed: windows, notices, counted repeats, open alerts, recoveries."""
    from datetime import UTC, datetime

    from datamill.alerts.digest import since_time, summarise
    from datamill.alerts.params import AlertParams
    from datamill.alerts.store import Store, severities_of
    from datamill.watchfile import load_section

    params = load_section(root, "alerts", AlertParams)
    start = since_time(since, now=datetime.now(UTC)) if since else None
    store = Store(root)
    waiting = store.waiting(severities_of(params))
    typer.echo(summarise(store.windows_since(start), state=store.open_episodes(), waiting=waiting))


@app.command()
@clear_errors
def ui(
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow UI.")] = 5000,
    prefect_port: Annotated[int, typer.Option(help="Port of the Prefect server.")] = 4200,
    root: Root = Path(),
    debug: Debug = False,
) -> None:
    """Serve the MLflow UI and a Prefect server on 127.0.0.1 until Ctrl-C."""
    from flows.servers import serve

    serve(root=root, mlflow_port=mlflow_port, prefect_port=prefect_port)


@app.command()
@clear_errors
def promote(
    forced: Annotated[bool, typer.Option("--force", help="Promote whatever the evidence says.")] = False,
    because: Annotated[str, typer.Option(help="Your reason; kept in the history.")] = "",
    dry: Annotated[bool, typer.Option("--dry", help="Only judge; record and change nothing.")] = False,
    root: Root = Path(),
    debug: Debug = False,
) -> None:
    """Judge the trained model against the champion, and let it take its place if it is better."""
    from datetime import UTC, datetime

    from datamill.promotion import promoting
    from flows.promoting import announce, author, require_policy

    root = root.resolve()
    outcome = promoting.promote(
        root,
        policy=require_policy(root),
        author=author(root),
        now=datetime.now(UTC),
        is_forced=forced,
        because=because,
        is_dry=dry,
    )
    _tell_reasons(outcome.decision)
    if not dry:
        announce(root)
    before = f"champion {outcome.champion}" if outcome.champion else "no champion yet"
    if dry:
        would = "would" if outcome.decision.promotes else "would not"
        typer.echo(f"{before}; challenger {outcome.challenger} {would} be promoted; nothing was done")
    elif outcome.decision.promotes:
        typer.echo(f"{outcome.challenger} is champion ({before} until now)")
    else:
        typer.echo(f"{outcome.challenger} was refused; {before}")
        raise typer.Exit(1)


@app.command()
@clear_errors
def rollback(
    because: Annotated[str, typer.Option(help="Your reason; kept in the history.")],
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="A champion that is kept.", show_default="the one before")
    ] = None,
    root: Root = Path(),
    debug: Debug = False,
) -> None:
    """Make an earlier champion the champion again, byte for byte."""
    from datetime import UTC, datetime

    from datamill.promotion import promoting
    from flows.promoting import announce, author

    root = root.resolve()
    outcome = promoting.rollback(root, to=to, because=because, author=author(root), now=datetime.now(UTC))
    announce(root)
    typer.echo(f"{outcome.challenger} is champion again (instead of {outcome.champion})")


@contextmanager
def _put_back(*paths: Path) -> Iterator[None]:
    """Whatever becomes of these files meanwhile, afterwards they are as they were."""
    from datamill import files

    before = {path: path.read_bytes() for path in paths if path.exists()}
    try:
        yield
    finally:
        for path, content in before.items():
            if path.read_bytes() != content:
                with files.atomic_write(path) as partial:
                    partial.write_bytes(content)


def _tell_reasons(decision: "Decision") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("check", "", "found", "needed"):
        table.add_column(column, overflow="fold")
    for reason in decision.reasons:
        verdict = "[green]passes[/]" if reason.passes else "[red]refuses[/]"
        table.add_row(reason.check, verdict, escape(reason.found), escape(reason.needed))
    Console().print(table)


def _prepare_prefect(*, debug: bool) -> None:
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")  # its first start makes a database
    if not debug:  # on the console, errors are told as one message below; Prefect's own log has their tracebacks
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def _tell_forecast(root: Path, *, target: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from flows.forecasting import forecast
    from flows.graph import needed_by, prepare

    prepare(root.resolve())
    stages = forecast(needed_by(target), root=root.resolve())
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "", "because", "works on", "about"):
        table.add_column(column, overflow="fold", justify="right" if column == "about" else "left")
    for one in stages:
        about = "" if one.verdict == "up to date" else "unknown" if one.seconds is None else f"{one.seconds:.0f} s"
        table.add_row(one.stage, one.verdict, "; ".join(one.reasons), one.extent, about)
    Console(markup=False).print(table)
    known = [one.seconds for one in stages if one.seconds is not None]
    moving = sum(one.verdict != "up to date" for one in stages)
    told = f", about {sum(known):.0f} s judged by earlier runs" if known else ""
    typer.echo(f"{moving} of {len(stages)} stages would run{told}; nothing was done" if moving else "up to date")


def main() -> None:
    """Run the command; entry point of the ``datamill`` script."""
    app(prog_name="datamill")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_shown(one) for one in value)
    if value is None or isinstance(value, dict | bool):
        return json.dumps(value, ensure_ascii=False)  # as params.yaml says it
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
