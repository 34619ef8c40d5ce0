"""One pass of the watch: what is new is read, judged, written and told to MLflow; each item once, whatever happens.

Labels that come later are read first, then new items; last, windows with labels enough are judged by them. A pass
that is killed leaves windows that never were, or some that the next pass finishes.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from filelock import FileLock

from datamill import files
from datamill.errors import DataError
from datamill.monitoring.answers import BY_NAME, forget_answers
from datamill.monitoring.config import WatchParams, load_watch
from datamill.monitoring.cursor import Cursor
from datamill.monitoring.feeds import open_feed
from datamill.monitoring.hindsight import judge_windows, publish_labels, take_new_labels
from datamill.monitoring.judging import judge_new
from datamill.monitoring.labelling import News, fill_windows
from datamill.monitoring.observing import open_model
from datamill.monitoring.params import SourceParams, WatchedQuery
from datamill.monitoring.redelivery import Redelivery
from datamill.monitoring.verdicts import (
    LABELS,
    REPORT,
    SAMPLE,
    VERDICT,
    WINDOWS,
    Judged,
    read_verdict,
    window_folder,
)
from datamill.monitoring.windows import Watcher, read_window
from datamill.settings import STATE, Settings, resolve_device
from datamill.tracking import Session, Tracker

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
            judged = judge_new(root, window, model=model, cursor=cursor, watch=watch, params=params, now=now)
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


def _source(watch: WatchParams, *, path: str | None) -> SourceParams:
    params = watch.of(SourceParams)
    if path is None:
        return params
    if isinstance(params.data, WatchedQuery):
        raise DataError("source.data is a query, which has no path to read instead; change watch.yaml")
    return params.model_copy(update={"data": params.data.model_copy(update={"path": path})})


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
