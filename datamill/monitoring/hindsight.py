"""What labels that come later tell of windows that were judged before; the passes of the watch call on it.

A verdict about labels becomes final in one transaction of the cursor, as a window does: its file is complete before,
and gets its name after.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from datamill import files
from datamill.drift import judge_labels
from datamill.drift.control import Control
from datamill.drift.params import DriftParams
from datamill.errors import DataError
from datamill.monitoring.answers import ANSWERS, BY_CONTENT, BY_NAME, read_labelled
from datamill.monitoring.config import WatchParams
from datamill.monitoring.cursor import Cursor
from datamill.monitoring.feeds import open_labels
from datamill.monitoring.labelling import News, take_labels
from datamill.monitoring.observing import WatchedModel, reference_observations
from datamill.monitoring.params import LabelQuery, LabelTable, SourceParams
from datamill.monitoring.report import add_labels
from datamill.monitoring.verdicts import LABELS, REPORT, VERDICT, Judged, read_verdict, window_folder, write_verdict


def take_new_labels(
    root: Path, *, model: WatchedModel, cursor: Cursor, params: SourceParams, now: datetime
) -> tuple[News, frozenset[str]]:
    """Write labels that come by themselves to their items; also keys of those whose item was not judged yet.

    A source that fails delays no verdict, and is told.
    """
    labels = params.labels
    if labels.data is None or labels.wait_days == 0:
        return News(), frozenset()
    by = BY_NAME if isinstance(labels.data, LabelTable | LabelQuery) else BY_CONTENT
    try:
        feed = open_labels(labels.data, params=params, cursor=cursor, dataset=model.dataset, now=now)
        news, advance = take_labels(root, feed, by=by, cursor=cursor, most=params.max_items)
        cursor.note(advance, now=now)
        present = feed.keys()
        if present is not None:
            cursor.forget_absent(feed.origin, present=present)
    except DataError as error:
        return News(notes=(f"no labels: {error}",)), frozenset()
    return news, frozenset(advance.early)


def judge_windows(
    root: Path, *, model: WatchedModel, cursor: Cursor, watch: WatchParams, now: datetime
) -> Iterator[Judged]:
    """Judge the model's windows by their labels that have enough; each once."""
    params = watch.of(DriftParams)
    contradicting = {one.number: one.num_contradicting for one in cursor.labelled()}
    reference = reference_observations(model.reference)
    for record in cursor.due(model.name, min_labels=params.min_labels):
        folder = window_folder(root, record.name)
        if not (folder / ANSWERS).exists() or not (folder / VERDICT).exists():
            continue  # deleted by hand
        before = read_verdict(folder)
        labelled = read_labelled(folder, classes=model.dataset.classes)
        control = Control.model_validate(cursor.control() or {})
        verdict, control = judge_labels(reference, labelled, params=params, control=control, now=now)
        if contradicting[record.number]:
            note = f"{contradicting[record.number]} labels contradicted the first one of their item, which holds"
            verdict = replace(verdict, notes=(*verdict.notes, note))
        judged = Judged(
            window=record.name,
            number=record.number,
            judged_at=now,
            model=model.name,
            source=before.source,
            verdict=verdict,
            about="labels",
        )
        write_verdict(files.partial_path(folder / LABELS), judged)
        cursor.commit_labels(record.number, judged_at=now, control=control.model_dump(mode="json"))
        publish_labels(folder)
        cursor.mark_labels_published(record.number)
        yield judged


def publish_labels(folder: Path) -> None:
    """Give the verdict about a window's labels its name, and the page about the window its section."""
    if files.partial_path(folder / LABELS).exists():
        files.publish(folder / LABELS)
    if (folder / LABELS).exists() and (folder / REPORT).exists():
        add_labels(folder / REPORT, read_verdict(folder, name=LABELS), judged=read_verdict(folder))
