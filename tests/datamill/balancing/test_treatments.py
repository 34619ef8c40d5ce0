from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from datamill.balancing import treatments
from datamill.balancing.planning import Population, measure
from datamill.errors import DataError
from datamill.preprocessing import NumberColumn, TabularPreprocessor, fitting
from tests.builders import tabular_table


def population(labels: list[str], *, held_out: int = 0, generated: int = 0) -> Population:
    """Training samples, then held-out ones, then generated ones, by class."""
    count = len(labels)
    classes = tuple(sorted(set(labels)))
    start = count - held_out - generated
    return Population(
        classes=classes,
        labels=np.array([classes.index(label) for label in labels], np.int32),
        is_train=np.array([True] * start + [False] * held_out + [True] * generated),
        weight=np.ones(count, np.float32),
        num_judged=count - generated,
    )


def names(people: Population, numbers: Any) -> list[str]:
    return [people.classes[number] for number in numbers]


def uneven() -> tuple[Population, pa.Table, TabularPreprocessor]:
    """64 rows in train, of which class 2 keeps 5."""
    dataset, table = tabular_table()
    rare = [row for row in range(64) if row % 3 != 2 or row < 15]
    table = table.take(rare)
    fitted = fitting.fit_tabular(
        lambda columns: [table.select(["sample_id", *columns])],
        dataset=dataset,
        numeric="standardise",
        categorical="one_hot",
        impute="mean",
        num_neighbors=3,
        max_reference=10,
        max_categories=10,
        seed=0,
    )
    return population(table["label"].to_pylist()), table, fitted


def oversample(people: Population, table: pa.Table, fitted: TabularPreprocessor, **changes: Any) -> Any:
    params = {"method": "smote", "ratio": 1.0, "num_neighbors": 3, "seed": 0, **changes}
    return treatments.oversample(people, tables=[table.slice(0, 20), table.slice(20)], preprocessor=fitted, **params)


def test_class_factors_make_classes_weigh_the_same() -> None:
    factors = treatments.class_factors({"a": 6, "b": 2}, max_factor=100)
    assert factors == {"a": pytest.approx(2 / 3), "b": 2.0}


def test_class_factors_are_capped() -> None:
    assert treatments.class_factors({"a": 99, "b": 1}, max_factor=10)["b"] == 10


@pytest.mark.parametrize(
    ("method", "touched", "untouched"), [("class_weights", "weight", "draw"), ("weighted_sampling", "draw", "weight")]
)
def test_reweighing_touches_train_and_one_of_weight_and_draw(method: Any, touched: str, untouched: str) -> None:
    people = population(["a", "a", "a", "b", "b", "b"], held_out=2)
    treatment = treatments.reweigh(people, method=method, max_factor=100)
    assert getattr(treatment, touched).tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2.0, 1.0, 1.0])
    assert getattr(treatment, untouched).tolist() == [1.0] * 6


def test_none_changes_nothing() -> None:
    treatment = treatments.reweigh(population(["a", "a", "b"]), method="none", max_factor=100)
    assert (treatment.weight.tolist(), treatment.draw.tolist(), treatment.removed.size) == ([1.0] * 3, [1.0] * 3, 0)
    assert treatment.made is None


@pytest.mark.parametrize(("ratio", "expected"), [(1.0, {"b": 7, "c": 9}), (0.4, {"b": 1, "c": 3}), (0.1, {})])
def test_shortfalls_reach_the_ratio(ratio: float, expected: dict[str, int]) -> None:
    assert treatments.shortfalls({"a": 10, "b": 3, "c": 1}, ratio=ratio) == expected


def test_under_sampling_reaches_the_ratio_and_spares_what_is_not_train() -> None:
    people = population(["a"] * 20 + ["b"] * 5 + ["a"] * 10, held_out=10)
    treatment = treatments.undersample(people, ratio=0.5, min_rows=1, seed=0)
    assert Counter(names(people, people.labels[treatment.removed])) == {"a": 10}
    assert people.is_train[treatment.removed].all()


def test_under_sampling_leaves_the_rows_asked_for() -> None:
    treatment = treatments.undersample(population(["a"] * 20 + ["b"]), ratio=1.0, min_rows=8, seed=0)
    assert len(treatment.removed) == 12


def test_under_sampling_even_classes_removes_nothing() -> None:
    assert treatments.undersample(population(["a", "b"] * 4), ratio=1.0, min_rows=1, seed=0).removed.size == 0


def test_over_sampling_evens_out_the_classes_of_train() -> None:
    people, table, fitted = uneven()
    treatment = oversample(people, table, fitted)
    assert measure(people, treatment)["classes"] == {
        "0": {"before": 22, "after": 22},
        "1": {"before": 21, "after": 22},
        "2": {"before": 5, "after": 22},
    }
    parents = {parent for pair in treatment.made.parents[1:] for parent in pair}
    assert {people.classes[people.labels[parent]] for parent in parents} == {"2"}


def test_generated_samples_count_and_are_not_interpolated() -> None:
    people, table, fitted = uneven()
    more = population([*names(people, people.labels), *["2"] * 10], generated=10)
    treatment = oversample(more, table, fitted)
    assert Counter(names(more, treatment.made.labels)) == {"1": 1, "2": 7}
    assert all(parent < table.num_rows for pair in treatment.made.parents for parent in pair)


def test_tomek_links_are_nearest_neighbours_of_different_classes() -> None:
    matrix = np.array([[0.0], [1.0], [5.0], [5.1], [9.0], [10.0]], np.float32)
    labels = np.array([0, 0, 0, 1, 1, 1], np.int32)
    assert treatments.tomek_links(matrix, labels=labels).tolist() == [2, 3]


def test_tomek_links_never_remove_a_whole_class() -> None:
    matrix = np.array([[0.0], [1.0], [5.0], [5.1]], np.float32)
    assert treatments.tomek_links(matrix, labels=np.array([0, 0, 0, 1], np.int32)).tolist() == [2]


def test_tomek_links_need_two_classes() -> None:
    assert treatments.tomek_links(np.zeros((3, 1), np.float32), labels=np.zeros(3, np.int32)).size == 0


def test_smote_tomek_removes_originals_that_sit_in_another_class() -> None:
    size = NumberColumn(name="size", fill=0.0, offset=0.0, scale=1.0)
    fitted = TabularPreprocessor(numbers=(size,), categories=(), encoding="one_hot", num_neighbors=None, reference=())
    table = pa.table({"sample_id": list("abcdefgh"), "feature:size": [0.0, 1.0, 2.0, 9.1, 9.0, 9.5, 10.0, 11.0]})
    treatment = treatments.oversample(
        population(["a"] * 4 + ["b"] * 4),
        tables=[table],
        preprocessor=fitted,
        method="smote_tomek",
        ratio=1.0,
        num_neighbors=2,
        seed=0,
    )
    assert treatment.removed.tolist() == [3, 4]
    assert treatment.made is not None
    assert treatment.made.labels.tolist() == []


def test_new_samples_name_their_parents_and_source() -> None:
    people, table, fitted = uneven()
    treatment = oversample(people, table, fitted)
    rows = pa.concat_tables(
        treatments.resampled_tables(people, treatment, preprocessor=fitted, method="smote")
    ).to_pylist()
    assert [row["source"] for row in rows[:2]] == ["balance:smote:0", "balance:smote:1"]
    assert len({row["sample_id"] for row in rows}) == len(rows) == 18
    assert {row["origin"] for row in rows} == {"resampled"}
    assert all(set(row["parents"]) <= set(table["sample_id"].to_pylist()) and row["parents"] for row in rows)
    assert {row["feature:colour"] for row in rows if row["label"] == "2"} == {"blue"}


def test_a_matrix_that_is_too_large_is_refused() -> None:
    people, _, fitted = uneven()
    with pytest.raises(DataError, match=r"balance.method 'smote' needs 48 x 6 = 288 numbers .* use 'class_weights'"):
        treatments.require_fits(people, preprocessor=fitted, method="smote", max_values=287)
    treatments.require_fits(people, preprocessor=fitted, method="smote", max_values=288)
