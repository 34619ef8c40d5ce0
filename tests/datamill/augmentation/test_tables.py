"""Noise on tables: measured columns only, in proportion to their spread, the same for a sample in any batch."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.augmentation import load_policy
from datamill.augmentation.policy import Policy, Transform, save_policy
from datamill.augmentation.tables import TableAugmenter, column_scales
from datamill.errors import ParamsError


def _policy(name: str = "jitter", probability: float = 1.0, **arguments: object) -> Policy:
    step = Transform(name=name, probability=probability, arguments=arguments)
    return Policy(kind="tabular", seed=7, transforms=(step,))


def test_codes_have_no_scale_and_measurements_their_deviation() -> None:
    rows = np.array([[0, 3, 0.5, -1.25], [1, 1, 1.5, 2.5], [0, 2, 2.5, -1.25], [1, 0, 3.5, 2.5]], np.float32)
    assert column_scales(rows) == pytest.approx([0, 0, np.sqrt(1.25), 0])


def test_no_rows_have_no_scales() -> None:
    assert column_scales(np.zeros((0, 2), np.float32)).tolist() == [0, 0]


def test_noise_has_the_asked_share_of_each_columns_deviation() -> None:
    ids = np.random.default_rng(0).integers(0, 256, (4000, 16), dtype=np.uint8)
    augmenter = TableAugmenter(_policy(share=0.1), scales=np.array([1.0, 20.0, 0.0]))
    noise = augmenter.apply(np.zeros((4000, 3), np.float32), sample_ids=ids, epoch=0)
    assert noise.std(axis=0) == pytest.approx([0.1, 2.0, 0.0], rel=0.05)
    assert noise.dtype == np.float32


@given(order=st.permutations(range(8)))
@settings(max_examples=10, deadline=None)
def test_a_row_does_not_depend_on_its_batch(order: list[int]) -> None:
    rng = np.random.default_rng(0)
    x, ids = rng.normal(size=(8, 3)).astype(np.float32), rng.integers(0, 256, (8, 16), dtype=np.uint8)
    augmenter = TableAugmenter(_policy(share=0.5, probability=0.5), scales=np.ones(3))
    whole = augmenter.apply(x, sample_ids=ids, epoch=1)
    assert np.array_equal(augmenter.apply(x[order], sample_ids=ids[order], epoch=1), whole[order])
    assert not np.array_equal(augmenter.apply(x, sample_ids=ids, epoch=2), whole)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (_policy("jiter", share=0.1), "unknown transform 'jiter'; did you mean jitter?"),
        (_policy("Affine", share=0.1), "unknown transform 'Affine'; choose from jitter"),
        (_policy(shares=0.1), "jitter: unknown argument 'shares'; did you mean share?"),
        (_policy(), "jitter: share was None; give a number in (0, 1]"),
        (_policy(share=2), "jitter: share was 2; give a number in (0, 1]"),
        (_policy(share="lots"), "jitter: share was 'lots'; give a number in (0, 1]"),
    ],
)
def test_a_wrong_policy_is_refused_when_built(policy: Policy, message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        TableAugmenter(policy, scales=np.ones(1))
    assert message in str(caught.value)


def test_training_learns_the_scales_from_its_rows(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy.json", policy=_policy(share=0.1))
    rng = np.random.default_rng(0)
    rows = np.stack([rng.normal(0, 5, 200), rng.integers(0, 2, 200)], axis=1).astype(np.float32)
    ids = rng.integers(0, 256, (200, 16), dtype=np.uint8)
    y = load_policy(tmp_path / "policy.json", rows=rows).apply(rows, sample_ids=ids, epoch=0)
    assert 0.3 < (y - rows)[:, 0].std() < 0.7
    assert np.array_equal(y[:, 1], rows[:, 1])
