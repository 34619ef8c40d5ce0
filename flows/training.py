"""The training flow: every stage of ``PIPELINE`` as a task, in the order its inputs dictate."""

import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from datamill import config, dvcfile
from datamill.execute import load_metrics, show_number
from datamill.promotion.params import read_policy
from datamill.retraining.requests import training
from datamill.settings import Settings
from datamill.tracking import Session, Tracker, numbers, redact, tracking_uri
from flows.dvc import LockedError, Outcome, reproduce, stage_environment
from flows.forecasting import settled
from flows.graph import needed_by, prepare
from flows.interrupting import stages_end_with_it
from flows.lineage import keep_record, tell_why
from flows.promoting import challenge
from flows.relaying import relaying

MAX_STAGES_AT_ONCE = 2  # the graph is never wider where work is heavy
LOCK_RETRIES = 5
LOCK_DELAYS_S = [1.0, 2.0, 4.0, 8.0, 16.0]


def is_lock_error(_task: object, _run: TaskRun, state: State[object]) -> bool:
    """Whether a failed stage is worth trying again: only when another process held a lock."""
    return isinstance(state.result(raise_on_failure=False), LockedError)


def tell(line: str) -> None:
    """Show a line on the console and in Prefect's log of the stage."""
    print(line, flush=True)
    get_run_logger().info(line)


def _run_name() -> str:
    return f"train {Path(flow_run.get_parameters().get('root', '.')).resolve().name}"


@task(
    task_run_name="{name}",
    retries=LOCK_RETRIES,
    retry_delay_seconds=LOCK_DELAYS_S,
    retry_jitter_factor=0.5,
    retry_condition_fn=is_lock_error,
    persist_result=False,
)
def run_stage(name: str, root: str, session: str, is_settled: bool = False) -> Outcome:
    """Bring one stage up to date; DVC decides whether there is anything to do, for a settled one it has."""
    if is_settled:
        return Outcome(name, "cached", 0.0)
    start = time.monotonic()
    try:
        status = reproduce(name, root=Path(root), environment=stage_environment(session=session), tell=tell)
    except LockedError:
        tell(f"{name}: waits, another run is at work in this workspace")
        raise
    return Outcome(name, status, time.monotonic() - start)


@flow(
    name="train-model",
    flow_run_name=_run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=MAX_STAGES_AT_ONCE),  # type: ignore[arg-type]
    persist_result=False,
    validate_parameters=True,
)
def train_model(root: str = ".", target: str | None = None) -> dict[str, str]:
    """Bring the workspace ``root`` up to date, or only ``target`` and what it needs.

    Returns:
        How each stage ended: executed, cached, failed or not reached.

    Raises:
        ParamsError: A parameter is wrong; nothing was started.
        StageError: A stage failed; the message is its own.
    """
    workspace = Path(root).resolve()
    prepare(workspace)
    read_policy(workspace)  # its faults are told before any work, not after
    chosen = needed_by(target)
    session = Session(str(flow_run.get_id() or f"flow-{random.getrandbits(48):x}"), str(flow_run.get_name() or "flow"))
    named = f"{session.key}={session.name}"
    stage_environment(session=named)  # before relaying loads MLflow, which sets variables
    with training(workspace), relaying(workspace), stages_end_with_it():
        futures = _submit(chosen, root=str(workspace), session=named)
        outcomes = {name: _outcome(future) for name, future in futures.items()}
    statuses = {name: _status(outcome) for name, outcome in outcomes.items()}
    run_path = _close(workspace, session=session, statuses=statuses)
    create_markdown_artifact(
        key="datamill-run",
        markdown=summarise(outcomes, root=workspace, run_path=run_path),
        description="Stages and results",
    )
    tell_why(workspace, session=session, statuses=statuses)
    for outcome in outcomes.values():
        if isinstance(outcome, BaseException):
            raise outcome
    if "export" in statuses:
        challenge(workspace, now=datetime.now(UTC))
    return statuses


def summarise(outcomes: Mapping[str, Outcome | BaseException | None], *, root: Path, run_path: str | None) -> str:
    """The flow run on one page: stages, times, headline numbers, and where MLflow shows it (Markdown)."""
    lines = [*result(root), "| stage | ended | seconds | |", "|---|---|---:|---|"]
    for name, outcome in outcomes.items():
        seconds = f"{outcome.seconds:.1f}" if isinstance(outcome, Outcome) else ""
        shown = [f"{key} {show_number(value)}" for key, value in [*numbers(load_metrics(name, root=root)).items()][:4]]
        lines.append(f"| {name} | {_status(outcome)} | {seconds} | {', '.join(shown)} |")
    uri = tracking_uri(root=root, settings=Settings.from_environment())
    if run_path is None:
        link = "MLflow did not answer; the record is sent with the next run."
    elif uri.startswith("http"):
        link = f"[MLflow run]({redact(uri)}/#/experiments/{run_path})"
    else:
        link = f"MLflow run `{run_path}`: start `datamill ui`, then open http://127.0.0.1:5000/#/experiments/{run_path}"
    return "\n".join([*lines, "", link])


def result(root: Path) -> list[str]:
    """What the model that is there is worth, as a paragraph of Markdown; nothing before one was measured."""
    measured = load_metrics("evaluate", root=root)
    if "accuracy" not in measured:
        return []
    interval, baseline = measured["interval"].get("accuracy"), measured["baseline"].get("accuracy")
    ends = f" ({interval['low']:.4f} to {interval['high']:.4f})" if interval else ""
    beside = f"; logistic regression {baseline:.4f}" if baseline is not None else ""
    return [f"**accuracy {measured['accuracy']:.4f}**{ends} on {measured['samples']:,} test samples{beside}", ""]


def _ends(statuses: Mapping[str, str]) -> list[str]:
    """The stages by how they ended (Markdown)."""
    ways = dict.fromkeys(statuses.values())
    return [f"- {way}: {', '.join(name for name, status in statuses.items() if status == way)}" for way in ways]


def _submit(needs: Mapping[str, tuple[str, ...]], *, root: str, session: str) -> dict[str, PrefectFuture[Outcome]]:
    futures: dict[str, PrefectFuture[Outcome]] = {}
    first = []
    if "observe" in (Path(root) / dvcfile.DVC_FILE).read_text(encoding="utf-8"):
        first = [run_stage.submit(name="observe", root=root, session=session)]
        outcome = _outcome(first[0])  # before it, nobody knows what has changed
        if isinstance(outcome, BaseException):  # a store or database that cannot be reached: no stage can begin
            raise outcome
    done = settled(needs, root=Path(root))  # one call of DVC instead of one a stage
    for name, before in needs.items():
        waits = [futures[one] for one in before if one in futures] or first
        options = {"name": name, "root": root, "session": session, "is_settled": name in done}
        futures[name] = run_stage.submit(**options, wait_for=waits, return_state=False)
    return futures


def _outcome(future: PrefectFuture[Outcome]) -> Outcome | BaseException | None:
    future.wait()
    if not future.state.is_final():  # a stage it waits for failed, so it never became ready
        return None
    result: Outcome | BaseException = future.state.result(raise_on_failure=False)
    return result


def _status(outcome: Outcome | BaseException | None) -> str:
    if isinstance(outcome, Outcome):
        return outcome.status
    return "not reached" if outcome is None else "failed"


def _close(root: Path, *, session: Session, statuses: Mapping[str, str]) -> str | None:
    metrics = {
        name: load_metrics(name, root=root) for name, status in statuses.items() if status in {"executed", "cached"}
    }
    note = "\n".join([*result(root), *_ends(statuses)])
    tracker = Tracker(root, Settings.from_environment(), session, "flow", tuple(statuses))
    keep_record(root, session=session, statuses=statuses, tracker=tracker)
    return tracker.close_session(statuses=statuses, summary=numbers(config.flatten(metrics)), note=note)
