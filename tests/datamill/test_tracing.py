import json
import sqlite3

import pyarrow as pa
import pytest

from datamill import catalog
from datamill.errors import DataError
from datamill.tracing import _comes_from, find_sample, trace
from tasks import PIPELINE
from tests.builders import tabular_table, write_parts
from tests.lineages import write_workspace


@pytest.fixture
def root(tmp_path):
    return write_workspace(tmp_path / "ws", drop=[3], audited=[8], wrong=[5])


def told(text, root):
    trail = trace(text, stages=PIPELINE, root=root)
    return trail.title, {chapter.stage: chapter.facts for chapter in trail.chapters}


def test_a_sample_is_told_from_its_source_to_what_was_predicted(root):
    title, facts = told("item-0005", root)
    assert title == f"sample {find_sample('item-0005', stages=PIPELINE, root=root)}"
    assert facts["split"]["split"] == "test"
    assert facts["evaluate"]["probabilities"] == "0 0.8000, 1 0.1000, 2 0.1000"
    assert facts["evaluate"]["predicted"] == "0"


def test_a_row_of_a_shard_leads_to_its_sample(root):
    assert told("test:0", root) == told("shard:test:0", root) == told("item-0005", root)


def test_a_source_tells_of_its_samples_where_they_ended_and_of_its_rejects(root):
    title, facts = told("source:item-0003", root)
    assert title == "source item-0003"
    assert facts["ingest"] == {"fate": "rejected", "source": "item-0003", "reason": "bad_row", "message": "no target"}
    assert told("source:item-0008", root)[1]["item-0008"] == {"label": "2", "ends": "dropped"}


def test_a_prediction_is_refused_for_a_sample_that_was_not_predicted(root):
    assert told("prediction:item-0005", root)[0].startswith("sample ")
    with pytest.raises(DataError, match="was not predicted: it is in train, and validation and test samples are"):
        told("prediction:item-0000", root)


def test_a_model_is_told_by_data_parameters_code_and_how_good_it_was(root):
    title, facts = told("model:workspace", root)
    assert title == "model of the workspace"
    assert facts["train"]["epochs"] == 30
    assert facts["train"]["code"] == "not on record"
    assert facts["measured"]["samples"] == 24


def write_window(root, *, window="000007", fingerprint="beef0123"):
    outcome = {"kind": "input", "detector": "ks", "subject": "height", "effect_name": "wasserstein", "effect": 0.4}
    outcomes = [{**outcome, "p_value": 0.001, "is_drift": True}, {**outcome, "p_value": 0.5, "is_drift": False}]
    performance = {"metric": "accuracy", "reference": 0.9, "estimated": 0.7}
    verdict = {"num_samples": 12, "num_reference": 50, "outcomes": outcomes, "performance": performance}
    folder = root / "reports/windows" / window
    folder.mkdir(parents=True)
    content = {"window": window, "judged_at": "2026-03-01T12:00:00+00:00", "model": "m1", "verdict": verdict}
    (folder / "verdict.json").write_text(json.dumps({**content, "is_drift": True, "is_at_risk": True}))
    change = {"event": "raised", "severity": "page", "topic": "performance-at-risk", "fingerprint": fingerprint}
    body = {
        "window": window,
        "model": "m1",
        "at": "2026-03-01T12:00:00Z",
        "links": {"report": "r"},
        "changes": [change],
    }
    path = root / ".datamill/watch/alerts.db"
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE windows (number INTEGER PRIMARY KEY, body TEXT)")
        database.execute("INSERT INTO windows (body) VALUES (?)", (json.dumps(body),))
    database.close()


def test_a_window_tells_what_moved_and_which_alert_it_raised(root):
    write_window(root)
    title, facts = told("window:7", root)
    assert title == "window 000007"
    assert facts["window"]["samples"] == 12
    assert facts["input drift"]["p_value"] == 0.001
    assert facts["alert"]["fingerprint"] == "beef0123"


def test_a_window_tells_what_its_labels_showed_later_and_what_they_raised(root):
    write_window(root)
    estimate = {"metric": "accuracy", "estimated": 0.6, "is_measured": True}
    later = {"num_samples": 60, "outcomes": [], "performance": estimate}
    content = {"judged_at": "2026-03-09T12:00:00+00:00", "is_drift": False, "is_at_risk": True, "verdict": later}
    (root / "reports/windows/000007/labels.json").write_text(json.dumps(content))
    with sqlite3.connect(root / ".datamill/watch/alerts.db") as database:
        database.execute("UPDATE windows SET body = replace(body, '\"000007\"', '\"000007 (labels)\"')")
    database.close()
    _, facts = told("window:7", root)
    assert facts["labels"] == {
        "judged_at": "2026-03-09T12:00:00+00:00", "is_drift": False, "is_at_risk": True, "labels": 60,
    }  # fmt: skip
    assert facts["performance"]["estimated"] == 0.6
    assert facts["alert"]["fingerprint"] == "beef0123"
    assert told("alert:beef", root)[1]["input drift"]["p_value"] == 0.001


def test_an_alert_tells_its_windows_and_what_was_found_there(root):
    write_window(root)
    title, facts = told("alert:beef", root)
    assert title == "alert beef0123"
    assert facts["alert"]["event"] == "raised"
    assert facts["performance"]["estimated"] == 0.7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nobody", "no sample has an id that begins with, or a source that ends with, 'nobody'; for other things say"),
        ("train:99", "the shard of train has no row 99: it has 30, the first is 0"),
        ("shard:train", "shard:train is no row of a shard; write it as train:12"),
        ("source:other.csv", "no sample and no reject comes from a source called 'other.csv'"),
        ("alert:beef", "alerts.db is missing: nothing was watched here yet"),
        ("window:7", "no window is called '7' below .*; the latest there: none"),
        ("model:zzz", "no run is called 'zzz': searched runs on record"),
    ],
)
def test_what_is_not_found_says_what_was_searched(root, text, message):
    with pytest.raises(DataError, match=message):
        told(text, root)


def test_an_alert_that_fits_none_lists_those_there_are(root):
    write_window(root)
    with pytest.raises(DataError, match="0 alerts have a fingerprint that begins with 'cafe'; there are beef0123"):
        told("alert:cafe", root)


def test_before_anything_ran_a_shard_says_which_stage_writes_it(tmp_path):
    with pytest.raises(DataError, match=f"{catalog.SHARD_LEDGER.path} is missing, so no shard can be searched"):
        trace("train:1", stages=PIPELINE, root=tmp_path)


def test_the_sample_whose_key_it_is_comes_before_those_that_end_alike(tmp_path):
    dataset, table = tabular_table()
    sources = pa.array([f"rows.csv#{number}" for number in range(table.num_rows)])
    table = table.set_column(table.column_names.index("source"), "source", sources)
    write_parts(tmp_path / catalog.INGEST_SAMPLES.path, dataset, table)
    ids = table["sample_id"].to_pylist()
    assert find_sample("2", stages=PIPELINE, root=tmp_path) == ids[2]
    assert find_sample("rows.csv#2", stages=PIPELINE, root=tmp_path) == ids[2]
    with pytest.raises(
        DataError, match=r"64 samples fit ''; name one by its id, such as:\n(  \w+  rows.csv#\d+\n?){5}$"
    ):
        find_sample("", stages=PIPELINE, root=tmp_path)


@pytest.mark.parametrize(
    ("source", "is_from"),
    [
        ("a/b.csv", True),
        ("a/b.csv#9f#0", True),
        ("a/b.csv:12", True),
        ("b.csv/x", True),
        ("a/bb.csv", False),
        ("a/b.csvx", False),
    ],
)
def test_rows_and_rejected_lines_come_from_their_file(source, is_from):
    assert _comes_from(pa.array([source]), "b.csv").to_pylist() == [is_from]
