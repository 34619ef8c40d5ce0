"""Labels that come after their items were judged: filled in once, judged once, told."""

import os
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from datamill import config
from datamill.monitoring import watching
from datamill.monitoring.answers import ANSWERS, read_sample
from datamill.monitoring.config import load_watch
from datamill.monitoring.cursor import Cursor
from datamill.monitoring.labelling import News
from datamill.monitoring.verdicts import read_verdict
from datamill.monitoring.watching import mark_told, untold, window_metrics
from tests.watched import change_watch, drop_images, look, new_rows, write_csv

COUNT = 60


def judge_rows(root: Path, *, count: int = COUNT, minutes: float = 0, seed: int = 1) -> pd.DataFrame:
    """A window of rows named by ``key``, without labels; the rows with their true class in ``kind``."""
    table = new_rows(count=count, seed=seed, labelled=True).to_pandas()
    table.insert(0, "key", [f"{seed}-{row}" for row in range(count)])
    table.drop(columns="kind").to_csv(root / f"incoming/{seed}.csv", index=False)
    assert look(root, minutes=minutes).judged is not None
    return table[["key", "kind"]]


def deliver(root: Path, labels: pd.DataFrame, *, name: str = "a.csv") -> None:
    """A file of labels."""
    (root / "labels").mkdir(exist_ok=True)
    labels.to_csv(root / "labels" / name, index=False)


def labels_of(root: Path, window: str = "000001") -> list[str]:
    """Labels of a window's samples, empty where they are not known."""
    return list(pq.read_table(root / "reports/windows" / window / "observations.parquet")["label"].to_pylist())


@pytest.fixture
def rows(tables: Path) -> Path:
    """A workspace whose rows have an id, and whose labels come as CSV files."""
    source = {
        "kind": "table", "path": "labels", "format": "csv", "delimiter": ",", "encoding": "utf-8",
        "id": "key", "target": "kind", "target_kind": "category",
    }  # fmt: skip
    (tables / "labels").mkdir()
    change_watch(tables, source__data__id="key", source__labels__data=source, drift__min_labels=30)
    return tables


def test_labels_that_come_later_are_judged_once_and_set_beside_the_estimate(rows: Path) -> None:
    labels = judge_rows(rows)
    estimate = read_verdict(rows / "reports/windows/000001").verdict.performance
    assert estimate is None or not estimate.is_measured
    deliver(rows, labels[:20])
    found = look(rows, minutes=1)
    assert (found.judged, found.labels, found.labelled) == (None, News(num_new=20), ())
    deliver(rows, labels[20:], name="b.csv")
    found = look(rows, minutes=2)
    (judged,) = found.labelled
    assert found.labels == News(num_new=40)
    assert (judged.name, judged.about, judged.verdict.num_samples) == ("000001 (labels)", "labels", COUNT)
    true = judged.verdict.performance
    assert true is not None
    assert (true.is_measured, true.estimated) == (True, 1.0)
    assert {one.kind for one in judged.verdict.outcomes} <= {"quality", "label", "concept"}
    assert labels_of(rows) == labels["kind"].tolist()
    page = (rows / "reports/windows/000001/report.html").read_text()
    assert page.count("Labels that came later") == 1
    assert "accuracy measured 100.0%" in " ".join(page.split())
    metrics = window_metrics(judged)
    assert (metrics["labels"], metrics["performance.accuracy.measured"]) == (60, 1.0)
    assert "samples" not in metrics
    assert look(rows, minutes=3).labelled == ()


def test_true_performance_is_a_square_in_the_trend_of_later_windows(rows: Path) -> None:
    deliver(rows, judge_rows(rows))
    look(rows, minutes=1)
    judge_rows(rows, minutes=2, seed=2)
    page = (rows / "reports/windows/000002/report.html").read_text()
    assert page.count('<rect class="true"') == 1
    assert "squares are measured" in page


def test_wrong_answers_shown_by_labels_put_performance_at_risk(rows: Path) -> None:
    labels = judge_rows(rows)
    others = {"0": "1", "1": "2", "2": "0"}
    deliver(rows, labels.assign(kind=labels["kind"].map(others)))
    (judged,) = look(rows, minutes=1).labelled
    assert judged.verdict.is_at_risk
    assert judged.verdict.performance is not None
    assert judged.verdict.performance.estimated == 0.0
    assert "concept" in {one.kind for one in judged.verdict.outcomes if one.is_drift}


def test_each_label_counts_once_however_often_it_comes(rows: Path) -> None:
    labels = judge_rows(rows)
    deliver(rows, labels[:30])
    assert look(rows, minutes=1).labels == News(num_new=30)
    deliver(rows, labels[:40])  # the file has grown
    deliver(rows, labels[:35], name="copy.csv")
    assert look(rows, minutes=2).labels == News(num_new=10)
    assert look(rows, minutes=3).labels == News()
    assert sum(label != "" for label in labels_of(rows)) == 40


def test_the_first_label_holds_and_contradictions_are_counted_and_told(rows: Path) -> None:
    labels = judge_rows(rows)
    deliver(rows, labels[:10])
    look(rows, minutes=1)
    wrong = labels[:3].assign(kind="2" if labels["kind"][0] != "2" else "0")
    num_other = int((wrong["kind"] != labels["kind"][:3]).sum())
    deliver(rows, wrong, name="b.csv")
    found = look(rows, minutes=2)
    assert found.labels == News(num_contradicting=num_other)
    assert labels_of(rows)[:10] == labels["kind"][:10].tolist()
    deliver(rows, labels[10:], name="c.csv")
    (judged,) = look(rows, minutes=3).labelled
    assert f"{num_other} labels contradicted the first one of their item, which holds" in judged.verdict.notes


def test_a_label_of_an_item_that_was_never_judged_is_told_and_waits_for_it(rows: Path) -> None:
    labels = judge_rows(rows)
    early = new_rows(count=COUNT, seed=2, labelled=True).to_pandas()["kind"]
    deliver(rows, pd.DataFrame({"key": [f"2-{row}" for row in range(COUNT)] + ["nobody"], "kind": [*early, "1"]}))
    found = look(rows, minutes=1)
    assert found.labels == News(num_unknown=61)
    assert str(found.labels) == "0 items got their label, 61 name no item that waits for a label"
    judge_rows(rows, minutes=2, seed=2)
    assert labels_of(rows, "000002") == early.tolist()
    performance = read_verdict(rows / "reports/windows/000002").verdict.performance
    assert performance is not None
    assert performance.is_measured  # all labels were there when it was judged
    assert look(rows, minutes=3).labelled == ()
    with Cursor.open(rows / ".datamill/watch/cursor.db") as cursor:
        assert cursor.num_early() == 1
    assert labels_of(rows) == [""] * len(labels)


def test_labels_that_come_in_the_same_pass_as_their_items_come_with_them(rows: Path) -> None:
    table = new_rows(count=COUNT, labelled=True).to_pandas()
    table.insert(0, "key", range(COUNT))
    deliver(rows, table[["key", "kind"]])
    table.drop(columns="kind").to_csv(rows / "incoming/a.csv", index=False)
    found = look(rows)
    assert (found.labels, found.labelled) == (News(), ())
    assert labels_of(rows) == table["kind"].tolist()


def test_a_row_that_comes_again_with_its_label_fills_it_in(tables: Path) -> None:
    change_watch(tables, source__data__target="kind", drift__min_labels=30)
    table = new_rows(count=COUNT, labelled=True).to_pandas()
    table.assign(kind=None).to_csv(tables / "incoming/a.csv", index=False)
    look(tables)
    table.to_csv(tables / "incoming/a.csv", index=False)
    found = look(tables, minutes=1)
    assert found.judged is None
    assert found.labels == News(num_new=COUNT)
    assert labels_of(tables) == table["kind"].tolist()
    (judged,) = found.labelled
    assert judged.verdict.performance is not None
    assert judged.verdict.performance.estimated == 1.0


def test_an_image_moved_into_the_folder_of_its_class_is_the_same_item_with_a_label(images: Path) -> None:
    change_watch(images, source__data__labels="folder")
    keys = drop_images(images / "incoming", count=6)
    look(images)
    for key in keys[:2]:
        (images / "incoming/1").mkdir(exist_ok=True)
        (images / "incoming" / key).rename(images / "incoming/1" / key)
    os.utime(images / "incoming/1" / keys[0], (1e9, 1e9))
    found = look(images, minutes=1)
    assert found.judged is None
    assert found.labels == News(num_new=2)
    assert labels_of(images) == ["1", "1", "", "", "", ""]
    assert look(images, minutes=2).labels == News()


def test_images_of_another_folder_are_labels_by_their_content(images: Path) -> None:
    source = {"kind": "image_folder", "path": "checked", "labels": "folder"}
    change_watch(images, source__labels__data=source)
    keys = drop_images(images / "incoming", count=6)
    look(images)
    (images / "checked/2").mkdir(parents=True)
    (images / "checked/2/other name.png").write_bytes((images / "incoming" / keys[3]).read_bytes())
    assert look(images, minutes=1).labels == News(num_new=1)
    assert labels_of(images) == ["", "", "", "2", "", ""]


def test_labels_of_a_database_are_read_on_from_their_cursor(rows: Path) -> None:
    source = {
        "kind": "query", "url": "sqlite:///labels.db", "query": "labels", "cursor": "given", "overlap": 0,
        "id": "key", "target": "kind", "target_kind": "category",
    }  # fmt: skip
    change_watch(rows, source__labels__data=source)
    labels = judge_rows(rows).assign(given=range(COUNT))
    sizes = []
    for start in (0, 25):
        with sqlite3.connect(rows / "labels.db") as connection:
            labels[start : start + 25].to_sql("labels", connection, if_exists="append", index=False)
        connection.close()
        sizes.append(look(rows, minutes=1 + start).labels.num_new)
    assert sizes == [25, 25]


def test_a_source_of_labels_that_fails_delays_no_verdict_and_is_told(rows: Path) -> None:
    (rows / "labels").rmdir()
    write_csv(rows / "incoming/a.csv", new_rows(count=5).append_column("key", [["a", "b", "c", "d", "e"]]))
    found = look(rows)
    assert found.judged is not None
    (note,) = found.labels.notes
    assert note.startswith("no labels: labels does not exist")


def test_a_file_of_other_columns_waits_and_is_then_passed_over_with_a_note(rows: Path) -> None:
    judge_rows(rows)
    deliver(rows, pd.DataFrame({"a": [1]}))
    assert look(rows, minutes=1).labels == News()
    (note,) = look(rows, minutes=2).labels.notes
    assert note.startswith("labels of a.csv cannot be read: a.csv has no column ['key', 'kind'] with labels")
    assert look(rows, minutes=3).labels == News()


def test_answers_are_kept_as_long_as_labels_may_come(rows: Path) -> None:
    change_watch(rows, source__labels__wait_days=1)
    labels = judge_rows(rows)
    path = rows / "reports/windows/000001" / ANSWERS
    answers = pq.read_table(path)
    assert answers.column_names == ["content_hash", "probabilities"]
    assert (answers.num_rows, answers["probabilities"].type.list_size) == (COUNT, 3)
    look(rows, minutes=23 * 60)
    assert path.exists()
    look(rows, minutes=25 * 60)
    assert not path.exists()
    deliver(rows, labels)
    assert look(rows, minutes=25 * 60 + 1).labels == News(num_unknown=COUNT)
    look(rows, minutes=50 * 60)
    with Cursor.open(rows / ".datamill/watch/cursor.db") as cursor:
        assert (cursor.num_early(), cursor.labelled()) == (0, [])


def test_without_waiting_no_answer_is_kept_and_no_label_taken(rows: Path) -> None:
    change_watch(rows, source__labels__wait_days=0)
    deliver(rows, judge_rows(rows))
    assert not (rows / "reports/windows/000001" / ANSWERS).exists()
    assert look(rows, minutes=1).labels == News()


def test_labels_of_a_window_that_another_model_answered_are_kept_and_judge_nothing(rows: Path) -> None:
    labels = judge_rows(rows)
    with sqlite3.connect(rows / ".datamill/watch/cursor.db") as connection:
        connection.execute("UPDATE windows SET model = 'earlier'")
    connection.close()
    deliver(rows, labels)
    found = look(rows, minutes=1)
    assert (found.labels, found.labelled) == (News(num_new=COUNT), ())
    assert labels_of(rows) == labels["kind"].tolist()


def test_kept_samples_have_the_labels_that_came_since(rows: Path) -> None:
    labels = judge_rows(rows)
    assert set(read_sample(rows / "reports/windows/000001").rows["label"].to_pylist()) == {-1}
    deliver(rows, labels[:10])
    look(rows, minutes=1)
    known = read_sample(rows / "reports/windows/000001").rows["label"].to_numpy()
    assert known.tolist() == [*labels["kind"][:10].astype(int), *[-1] * (COUNT - 10)]


class KilledError(BaseException):
    """Stands for the end of the process."""


def die(*_: object, **__: object) -> None:
    """End."""
    raise KilledError


@pytest.mark.parametrize("name", ["note", "commit_labels", "mark_labels_published", "forget_labels"])
def test_a_pass_that_ends_among_the_labels_is_finished_by_the_next(
    rows: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(rows, judge_rows(rows))
    with monkeypatch.context() as patch:
        patch.setattr(Cursor, name, die)
        with pytest.raises(KilledError):
            look(rows, minutes=1)
    later = look(rows, minutes=2)
    assert later.labels.num_contradicting == later.labels.num_unknown == 0
    told = [judged for judged in untold(rows) if judged.about == "labels"]
    assert [(judged.name, judged.verdict.num_samples) for judged in told] == [("000001 (labels)", COUNT)]
    assert (rows / "reports/windows/000001/report.html").read_text().count("Labels that came later") == 1
    mark_told(rows, told[0])
    assert [judged.about for judged in untold(rows)] == ["items"]
    assert look(rows, minutes=3).labelled == ()


def test_a_pass_that_ends_before_new_items_are_noted_loses_no_label_of_theirs(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_watch(tables, source__data__target="kind")
    table = new_rows(count=30, labelled=True).to_pandas()
    table.assign(kind=None).to_csv(tables / "incoming/a.csv", index=False)
    look(tables)
    new_rows(count=5, seed=3, labelled=True).to_pandas().to_csv(tables / "incoming/b.csv", index=False)
    table.to_csv(tables / "incoming/a.csv", index=False)
    with monkeypatch.context() as patch:
        patch.setattr(watching.Cursor, "commit", die)
        with pytest.raises(KilledError):
            look(tables, minutes=1)
    look(tables, minutes=2)
    assert labels_of(tables) == table["kind"].tolist()
    with Cursor.open(tables / ".datamill/watch/cursor.db") as cursor:
        assert [(one.number, one.num_labels) for one in cursor.labelled()] == [(2, 5), (1, 30)]


def test_verdicts_of_labels_share_the_months_allowance_with_windows(rows: Path) -> None:
    deliver(rows, judge_rows(rows))
    look(rows, minutes=1)
    with Cursor.open(rows / ".datamill/watch/cursor.db") as cursor:
        assert cursor.control()["num_windows"] == 2


def test_a_folder_of_labels_must_name_classes(rows: Path) -> None:
    change_watch(rows, source__labels__data={"kind": "image_folder", "path": "checked", "labels": "none"})
    with pytest.raises(config.ParamsError, match="a source of labels needs folder: sub-folders that name classes"):
        load_watch(rows)


def test_more_labels_than_a_pass_takes_come_with_the_next(rows: Path) -> None:
    labels = judge_rows(rows)
    change_watch(rows, source__max_items=25)
    for number in range(3):
        deliver(rows, labels[number * 20 : (number + 1) * 20], name=f"{number}.csv")
    taken = [look(rows, minutes=1 + minutes).labels.num_new for minutes in range(3)]
    assert np.cumsum(taken).tolist() == [40, 60, 60]
