import numpy as np
import pyarrow as pa
import pytest

from datamill.lineage.causes import source_changes
from datamill.lineage.changes import changed_files, leading, parameter_changes
from datamill.lineage.pairing import pair
from datamill.lineage.ranking import Movement, rank
from datamill.lineage.roster import Roster
from datamill.samples import Dataset
from tasks import PIPELINE

COUNT = 120


def roster(rows, *, rejects=None):
    """A roster of (source, content, label, group) rows; every fourth is in test, the others in train."""
    sources, contents, labels, groups = (list(column) for column in zip(*rows, strict=True))
    splits = np.array([2 if int(content) % 4 == 3 else 0 for content in contents], np.int8)
    return Roster(
        dataset=Dataset(name="x", modality="tabular", classes=tuple(sorted(set(labels)))),
        ids=pa.array([f"{source}/{content}" for source, content in zip(sources, contents, strict=True)]),
        sources=pa.array(sources),
        contents=pa.array([str(content) for content in contents]),
        labels=pa.array(labels),
        groups=pa.array(groups, pa.string()),
        splits=splits,
        decisions={},
        rejects=rejects or {},
    )


def rows(*, folder="{label}/b{batch}", change=lambda row, number: row):
    """120 rows of three classes in four batches."""
    made = []
    for number in range(COUNT):
        label = "abc"[number % 3]
        row = (f"{folder.format(label=label, batch=number // 30)}/{number}.png", number, label, None)
        made.append(change(row, number))
    return [row for row in made if row is not None]


def titles(before, after, **rejects):
    a, b = roster(before), roster(after, **rejects)
    return [one.title for one in source_changes(a, b, pairs=pair(a, b))]


def test_equal_sources_have_no_changes():
    assert titles(rows(), rows()) == []


def test_a_file_moved_into_another_class_is_relabelled_and_not_lost():
    def move(row, number):
        return (f"b/b0/{number}.png", number, "b", None) if number in (0, 3, 6, 9, 12, 15) else row

    assert titles(rows(), rows(change=move)) == ["6 rows labelled otherwise: a -> b"]


def test_a_class_that_every_row_left_is_renamed():
    def rename(row, number):
        return (row[0].replace("c/", "sea/"), number, "sea", None) if row[2] == "c" else row

    assert titles(rows(), rows(change=rename)) == ["class c is called sea now"]


def test_rows_lost_in_one_folder_name_the_folder_and_stragglers_stand_apart():
    found = titles(rows(), rows(change=lambda row, number: None if "/b1/" in row[0] or number in (0, 70) else row))
    assert found == ["30 rows removed in folder b1", "2 rows removed"]


def test_files_that_became_rejects_are_told_by_reason():
    gone = {5: "truncated", 6: "truncated", 50: "not_an_image"}
    refused = {row[0]: gone[number] for number, row in enumerate(rows()) if number in gone}
    found = titles(rows(), rows(change=lambda row, number: None if number in gone else row), rejects=refused)
    assert found == ["1 row can no longer be read: not_an_image", "2 rows can no longer be read: truncated"]


def test_other_content_under_the_same_key_is_changed():
    found = titles(
        rows(), rows(change=lambda row, number: (row[0], number + 1000, *row[2:]) if "/b2/" in row[0] else row)
    )
    assert found == ["30 rows with other content in folder b2"]


def test_another_group_and_another_name_are_told_apart():
    regrouped = rows(change=lambda row, number: (*row[:3], "g2") if number < 8 else row)
    assert titles(rows(), regrouped) == ["8 rows in another group in folder b0"]
    renamed = rows(change=lambda row, number: (row[0].replace(".png", ".PNG"), *row[1:]) if number == 3 else row)
    assert titles(rows(), renamed) == ["1 row under another source key, with equal content"]


def test_added_copies_are_called_copies():
    copies = [(f"a/b9/copy{number}.png", number, "abc"[number % 3], None) for number in range(0, 30, 3)]
    assert titles(rows(), [*rows(), *copies]) == ["10 rows added: exact copies of rows that were there"]


def test_every_changed_row_is_in_exactly_one_cause():
    def mix(row, number):
        if number % 10 == 0:
            return None
        return (row[0], number, "b", None) if number % 10 == 1 and row[2] == "a" else row

    a, b = roster(rows()), roster(rows(change=mix))
    found = source_changes(a, b, pairs=pair(a, b))
    touched = np.concatenate([one.rows_a for one in found])
    assert len(touched) == len(set(touched.tolist())) == 12 + 4


def test_parameters_and_files_are_compared_by_name():
    assert parameter_changes({"a": 1, "b": [2]}, {"a": 1, "b": [3], "c": None}) == ["b [2] -> [3]", "c unset -> None"]
    assert changed_files({"x.py": "1", "y.py": "2"}, {"x.py": "9", "z.py": "3"}) == [
        "x.py",
        "y.py (gone)",
        "z.py (new)",
    ]


def test_what_leads_to_the_predictions_is_read_from_the_stages():
    found = leading(PIPELINE)
    assert found["evaluate"] == {"data/evaluate/predictions.parquet"}
    assert "models/train/last.safetensors" not in found["train"]
    assert "export" not in found
    assert "diagnose" not in found


def movement(a, b, *, model=0.0, gross=0.0, by_class=None, rows_a=None):
    num = dict.fromkeys("abc", 10)
    return Movement(
        np.zeros(len(a)) if rows_a is None else rows_a,
        np.zeros(len(b)),
        model,
        gross,
        by_class or dict.fromkeys("abc", 0.0),
        num,
    )


def test_what_causes_account_for_sums_to_the_difference_and_the_class_that_moved_weighs_more():
    after = rows(change=lambda row, number: None if number in (0, 3, 6, 9, 12, 40, 43, 46, 49, 52) else row)
    a, b = roster(rows()), roster(after)
    causes = source_changes(a, b, pairs=pair(a, b))
    assert len(causes) == 1
    everywhere = rank(causes, a=a, b=b, movement=movement(a, b, model=-0.3, gross=0.3))
    assert everywhere[0].judged == pytest.approx(-0.3)
    moved = movement(a, b, model=-0.3, gross=0.3, by_class={"a": -0.5, "b": 0.0, "c": 0.0})
    assert rank(causes, a=a, b=b, movement=moved)[0].lift > 1


def test_what_a_causes_own_test_samples_account_for_is_exact():
    a, b = roster(rows()), roster(rows(change=lambda row, number: None if number in (3, 7, 11, 15, 19) else row))
    rows_a = np.zeros(len(a))
    rows_a[[3, 7]] = 0.02
    (one,) = rank(source_changes(a, b, pairs=pair(a, b)), a=a, b=b, movement=movement(a, b, rows_a=rows_a))
    assert (one.exact, one.judged) == (pytest.approx(0.04), 0)
    assert one.touched == {"train": 0, "validation": 0, "test": 5, "all": 5}
