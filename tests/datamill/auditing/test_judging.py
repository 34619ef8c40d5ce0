from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from datamill import features
from datamill.auditing import judging
from datamill.auditing import roster as rosters
from datamill.auditing.judging import Judgement, ProbabilityFile
from datamill.auditing.linear import simplified
from tests.builders import image_table, tabular_table
from tests.datamill.auditing.rosters import roster_of

Floats = NDArray[np.float64]
Numbers = NDArray[np.int32]
Folds = NDArray[np.int8]

NUM_FOLDS = 5
METHODS = ["prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given"]


def blobs(*, num_train: int, num_held_out: int = 0, seed: int = 0) -> tuple[Floats, Numbers, Folds]:
    """Points of three separable classes, their labels, and folds."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(num_train + num_held_out) % 3).astype(np.int32)
    points = np.eye(3)[labels] * 6 + rng.normal(0, 0.8, (len(labels), 3))
    held_out = np.full(num_held_out, judging.HELD_OUT)
    return points, labels, np.concatenate([rng.integers(0, NUM_FOLDS, num_train), held_out]).astype(np.int8)


def probabilities_of(
    points: Floats, labels: Numbers, folds: Folds, *, is_taught: NDArray[np.bool_], num_classes: int, model: Any
) -> Iterator[Floats]:
    models = judging.fit_models(
        points[is_taught], labels=labels[is_taught], folds=folds[is_taught], build=lambda _: model(), num_workers=1
    )
    blocks = [points[start : start + 37] for start in range(0, len(points), 37)]
    return judging.out_of_sample(blocks, models=models, folds=folds, num_classes=num_classes, num_workers=1)


def judge(
    points: Floats, labels: Numbers, folds: Folds, *, num_classes: int = 3, max_rows: int = 10_000, **changes: Any
) -> Judgement:
    is_taught = (folds >= 0) & (np.arange(len(folds)) < max_rows)
    found = list(
        probabilities_of(points, labels, folds, is_taught=is_taught, num_classes=num_classes, model=LogisticRegression)
    )
    params = {"method": "prune_by_noise_rate", "min_quality": 1.0, **changes}
    return judging.judge_labels(
        lambda: found, labels=labels, folds=folds, is_taught=is_taught, num_classes=num_classes, **params
    )


@pytest.mark.parametrize("method", METHODS[:4])
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


def test_models_of_some_rows_find_the_errors_in_all_of_them() -> None:
    points, labels, folds = blobs(num_train=900)
    noisy = labels.copy()
    noisy[600:640] = (labels[600:640] + 1) % 3
    judgement = judge(points, noisy, folds, max_rows=200)
    found = set(np.flatnonzero(judgement.is_issue))
    assert len(found & set(range(600, 640))) >= 36
    assert len(found - set(range(600, 640))) <= 5


@pytest.mark.parametrize("method", METHODS)
def test_many_samples_are_judged_block_by_block_as_few_are_at_once(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, labels, folds = blobs(num_train=500, num_held_out=100)
    labels[:60:2] = (labels[:60:2] + 1) % 3
    labels[550:560] = (labels[550:560] + 1) % 3
    at_once = judge(points, labels, folds, method=method)
    monkeypatch.setattr(judging, "EXACT_ROWS", 10)
    in_blocks = judge(points, labels, folds, method=method)
    assert at_once.is_issue.any()
    assert at_once.is_issue.tolist() == in_blocks.is_issue.tolist()
    assert at_once.quality.tolist() == in_blocks.quality.tolist()
    assert at_once.suggestion.tolist() == in_blocks.suggestion.tolist()


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
    class Spy(LogisticRegression):  # type: ignore[misc]
        def fit(self, X: Floats, y: Numbers) -> "Spy":
            self.seen_ = set(X[:, 0].tolist())
            super().fit(X, y)
            return self

        def predict_proba(self, X: Floats) -> Floats:
            assert not self.seen_ & set(X[:, 0].tolist())
            judged.extend(X[:, 0].tolist())
            return np.asarray(super().predict_proba(X))

    judged: list[float] = []
    points, labels, folds = blobs(num_train=60, num_held_out=20)
    list(probabilities_of(points, labels, folds, is_taught=folds >= 0, num_classes=3, model=Spy))
    assert sorted(judged) == sorted(points[:, 0].tolist())


def test_a_fold_without_samples_to_fit_on_is_judged_by_the_model_of_all() -> None:
    points, labels, folds = blobs(num_train=60)
    is_taught = folds > 0
    found = probabilities_of(points, labels, folds, is_taught=is_taught, num_classes=3, model=LogisticRegression)
    assert np.isfinite(np.concatenate(list(found))).all()


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


def test_a_class_the_models_hardly_saw_is_neither_judged_nor_suggested() -> None:
    points, labels, folds = blobs(num_train=300)
    labels[295:] = 3
    judgement = judge(points, labels, folds, num_classes=4, max_rows=297)
    assert np.isnan(judgement.quality[295:]).all()
    assert np.isfinite(judgement.quality[:295]).all()


def test_one_class_alone_is_not_judged() -> None:
    points, labels, folds = blobs(num_train=30)
    judgement = judge(points, np.zeros_like(labels), folds)
    assert np.isnan(judgement.quality).all()
    assert not judgement.is_issue.any()


def components(rows: Floats) -> Pipeline:
    return make_pipeline(PCA(n_components=2), LogisticRegression())


def fitted(points: Floats, labels: Numbers, folds: Folds, *, num_workers: int = 1) -> judging.Models:
    return judging.fit_models(points, labels=labels, folds=folds, build=components, num_workers=num_workers)


def test_where_folds_are_ample_a_model_is_the_mean_of_those_of_the_other_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "AMPLE_ROWS", 5)
    points, labels, _ = blobs(num_train=120)
    folds = (np.arange(120) // 3 % 4).astype(np.int8)  # ten of each class in each fold
    alone = [simplified(components(points).fit(points[folds == fold], labels[folds == fold])) for fold in range(4)]
    models = fitted(points, labels, folds)
    assert sorted(models) == [-1, 0, 1, 2, 3]
    np.testing.assert_allclose(models[2].weights, np.mean([alone[fold].weights for fold in (0, 1, 3)], axis=0))
    np.testing.assert_allclose(models[-1].offsets, np.mean([one.offsets for one in alone], axis=0))
    again = fitted(points, labels, folds, num_workers=2)
    assert all(np.array_equal(models[fold].weights, again[fold].weights) for fold in models)


@pytest.mark.parametrize("is_rare", [True, False])
def test_where_a_fold_lacks_samples_of_a_class_a_model_is_fitted_to_the_other_folds(
    monkeypatch: pytest.MonkeyPatch, is_rare: bool
) -> None:
    monkeypatch.setattr(judging, "AMPLE_ROWS", 5)
    points, labels, _ = blobs(num_train=120)
    folds = (np.arange(120) // 3 % (4 if is_rare else 1)).astype(np.int8)
    if is_rare:
        folds[(folds == 1) & (labels == 2)] = 0
    of_others = simplified(components(points).fit(points[folds != 1], labels[folds != 1]))
    models = fitted(points, labels, folds)
    assert np.array_equal(models[1 if is_rare else -1].weights, of_others.weights)


def test_the_number_of_workers_does_not_change_a_bit() -> None:
    dataset, table = image_table()
    roster = roster_of(table, folds=(np.arange(64) % 4).astype(np.int8))
    looked = features.look(table, dataset=dataset)
    observe = partial(rosters.observe, roster=roster, dataset=dataset)
    found = []
    for num_workers in (1, 2):
        models = judging.fit_models(
            rosters.join(observe([looked], wanted=roster.is_taught)),
            labels=roster.labels,
            folds=roster.folds,
            build=partial(judging.build_model, dataset=dataset),
            num_workers=num_workers,
        )
        blocks = observe([looked.slice(0, 20), looked.slice(20)], wanted=roster.is_taught)
        probabilities = judging.out_of_sample(
            blocks, models=models, folds=roster.folds, num_classes=3, num_workers=num_workers
        )
        found.append(np.concatenate(list(probabilities)))
    assert np.array_equal(found[0], found[1])
    assert (found[0].argmax(axis=1) == roster.labels).mean() == 1.0


def test_tables_with_holes_and_categories_are_observed() -> None:
    dataset, table = tabular_table()
    roster = roster_of(table, folds=(np.arange(64) // 3 % 4 - 1).astype(np.int8))
    observe = partial(rosters.observe, [table.slice(0, 40), table.slice(40)], roster=roster, dataset=dataset)
    models = judging.fit_models(
        rosters.join(observe(wanted=roster.is_taught)),
        labels=roster.labels[roster.is_taught],
        folds=roster.folds[roster.is_taught],
        build=partial(judging.build_model, dataset=dataset),
        num_workers=1,
    )
    blocks = observe(wanted=np.ones(64, bool))
    probabilities = judging.out_of_sample(blocks, models=models, folds=roster.folds, num_classes=3, num_workers=2)
    found = np.concatenate(list(probabilities))
    assert found.argmax(axis=1).tolist() == [row % 3 for row in range(64)]


def test_probabilities_come_back_from_the_file_as_often_as_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "BLOCK_VALUES", 12)
    written = np.random.default_rng(0).random((11, 3))
    written[4] = np.nan
    read = ProbabilityFile(tmp_path / "file", [written[:5], written[5:]], num_classes=3)
    for _ in range(2):
        assert [block.shape[0] for block in read()] == [4, 4, 3]
        assert np.array_equal(np.concatenate(list(read())), written, equal_nan=True)
