import pytest

from datamill.errors import DataError, ParamsError
from datamill.lineage import telling
from datamill.lineage.explaining import explain
from datamill.lineage.runs import find_run
from tasks import PIPELINE
from tests.lineages import split_of, write_workspace

TEST_ROWS = [row for row in range(64) if split_of(row) == "test"]  # 24 of them


def why(tmp_path, *, metric="accuracy", before=None, **after):
    roots = write_workspace(tmp_path / "a", **(before or {})), write_workspace(tmp_path / "b", **after)
    runs = [find_run(str(root), stages=PIPELINE, root=root) for root in roots]
    return explain(*runs, metric=metric, stages=PIPELINE)


def titles(found):
    return [one.cause.title for one in found.ranked]


def test_equal_runs_have_no_cause(tmp_path):
    found = why(tmp_path)
    assert (found.difference, found.ranked, found.followed) == (0, (), ())
    assert "Nothing that leads to the number differs" in telling.to_markdown(found)


def test_rows_that_the_source_lost_are_rejects_by_reason_and_account_exactly(tmp_path):
    dropped = TEST_ROWS[:6]
    found = why(tmp_path, before={"wrong": dropped}, drop=dropped)
    assert (found.value_a, found.value_b) == (0.75, 1.0)
    assert titles(found) == ["6 rows can no longer be read: bad_row"]
    assert found.ranked[0].touched == {"train": 0, "validation": 0, "test": 6, "all": 6}
    assert found.ranked[0].exact == pytest.approx(0.25)
    assert found.decomposition.parts["model"] == pytest.approx(0)
    assert found.sizes["rejects"] == (0, 6)


def test_a_relabelled_class_is_named_by_both_names(tmp_path):
    ones = [row for row in range(64) if row % 3 == 1]
    found = why(tmp_path, relabel=dict.fromkeys(ones, "2"))
    assert titles(found) == ["class 1 was merged into 2"]


def test_labels_flipped_in_one_class_name_the_class(tmp_path):
    flipped = [row for row in range(64) if row % 3 == 1][:8]
    found = why(tmp_path, relabel=dict.fromkeys(flipped, "0"))
    assert titles(found) == ["8 rows labelled otherwise: 1 -> 0"]
    assert found.ranked[0].cause.detail == "38.1% of 21 there"


def test_a_parameter_is_named_with_both_values_and_ranked_before_a_few_rows(tmp_path):
    found = why(tmp_path, params={"train": {"epochs": 3}}, wrong=TEST_ROWS[:12], drop=[0])
    assert titles(found)[0] == "train.epochs 30 -> 3"
    assert found.ranked[0].cause.is_everywhere
    assert sum(one.total for one in found.ranked) == pytest.approx(found.difference, abs=1e-12)


def test_a_parameter_that_leads_nowhere_is_listed_apart(tmp_path):
    found = why(tmp_path, params={"evaluate": {"num_mistakes": 3}, "export": {"batch_size": 7}}, wrong=TEST_ROWS[:1])
    assert found.without_effect == (
        "parameter evaluate.num_mistakes 24 -> 3",
        "parameter export.batch_size 512 -> 7",
    )
    assert found.ranked == ()
    assert any("Nothing on record differs" in note for note in found.notes)


def test_a_policy_touches_the_samples_it_decides_otherwise_about(tmp_path):
    audited = [row for row in range(64) if split_of(row) == "train"][:8]
    found = why(tmp_path, params={"audit": {"policy": "drop"}}, audited=audited, wrong=TEST_ROWS[:2])
    assert titles(found) == ["audit.policy flag -> drop"]
    assert found.ranked[0].touched["train"] == 8
    assert found.ranked[0].share == 0.25
    (stage,) = [one for one in found.followed if one.stage == "audit"]
    assert (stage.count, stage.num_own) == (8, 8)
    assert stage.transitions == (("kept, no reason", "dropped, label_issue", 8),)


def test_a_new_split_is_behind_the_samples_that_moved(tmp_path):
    found = why(tmp_path, params={"split": {"seed": 8}}, splits=lambda row: split_of(row + 1), wrong=TEST_ROWS[:3])
    assert titles(found) == ["split.seed 7 -> 8"]
    assert found.ranked[0].exact == pytest.approx(sum(found.decomposition.parts[one] for one in ("left", "joined")))


def test_classes_say_where_the_model_moved(tmp_path):
    wrong = [row for row in TEST_ROWS if row % 3 == 2]
    found = why(tmp_path, params={"train": {"seed": 1}}, wrong=wrong)
    moved = {one.name: one.share for one in found.classes}
    assert moved["2"] == pytest.approx(found.difference)
    assert moved["0"] == moved["1"] == 0
    assert [(one.property, one.value, one.accuracy_a, one.accuracy_b) for one in found.slices] == [("class", "2", 1, 0)]


def test_the_other_split_and_another_metric_can_be_asked_for(tmp_path):
    found = why(tmp_path, metric="validation.log_loss", wrong=[4], params={"train": {"seed": 1}})
    assert found.metric == "validation log_loss"
    assert found.difference == pytest.approx((2.302585 - 0.223144) / 8, abs=1e-5)
    assert sum(found.decomposition.parts.values()) == pytest.approx(found.difference)


def test_a_metric_that_does_not_exist_lists_those_that_do(tmp_path):
    with pytest.raises(ParamsError, match=r"no metric is called 'acuracy'; there are accuracy, precision"):
        why(tmp_path, metric="acuracy")


def test_a_run_without_predictions_says_what_makes_them(tmp_path):
    a, b = (write_workspace(tmp_path / name) for name in "ab")
    (b / "data/evaluate/predictions.parquet").unlink()
    runs = [find_run(str(root), stages=PIPELINE, root=root) for root in (a, b)]
    with pytest.raises(
        DataError, match=r"workspace b has no data/evaluate/predictions.parquet; `datamill run` makes it"
    ):
        explain(*runs, metric="accuracy", stages=PIPELINE)


def test_a_split_without_samples_and_predictions_of_another_run_are_refused(tmp_path):
    with pytest.raises(DataError, match="workspace b has no predictions of validation, so there is nothing to compare"):
        why(tmp_path, metric="validation.accuracy", splits=lambda row: split_of(row).replace("validation", "train"))
    roots = tmp_path / "a", write_workspace(tmp_path / "c", drop=[5])
    path = "data/evaluate/predictions.parquet"
    (roots[1] / path).write_bytes((roots[0] / path).read_bytes())
    runs = [find_run(str(root), stages=PIPELINE, root=root) for root in roots]
    with pytest.raises(DataError, match="workspace c: 1 of 24 predictions of test are for samples of another run"):
        explain(*runs, metric="accuracy", stages=PIPELINE)


def test_the_page_names_the_cause_in_markdown_and_html_and_needs_no_other_file(tmp_path):
    found = why(tmp_path, params={"train": {"epochs": 3}}, wrong=TEST_ROWS[:12])
    assert "train.epochs 30 -\\> 3" in telling.to_markdown(found)
    telling.write_html(tmp_path / "why.html", found)
    page = (tmp_path / "why.html").read_text()
    assert "train.epochs 30 -&gt; 3" in page
    assert "<svg" in page
    assert 'src="http' not in page
    assert "figures/" not in page


def test_a_class_name_from_the_data_is_shown_and_not_obeyed(tmp_path):
    found = why(tmp_path, params={"export": {"card": {"title": "<script>alert(1)</script>"}}})
    telling.write_html(tmp_path / "why.html", found)
    assert "<script>" not in (tmp_path / "why.html").read_text()
