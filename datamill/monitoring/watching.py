"""One pass of the watch: what is new is read, judged, written and told to MLflow; each item once, whatever happens.

A window becomes final in one transaction of the cursor. Its folder is complete before that and gets its name after it,
so a kill leaves a window that never was, or one that the next pass finishes.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from scipy import stats

from datamill import files, ledger, parts
from datamill.drift import judge
from datamill.drift.control import Control
from datamill.drift.params import DriftParams
from datamill.drift.verdict import Outcome
from datamill.errors import DataError
from datamill.monitoring.config import WatchParams, load_watch
from datamill.monitoring.cursor import Cursor, WindowRecord
from datamill.monitoring.feeds import open_feed
from datamill.monitoring.observing import WatchedModel, open_model, reference_observations
from datamill.monitoring.params import SourceParams, WatchedQuery
from datamill.monitoring.reference import write_reference
from datamill.monitoring.report import write_report
from datamill.monitoring.verdicts import (
    OBSERVATIONS,
    REJECTS,
    REPORT,
    SAMPLE,
    WINDOWS,
    Judged,
    read_verdict,
    recent,
    window_folder,
    write_verdict,
)
from datamill.monitoring.windows import Window, read_window
from datamill.settings import STATE, Settings, resolve_device
from datamill.tracking import Session, Tracker, redact

TREND_WINDOWS = 30  # of the past in a report
REJECT_LEVEL = 1e-3  # chance of so many rejects at the share allowed, below which they are no accident
WATCH = f"{STATE}/watch"
CURSOR, LOCK, SCRATCH = "cursor.db", "lock", "scratch"


@dataclass(frozen=True)
class Pass:
    """What came of one pass.

    Attributes:
        judged: The window; ``None`` where there was nothing new.
        num_waiting: Files that wait for the next window.
        notes: What people should know although no window was judged.
    """

    judged: Judged | None
    num_waiting: int
    notes: tuple[str, ...] = ()


def watch_once(root: Path, *, now: datetime, settings: Settings | None = None, source: str | None = None) -> Pass:
    """Judge what is new in the watched source, if anything is.

    A second watcher of the same workspace waits until the first is done, and then finds what the first has left.

    Args:
        root: The workspace.
        now: The present, in UTC.
        settings: Where and how to run; from the environment by default.
        source: Path to read instead of ``source.data.path``.

    Raises:
        ParamsError: ``watch.yaml`` is missing or wrong.
        StageError: The workspace has no model.
        DataError: The source is missing, or the reference belongs to another model. Nothing has advanced then.
    """
    root = root.resolve()
    settings = settings or Settings.from_environment()
    watch = load_watch(root)
    params = _source(watch, path=source)
    with _held(root) as cursor, contextlib.chdir(root):
        _finish(root, cursor)
        model = open_model(root)
        feed = open_feed(params, cursor=cursor, dataset=model.dataset, preprocessor=model.preprocessor, now=now)
        number = cursor.next_number()
        device = resolve_device(settings.device)
        scratch = root / WATCH / SCRATCH
        window = read_window(
            feed, model=model, cursor=cursor, params=params, scratch=scratch, seed=number, device=device
        )
        if window.is_empty:
            cursor.note(window.advance, now=now)
            judged = None
        else:
            judged = _judge(root, window, model=model, cursor=cursor, watch=watch, params=params, now=now)
        present = feed.keys()
        if present is not None and not window.has_more:
            cursor.forget_absent(feed.origin, present=present)
        files.remove(scratch)
    if judged is not None:
        _prune(root, keep=params.keep_windows)
    return Pass(judged, len(window.advance.waiting), model.notes)


def untold(root: Path) -> list[Judged]:
    """Judged windows whose verdict nobody was told yet, oldest first; those whose folder was deleted are let go."""
    root = root.resolve()
    if not (root / WATCH / CURSOR).exists():
        return []
    found = []
    with _held(root) as cursor:
        _finish(root, cursor)
        for record in cursor.unfinished():
            try:
                found.append(read_verdict(window_folder(root, record.name)))
            except DataError:
                cursor.mark_told(record.number)
    return found


def mark_told(root: Path, judged: Judged) -> None:
    """Remember that a window's verdict was announced."""
    with _held(root.resolve()) as cursor:
        cursor.mark_told(judged.number)


def track(root: Path, judged: Judged, *, settings: Settings | None = None) -> str | None:
    """Tell MLflow of a window, on one run per model; returns the run's path in the UI when MLflow has it."""
    session = Session(f"watch-{judged.model}", f"watch {judged.model}")
    tracker = Tracker(root.resolve(), settings or Settings.from_environment(), session, "watch")
    report = window_folder(root.resolve(), judged.window) / REPORT
    return tracker.log_window(name=judged.window, step=judged.number, metrics=window_metrics(judged), report=report)


def window_metrics(judged: Judged) -> dict[str, float]:
    """The numbers of a window by name, finite ones only: one effect per test, performance, counts."""
    verdict = judged.verdict
    found: dict[str, float] = {
        "samples": verdict.num_samples,
        "rejects": judged.num_rejects,
        "is_drift": float(verdict.is_drift),
        "is_at_risk": float(verdict.is_at_risk),
        "drifted": sum(outcome.is_drift for outcome in verdict.outcomes),
    }
    for outcome in verdict.outcomes:
        name = ".".join(filter(None, [outcome.kind, outcome.detector, outcome.subject, outcome.effect_name]))
        found[name] = outcome.effect
    if verdict.performance is not None:
        one = verdict.performance
        found |= {f"performance.{one.metric}.{end}": getattr(one, end) for end in ("estimated", "low", "high")}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


@contextlib.contextmanager
def _held(root: Path) -> Iterator[Cursor]:
    """The cursor, with nobody else at it."""
    folder = root / WATCH
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK), Cursor.open(folder / CURSOR) as cursor:
        yield cursor


def _finish(root: Path, cursor: Cursor) -> None:
    """Give folders of windows that were judged before a kill their names."""
    for record in cursor.unfinished():
        if not record.is_published:
            folder = window_folder(root, record.name)
            if files.partial_path(folder).exists():
                files.publish(folder)
            cursor.mark_published(record.number)


def _judge(
    root: Path,
    window: Window,
    *,
    model: WatchedModel,
    cursor: Cursor,
    watch: WatchParams,
    params: SourceParams,
    now: datetime,
) -> Judged:
    """Judge a window, write its folder and advance the cursor."""
    number = cursor.next_number()
    latest = cursor.latest()
    control = Control.model_validate(cursor.control() or {})
    reference = reference_observations(model.reference)
    verdict, control = judge(reference, window.observations, params=watch.of(DriftParams), control=control, now=now)
    notes = [*model.notes, *_schema_notes(window), *verdict.notes]
    if latest is not None and now < latest.judged_at:
        notes.append(
            f"the clock went back by {latest.judged_at - now} since window {latest.name}; order goes by number"
        )
    outcomes = (*_quality(window, params=params), *verdict.outcomes)
    judged = Judged(
        window=f"{number:06d}",
        number=number,
        judged_at=now,
        model=model.name,
        source=_told(params),
        verdict=replace(verdict, outcomes=outcomes, notes=tuple(notes)),
        rejects=dict(sorted(Counter(reject.reason for reject in window.rejects).items())),
        num_waiting=len(window.advance.waiting),
        has_more=window.has_more,
    )
    folder = window_folder(root, judged.window)
    partial = files.partial_path(folder)
    files.remove(partial)
    _write(partial, judged, window=window, model=model, reference=reference, history=recent(root, count=TREND_WINDOWS))
    files.fsync_tree(partial)
    record = WindowRecord(number, judged.window, now, model.name, is_published=False, is_told=False)
    cursor.commit(window.advance, record=record, control=control.model_dump(mode="json"))
    files.publish(folder)
    cursor.mark_published(number)
    return judged


def _write(
    folder: Path, judged: Judged, *, window: Window, model: WatchedModel, reference: Any, history: list[Judged]
) -> None:
    folder.mkdir(parents=True)
    seen = window.observations
    write_verdict(folder, judged)
    ledger.write_rejects(folder / REJECTS, window.rejects)
    parts.write_parquet(_predictions(window), folder / OBSERVATIONS)
    if window.kept.inputs is not None:
        rows = window.kept.rows
        assert seen.embeddings is not None
        assert seen.probabilities is not None
        assert seen.labels is not None
        chosen = window.rows.take(pa.array(rows))
        write_reference(
            folder / SAMPLE,
            identity={
                "sample_id": chosen["sample_id"],
                "split": ["window"] * len(rows),
                "label": seen.labels[rows],
                "time": chosen["time"],
            },
            features=seen.features.take(pa.array(rows)),
            arrays={
                "inputs": window.kept.inputs,
                "embeddings": seen.embeddings[rows],
                "probabilities": seen.probabilities[rows],
            },
            dataset=model.dataset,
            model_sha256=model.reference.description.model_sha256,
            preprocessor_sha256=model.reference.description.preprocessor_sha256,
            headline=None,
        )
    write_report(folder / REPORT, judged, window=window, model=model, reference=reference, history=history)


def _predictions(window: Window) -> pa.Table:
    """What is kept of every sample: who it is, and what the model said."""
    probabilities = window.observations.probabilities
    assert probabilities is not None
    predicted = probabilities.argmax(axis=1) if len(probabilities) else np.empty(0, np.int64)
    classes = pa.array(window.observations.classes, pa.string())
    table = window.rows.append_column("predicted", classes.take(pa.array(predicted)))
    confidence = probabilities.max(axis=1) if len(probabilities) else np.empty(0, np.float32)
    return table.append_column("confidence", pa.array(confidence, pa.float32()))


def _quality(window: Window, *, params: SourceParams) -> Iterator[Outcome]:
    """What reading found out: the share of rejects, and columns that are missing or new."""
    num_samples, num_rejects = window.rows.num_rows, len(window.rejects)
    share = num_rejects / max(1, num_samples + num_rejects)
    first = window.rejects[0] if window.rejects else None
    examples = {} if first is None else {"first": {"source": first.source, "message": first.message}}
    p_value = float(stats.binom.sf(num_rejects - 1, num_samples + num_rejects, params.max_reject_share))
    yield Outcome(
        kind="quality",
        detector="reject_share",
        subject="",
        statistic=share,
        p_value=p_value,
        effect=share,
        effect_name="share",
        is_drift=p_value < REJECT_LEVEL,
        detail={"threshold": params.max_reject_share, "rejects": num_rejects, **examples},
    )
    for name, count in sorted(window.schema.missing.items()):
        missing = count / max(1, num_samples + num_rejects)
        if missing:
            yield Outcome("quality", "missing_column", name, missing, None, missing, "share", is_drift=True)
    for name in sorted(window.schema.unknown):
        yield Outcome("quality", "unknown_column", name, 1.0, None, 1.0, "share", is_drift=False)


def _schema_notes(window: Window) -> list[str]:
    notes = []
    if window.schema.missing:
        notes.append(f"new data lacks the columns {sorted(window.schema.missing)}; their values count as missing")
    if window.schema.unknown:
        notes.append(f"new data has the columns {sorted(window.schema.unknown)}, which the model does not know")
    if window.has_more:
        notes.append("the window is full (source.max_items); what is left comes with the next")
    return notes


def _source(watch: WatchParams, *, path: str | None) -> SourceParams:
    params = watch.of(SourceParams)
    if path is None:
        return params
    if isinstance(params.data, WatchedQuery):
        raise DataError("source.data is a query, which has no path to read instead; change watch.yaml")
    return params.model_copy(update={"data": params.data.model_copy(update={"path": path})})


def _told(params: SourceParams) -> str:
    data = params.data
    return redact(data.query if isinstance(data, WatchedQuery) else data.path)


def _prune(root: Path, *, keep: int) -> None:
    """Delete the kept inputs of all but the newest windows."""
    for folder in sorted((root / WINDOWS).glob("[0-9]*"))[:-keep]:
        files.remove(folder / SAMPLE)


def utc_now() -> datetime:
    """The present, for those who call from outside."""
    return datetime.now(UTC)
