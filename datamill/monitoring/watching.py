"""One pass of the watch: what is new is read, judged, written and told to MLflow; each item once, whatever happens.

Labels that come later are read first, then new items; last, windows with labels enough are judged by them. A window
becomes final in one transaction of the cursor. Its folder is complete before that and gets its name after it, so a kill
leaves a window that never was, or one that the next pass finishes.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.compute as pc
from filelock import FileLock
from scipy import stats

from datamill import files
from datamill.drift import judge
from datamill.drift.control import Control
from datamill.drift.params import DriftParams
from datamill.drift.verdict import Outcome
from datamill.errors import DataError
from datamill.monitoring.answers import BY_NAME, forget_answers, write_answers
from datamill.monitoring.config import WatchParams, load_watch
from datamill.monitoring.cursor import Cursor
from datamill.monitoring.feeds import open_feed
from datamill.monitoring.hindsight import judge_windows, publish_labels, take_new_labels
from datamill.monitoring.labelling import News, Redelivery, fill_windows
from datamill.monitoring.observing import WatchedModel, open_model, reference_observations
from datamill.monitoring.params import SourceParams, WatchedQuery
from datamill.monitoring.records import Labelled, WindowRecord
from datamill.monitoring.report import write_report
from datamill.monitoring.verdicts import (
    LABELS,
    REPORT,
    SAMPLE,
    VERDICT,
    WINDOWS,
    Judged,
    measured,
    read_verdict,
    recent,
    window_folder,
)
from datamill.monitoring.windows import Watcher, Window, read_window
from datamill.monitoring.writing import write_window
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
        labels: What came of labels.
        labelled: Earlier windows that had enough labels now, judged by them.
    """

    judged: Judged | None
    num_waiting: int
    notes: tuple[str, ...] = ()
    labels: News = field(default_factory=News)
    labelled: tuple[Judged, ...] = ()


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
        news, early = take_new_labels(root, model=model, cursor=cursor, params=params, now=now)
        feed = open_feed(params, cursor=cursor, dataset=model.dataset, preprocessor=model.preprocessor, now=now)
        watcher = Watcher(
            model=model,
            cursor=cursor,
            redelivery=Redelivery(root, cursor=cursor, params=params),
            params=params,
            scratch=root / WATCH / SCRATCH,
            seed=cursor.next_number(),
            device=resolve_device(settings.device),
        )
        window = read_window(feed, watcher=watcher)
        # Before the cursor knows these labels: a pass that is cut off in between finds them once more.
        again, labelled, _ = fill_windows(root, window.relabelled, by=BY_NAME, cursor=cursor)
        window = replace(window, advance=replace(window.advance, labelled=labelled))
        num_met = len(early.intersection(window.advance.arrived))  # their items have come in this very pass
        news = replace(news + again, num_unknown=news.num_unknown - num_met)
        if window.is_empty:
            cursor.note(window.advance, now=now)
            judged = None
        else:
            judged = _judge(root, window, model=model, cursor=cursor, watch=watch, params=params, now=now)
        present = feed.keys()
        if present is not None and not window.has_more:
            cursor.forget_absent(feed.origin, present=present)
        files.remove(root / WATCH / SCRATCH)
        late = tuple(judge_windows(root, model=model, cursor=cursor, watch=watch, now=now))
        for name in cursor.forget_labels(before=now - timedelta(days=params.labels.wait_days)):
            forget_answers(window_folder(root, name))
        _forget(root, cursor=cursor, params=params, now=now)
    return Pass(judged, len(window.advance.waiting), model.notes, news, late)


def untold(root: Path) -> list[Judged]:
    """Verdicts that nobody was told yet, oldest first, those about labels last; where a folder is gone it is let go."""
    root = root.resolve()
    if not (root / WATCH / CURSOR).exists():
        return []
    found = []
    with _held(root) as cursor:
        _finish(root, cursor)
        for records, name, mark in (
            (cursor.unfinished(), VERDICT, cursor.mark_told),
            (cursor.unfinished_labels(), LABELS, cursor.mark_labels_told),
        ):
            for record in records:
                try:
                    found.append(read_verdict(window_folder(root, record.name), name=name))
                except DataError:
                    mark(record.number)
    return found


def mark_told(root: Path, judged: Judged) -> None:
    """Remember that a verdict was announced."""
    with _held(root.resolve()) as cursor:
        (cursor.mark_told if judged.about == "items" else cursor.mark_labels_told)(judged.number)


def is_current(root: Path, judged: Judged) -> bool:
    """Whether a verdict is about the model that was watched last: of one that was replaced, nobody is alerted."""
    with _held(root.resolve()) as cursor:
        latest = cursor.latest()
    return latest is None or latest.model == judged.model


def track(root: Path, judged: Judged, *, settings: Settings | None = None) -> str | None:
    """Tell MLflow of a window, on one run per model; returns the run's path in the UI when MLflow has it."""
    session = Session(f"watch-{judged.model}", f"watch {judged.model}")
    tracker = Tracker(root.resolve(), settings or Settings.from_environment(), session, "watch")
    report = window_folder(root.resolve(), judged.window) / REPORT
    return tracker.log_window(name=judged.window, step=judged.number, metrics=window_metrics(judged), report=report)


def window_metrics(judged: Judged) -> dict[str, float]:
    """The numbers of a window by name, finite ones only: one effect per test, performance, counts.

    Those of labels that came later stand beside: ``labels`` is their number, ``performance.<metric>.measured`` what is
    true where ``.estimated`` was told.
    """
    verdict = judged.verdict
    found: dict[str, float] = {"labels": verdict.num_samples}
    if judged.about == "items":
        found = {
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
        if judged.about == "items":
            found |= {f"performance.{one.metric}.{end}": getattr(one, end) for end in ("estimated", "low", "high")}
        if one.is_measured:
            found[f"performance.{one.metric}.measured"] = one.estimated
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
    for record in cursor.unfinished_labels():
        if not record.is_published:
            publish_labels(window_folder(root, record.name))
            cursor.mark_labels_published(record.number)


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
    history = recent(root, count=TREND_WINDOWS)
    true = measured(root, [*history, judged])
    write_window(partial, judged, window=window, model=model)
    page = partial / REPORT
    write_report(page, judged, window=window, model=model, reference=reference, history=history, true=true)
    num_labels = int(pc.sum(pc.not_equal(window.rows["label"], "")).as_py() or 0)
    labelled = None
    if params.labels.wait_days > 0 and window.rows.num_rows:
        write_answers(partial, contents=window.rows["content_hash"], seen=window.observations)
        labelled = Labelled(number, window.rows.num_rows, num_labels)
    files.fsync_tree(partial)
    record = WindowRecord(number, judged.window, now, model.name, is_published=False, is_told=False)
    cursor.commit(
        window.advance,
        record=record,
        control=control.model_dump(mode="json"),
        labelled=labelled,
        is_measured=num_labels >= watch.of(DriftParams).min_labels,
    )
    files.publish(folder)
    cursor.mark_published(number)
    return judged


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


def _forget(root: Path, *, cursor: Cursor, params: SourceParams, now: datetime) -> None:
    """Delete the kept inputs of all but the newest windows, folders of old ones, and what is known of old items."""
    folders = sorted((root / WINDOWS).glob("[0-9]*"))
    for folder in folders[: -params.keep_windows]:
        files.remove(folder / SAMPLE)
    if len(folders) > params.keep_reports:
        left = set(cursor.forget_windows(keep=params.keep_reports))
        for folder in folders[: -params.keep_reports]:
            if folder.name not in left:
                files.remove(folder)
    if params.remember_days is not None:
        cursor.forget_items(days=params.remember_days, now=now)


def utc_now() -> datetime:
    """The present, for those who call from outside."""
    return datetime.now(UTC)
