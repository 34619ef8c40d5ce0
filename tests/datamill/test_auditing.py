import csv
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from datamill import auditing
from datamill.auditing import Judgement
from tests.builders import image_table, tabular_table

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

NUM_FOLDS = 5
HELD_OUT = -1


def blobs(*, num_train: int, num_held_out: int = 0, seed: int = 0) -> tuple[Floats, Numbers, NDArray[np.int8]]:
    """Points of three separable classes, their labels, and folds."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_train + num_held_out) % 3
    points = np.eye(3)[labels] * 6 + rng.normal(0, 0.8, (len(labels), 3))
    folds = np.concatenate([rng.integers(0, NUM_FOLDS, num_train), np.full(num_held_out, HELD_OUT)]).astype(np.int8)
    return points, labels, folds


def judge(
    points: Floats, labels: Numbers, folds: NDArray[np.int8], *, num_classes: int = 3, **changes: object
) -> Judgement:
    probabilities = auditing.out_of_sample(
        points, labels=labels, folds=folds, num_classes=num_classes, build=lambda _: LogisticRegression(), num_workers=1
    )
    params = {"method": "prune_by_noise_rate", "min_quality": 1.0, **changes}
    return auditing.judge_labels(probabilities, labels=labels, folds=folds, **params)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["prune_by_noise_rate", "prune_by_class", "both", "confident_learning"])
def test_planted_label_errors_are_found_and_few_others(method: str) -> None:
    points, labels, folds = blobs(num_train=600, num_held_out=300)
    planted = np.random.default_rng(1).permutation(900)[:45]
    noisy = labels.copy()
    noisy[planted] = (labels[planted] + 1) % 3
    judgement = judge(points, noisy, folds, method=method)
    found = np.flatnonzero(judgement.is_issue)
    assert len(set(found) & set(planted)) >= 40
    assert len(set(found) - set(planted)) <= 5
    assert judgement.suggestion[found].tolist() == labels[found].tolist()


def test_clean_separable_labels_raise_almost_no_doubt() -> None:
    judgement = judge(*blobs(num_train=600))
    assert judgement.is_issue.sum() <= 3
    assert np.median(judgement.quality) > 0.95


def test_a_label_of_enough_quality_is_left_alone() -> None:
    points, labels, folds = blobs(num_train=300)
    labels[:10] = (labels[:10] + 1) % 3
    judgement = judge(points, labels, folds, min_quality=1e-9)
    assert not judgement.is_issue.any()


def test_no_sample_is_judged_by_a_model_that_saw_it() -> None:
    seen: list[set[float]] = []

    class Spy(LogisticRegression):
        def fit(self, X: Floats, y: Numbers) -> "Spy":
            seen.append(set(X[:, 0].tolist()))
            super().fit(X, y)
            return self

        def predict_proba(self, X: Floats) -> Floats:
            assert not seen[-1] & set(X[:, 0].tolist())
            return np.asarray(super().predict_proba(X))

    points, labels, folds = blobs(num_train=60, num_held_out=20)
    auditing.out_of_sample(points, labels=labels, folds=folds, num_classes=3, build=lambda _: Spy(), num_workers=1)
    assert len(seen) == NUM_FOLDS + 1


def test_held_out_labels_do_not_change_what_train_learns() -> None:
    points, labels, folds = blobs(num_train=150, num_held_out=60)
    labels[:8] = (labels[:8] + 1) % 3
    other = labels.copy()
    other[150:] = 0
    first, second = judge(points, labels, folds), judge(points, other, folds)
    assert first.is_issue[:150].tolist() == second.is_issue[:150].tolist()
    assert first.quality[:150].tolist() == second.quality[:150].tolist()


def test_a_class_smaller_than_the_folds_is_neither_judged_nor_suggested() -> None:
    points, labels, folds = blobs(num_train=150)
    labels[:4] = 3
    judgement = judge(points, labels, folds, num_classes=5)
    assert np.isnan(judgement.quality[:4]).all()
    assert judgement.suggestion[:4].tolist() == [-1] * 4
    assert set(judgement.suggestion[4:].tolist()) == {0, 1, 2}


def test_one_class_alone_is_not_judged() -> None:
    points, labels, folds = blobs(num_train=30)
    judgement = judge(points, np.zeros_like(labels), folds)
    assert np.isnan(judgement.quality).all()
    assert not judgement.is_issue.any()


def test_the_number_of_workers_does_not_change_a_bit() -> None:
    dataset, table = image_table()
    labels = np.array([int(label) for label in table["label"].to_pylist()])
    folds = (np.arange(len(labels)) % 4).astype(np.int8)
    observations = auditing.observe([table], dataset=dataset)
    one, two = (
        auditing.out_of_sample(
            observations,
            labels=labels,
            folds=folds,
            num_classes=3,
            build=partial(auditing.build_model, dataset=dataset),
            num_workers=workers,
        )
        for workers in (1, 2)
    )
    assert np.array_equal(one, two)
    assert (one.argmax(axis=1) == labels).mean() == 1.0


def test_tables_with_holes_and_categories_are_observed() -> None:
    dataset, table = tabular_table()
    judgement = auditing.audit_labels(
        [table.slice(0, 40), table.slice(40)],
        dataset=dataset,
        labels=table["label"].to_pylist(),
        folds=(np.arange(64) // 3 % 4 - 1).astype(np.int8),
        method="prune_by_noise_rate",
        min_quality=1.0,
        num_workers=1,
    )
    assert judgement.suggestion.tolist() == [row % 3 for row in range(64)]


def verdicts(quality: list[float], issues: list[bool]) -> Judgement:
    return Judgement(
        quality=np.array(quality, np.float32), suggestion=np.zeros(len(quality), np.int64), is_issue=np.array(issues)
    )


def test_the_policy_touches_the_worst_of_train_up_to_its_share_and_flags_the_rest() -> None:
    judgement = verdicts([0.3, 0.1, 0.2, 0.0, 0.9], [True, True, True, True, False])
    is_train = np.array([True, True, True, False, True])
    actions = auditing.choose_actions(judgement, is_train=is_train, policy="drop", max_share=0.5)
    assert actions == ["flag", "drop", "drop", "flag", ""]


def test_suspects_are_listed_worst_first_up_to_the_limit(tmp_path: Path) -> None:
    ids = ["a", "b", "c", "d"]
    rows = pa.table({"sample_id": ids, "source": [f"{name}.png" for name in ids], "label": ["x"] * 4})
    audited = auditing.tabulate(
        verdicts([0.3, 0.1, 0.2, 0.9], [True, True, True, False]),
        actions=["drop", "flag", "drop", ""],
        rows=rows,
        splits=pa.chunked_array([["train", "test", "train", "train"]]),
        classes=("y", "x"),
    )
    auditing.write_suspects(tmp_path / "suspects.csv", audited=audited, limit=2)
    with (tmp_path / "suspects.csv").open() as file:
        listed = list(csv.reader(file))
    assert listed == [
        ["sample_id", "source", "split", "label", "suggestion", "quality", "action"],
        ["b", "b.png", "test", "x", "y", "0.100000", "flag"],
        ["c", "c.png", "train", "x", "y", "0.200000", "drop"],
    ]
    assert audited["detail"].to_pylist()[0] == "labelled 'x', looks like 'y', quality 0.3000"
