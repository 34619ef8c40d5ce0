"""A window is judged: its verdict, its folder, and what the cursor learns of it.

It becomes final in one transaction of the cursor. Its folder is complete before that and gets its name after it, so a
kill leaves a window that never was, or one that the next pass finishes.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pyarrow.compute as pc
from scipy import stats

from datamill import files
from datamill.drift import judge
from datamill.drift.control import Control
from datamill.drift.observations import Observations
from datamill.drift.params import DriftParams
from datamill.drift.verdict import Outcome
from datamill.monitoring.answers import write_answers
from datamill.monitoring.config import WatchParams
from datamill.monitoring.cursor import Cursor
from datamill.monitoring.observing import WatchedModel, reference_observations
from datamill.monitoring.params import SourceParams, WatchedQuery
from datamill.monitoring.records import Labelled, WindowRecord
from datamill.monitoring.report import write_report
from datamill.monitoring.verdicts import REPORT, Judged, measured, recent, window_folder
from datamill.monitoring.windows import Window
from datamill.monitoring.writing import write_window
from datamill.tracking import redact

TREND_WINDOWS = 30  # of the past in a report
REJECT_LEVEL = 1e-3  # chance of so many rejects at the share allowed, below which they are no accident


def judge_new(
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
    control = Control.model_validate(cursor.control() or {})
    reference = reference_observations(model.reference)
    verdict, control = judge(reference, window.observations, params=watch.of(DriftParams), control=control, now=now)
    notes = [*model.notes, *_schema_notes(window), *verdict.notes, *_clock_notes(cursor.latest(), now=now)]
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
    _write(root, judged, window=window, model=model, reference=reference)
    labelled = _await_labels(files.partial_path(folder), number=number, window=window, params=params)
    files.fsync_tree(files.partial_path(folder))
    cursor.commit(
        window.advance,
        record=WindowRecord(number, judged.window, now, model.name, is_published=False, is_told=False),
        control=control.model_dump(mode="json"),
        labelled=labelled,
        is_measured=labelled is not None and labelled.num_labels >= watch.of(DriftParams).min_labels,
    )
    files.publish(folder)
    cursor.mark_published(number)
    return judged


def _write(root: Path, judged: Judged, *, window: Window, model: WatchedModel, reference: Observations) -> None:
    """The window's folder, under another name at first, and the page in it."""
    partial = files.partial_path(window_folder(root, judged.window))
    files.remove(partial)
    history = recent(root, count=TREND_WINDOWS)
    true = measured(root, [*history, judged])
    write_window(partial, judged, window=window, model=model)
    page = partial / REPORT
    write_report(page, judged, window=window, model=model, reference=reference, history=history, true=true)


def _await_labels(folder: Path, *, number: int, window: Window, params: SourceParams) -> Labelled | None:
    """Keep the answers of a window whose labels may come; how many it has. ``None`` where none is waited for."""
    if params.labels.wait_days == 0 or not window.rows.num_rows:
        return None
    write_answers(folder, contents=window.rows["content_hash"], seen=window.observations)
    num_labels = int(pc.sum(pc.not_equal(window.rows["label"], "")).as_py() or 0)
    return Labelled(number, window.rows.num_rows, num_labels)


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


def _clock_notes(latest: WindowRecord | None, *, now: datetime) -> list[str]:
    if latest is None or now >= latest.judged_at:
        return []
    return [f"the clock went back by {latest.judged_at - now} since window {latest.name}; order goes by number"]


def _schema_notes(window: Window) -> list[str]:
    notes = []
    if window.schema.missing:
        notes.append(f"new data lacks the columns {sorted(window.schema.missing)}; their values count as missing")
    if window.schema.unknown:
        notes.append(f"new data has the columns {sorted(window.schema.unknown)}, which the model does not know")
    if window.has_more:
        notes.append("the window is full (source.max_items); what is left comes with the next")
    return notes


def _told(params: SourceParams) -> str:
    data = params.data
    return redact(data.query if isinstance(data, WatchedQuery) else data.path)
