"""The monitoring flow: what is new is judged, told to MLflow, announced, and weighed as a reason to train again."""

from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from datamill.monitoring.config import load_watch
from datamill.monitoring.verdicts import REPORT, WINDOWS, Judged, window_folder
from datamill.monitoring.watching import Pass, is_current, mark_told, track, untold, watch_once
from datamill.settings import Settings
from datamill.tracking import redact, tracking_uri
from flows import alerting, retraining

MOST_SHOWN = 20  # differences in the artifact


def _run_name() -> str:
    return f"watch {Path(flow_run.get_parameters().get('root', '.')).resolve().name}"


@flow(name="watch-drift", flow_run_name=_run_name, persist_result=False, validate_parameters=True)
def watch_drift(root: str = ".", source: str | None = None) -> Pass:
    """Judge what is new in the watched source, and tell what there is to tell.

    A window that was judged and not told, because the process was killed between the two, is told first. Whoever is
    told knows windows by name, so that nobody hears of one twice.

    Args:
        root: The workspace.
        source: Path to read instead of ``source.data.path``.

    Returns:
        The window that was judged, if there was anything new.

    Raises:
        ParamsError: ``watch.yaml`` is missing or wrong; nothing was started.
        StageError: The workspace has no model.
        DataError: The source is missing, or the reference belongs to another model.
    """
    workspace = Path(root).resolve()
    load_watch(workspace)
    for judged in untold(workspace):
        _tell(workspace, judged)
    found = watch_once(workspace, now=datetime.now(UTC), source=source)
    if found.labels:
        get_run_logger().info("labels: %s", "; ".join([str(found.labels), *found.labels.notes]))
    for judged in (*([found.judged] if found.judged else ()), *found.labelled):
        _tell(workspace, judged)
    if found.judged is None:
        get_run_logger().info("nothing new; %d files wait", found.num_waiting)
        alerting.deliver_waiting(workspace, now=datetime.now(UTC))
        retraining.resume(workspace)
    return found


def summarise(judged: Judged, *, links: dict[str, str]) -> str:
    """A judged window on one page (Markdown)."""
    verdict = judged.verdict
    word = "performance at risk" if verdict.is_at_risk else "drift" if verdict.is_drift else "no drift"
    size = f"{verdict.num_samples} samples, {judged.num_rejects} rejects"
    lines = [f"**Window {judged.number}: {word}** · {size}", ""]
    if judged.about == "labels":
        lines = [f"**Labels of window {judged.number}: {word}** · {verdict.num_samples} labels", ""]
    if verdict.performance is not None:
        one = verdict.performance
        told = "measured" if one.is_measured else "estimated"
        lines += [f"{one.metric} {told} {one.estimated:.3f} ({one.low:.3f} to {one.high:.3f}); was {one.reference:.3f}"]
    moved = [outcome for outcome in verdict.outcomes if outcome.is_drift]
    if moved:
        lines += ["", "| what | of | by | effect |", "|---|---|---|---:|"]
        lines += [
            f"| {one.kind} | {_cell(one.subject)} | {one.detector} | {one.effect_name} {one.effect:.3g} |"
            for one in moved[:MOST_SHOWN]
        ]
    return "\n".join([*lines, "", *(f"- {note}" for note in verdict.notes), "", f"Report: `{links['report']}`"])


def _tell(root: Path, judged: Judged) -> None:
    """Tell MLflow, Prefect, those who are to be alerted, and whoever trains; then remember that all were told."""
    links = {"report": f"{WINDOWS}/{judged.window}/{REPORT}"}
    settings = Settings.from_environment()
    if (window_folder(root, judged.window) / REPORT).exists():
        run_path = track(root, judged, settings=settings)
        uri = tracking_uri(root=root, settings=settings)
        if run_path is not None:
            links["mlflow"] = f"{redact(uri)}/#/experiments/{run_path}" if uri.startswith("http") else run_path
    create_markdown_artifact(
        key="datamill-watch", markdown=summarise(judged, links=links), description="What the window was found to be"
    )
    if judged.about == "items" or is_current(root, judged):
        _alert(root, judged, links=links)
    mark_told(root, judged)


def _alert(root: Path, judged: Judged, *, links: dict[str, str]) -> None:
    """Tell those who are to be alerted, and whoever trains; labels are of items that were counted as new before."""
    verdict, now, is_whole = judged.verdict, datetime.now(UTC), judged.about == "items"
    alerting.announce(
        root, verdict=verdict, window=judged.name, model=judged.model, links=links, now=now, is_whole=is_whole
    )
    num_new = verdict.num_samples if is_whole else 0
    decision = retraining.consider(root, verdict=verdict, num_new=num_new, now=now, window=judged.name)
    get_run_logger().info("retrain: %s (%s)", decision.result, "; ".join(decision.reasons))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
