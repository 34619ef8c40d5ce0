"""Policies are checked before use, and a result depends on seed, epoch and sample id alone."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamill.augmentation import ImageAugmenter, load_policy
from datamill.augmentation.policy import Policy, Transform, save_policy
from datamill.errors import DataError, ParamsError

AFFINE = {"rotate": [-15, 15], "scale": [0.8, 1.2], "translate_percent": [-0.1, 0.1]}


def _policy(*steps: tuple[str, float, dict[str, Any]], seed: int = 7) -> Policy:
    transforms = tuple(Transform(name=name, probability=chance, arguments=rest) for name, chance, rest in steps)
    return Policy(kind="image", seed=seed, transforms=transforms)


def _batch(count: int = 12, *, channels: int = 1) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 12, 12, channels), dtype=np.uint8)
    return images, rng.integers(0, 256, (count, 16), dtype=np.uint8)


MIXED = _policy(
    ("HorizontalFlip", 0.5, {}), ("Affine", 0.8, AFFINE), ("GaussNoise", 0.5, {}), ("CoarseDropout", 0.5, {})
)


@given(order=st.permutations(range(12)), size=st.integers(1, 12))
@settings(max_examples=10, deadline=None)
def test_a_row_does_not_depend_on_its_batch(order: list[int], size: int) -> None:
    x, ids = _batch()
    whole = ImageAugmenter(MIXED).apply(x, sample_ids=ids, epoch=3)
    augmenter = ImageAugmenter(MIXED)
    for start in range(0, 12, size):
        rows = order[start : start + size]
        assert np.array_equal(augmenter.apply(x[rows], sample_ids=ids[rows], epoch=3), whole[rows])


def test_epoch_seed_and_id_each_change_the_result() -> None:
    x, ids = _batch()
    x[:] = x[0]
    first = ImageAugmenter(MIXED).apply(x, sample_ids=ids, epoch=0)
    assert not np.array_equal(first, ImageAugmenter(MIXED).apply(x, sample_ids=ids, epoch=1))
    other_seed = MIXED.model_copy(update={"seed": 8})
    assert not np.array_equal(first, ImageAugmenter(other_seed).apply(x, sample_ids=ids, epoch=0))
    assert len(np.unique(first.reshape(12, -1), axis=0)) > 6


def test_shape_and_type_stay_and_the_input_is_not_changed() -> None:
    for channels in (1, 3):
        x, ids = _batch(channels=channels)
        before = x.copy()
        y = ImageAugmenter(MIXED).apply(x, sample_ids=ids, epoch=0)
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
        assert np.array_equal(x, before)


def test_probability_is_the_share_of_changed_samples() -> None:
    x, ids = _batch(600)
    y = ImageAugmenter(_policy(("HorizontalFlip", 0.25, {}))).apply(x, sample_ids=ids, epoch=0)
    assert 0.18 < (y != x).any(axis=(1, 2, 3)).mean() < 0.32


def test_an_empty_policy_is_the_identity() -> None:
    x, ids = _batch()
    augmenter = ImageAugmenter(_policy())
    assert augmenter.is_identity
    assert augmenter.apply(x, sample_ids=ids, epoch=0) is x


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Afine", {}, "unknown transform 'Afine'; did you mean Affine"),
        ("Compose", {}, "unknown transform 'Compose'"),
        ("Affine", {"rotat": 5}, "Affine: unknown argument 'rotat'; did you mean rotate"),
        ("Affine", {"rotate": "x"}, "Affine: rotate was 'x': "),
        ("RandomCrop", {}, "RandomCrop: height was not given: Field required"),
        ("ShiftScaleRotate", {}, "Please use Affine"),
    ],
)
def test_a_wrong_policy_is_refused_when_built(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=r"augment\.transforms") as caught:
        ImageAugmenter(_policy((name, 1.0, arguments)))
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["RandomCrop", "Transpose"])
def test_a_transform_that_changes_the_shape_is_refused_however_rare_it_is(name: str) -> None:
    arguments = {"height": 4, "width": 4} if name == "RandomCrop" else {}
    augmenter = ImageAugmenter(_policy((name, 0.001, arguments)))
    with pytest.raises(ParamsError, match=rf"{name} turns an image of \(8, 12, 3\) uint8 into .* leave {name} out"):
        augmenter.check(np.zeros((8, 12, 3), np.uint8))


def test_a_transform_that_changes_the_type_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"Normalize turns .* into \(8, 8, 1\) float32"):
        ImageAugmenter(_policy(("Normalize", 1.0, {}))).check(np.zeros((8, 8, 1), np.uint8))


def test_a_transform_that_fails_is_named() -> None:
    with pytest.raises(ParamsError, match="RandomCrop fails on an image of shape"):
        ImageAugmenter(_policy(("RandomCrop", 1.0, {"height": 99, "width": 99}))).check(np.zeros((8, 8, 1), np.uint8))


def test_a_saved_policy_augments_alike(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy.json", policy=MIXED)
    x, ids = _batch()
    loaded = load_policy(tmp_path / "policy.json").apply(x, sample_ids=ids, epoch=2)
    assert np.array_equal(loaded, ImageAugmenter(MIXED).apply(x, sample_ids=ids, epoch=2))


def test_a_damaged_policy_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text('{"kind": "sound"}')
    with pytest.raises(DataError, match=r"policy\.json is no augmentation policy .* run augment again"):
        load_policy(tmp_path / "policy.json")


def test_a_tables_policy_does_not_import_albumentations(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy.json", policy=Policy(kind="tabular", seed=1, transforms=()))
    code = (
        "import sys; from pathlib import Path; from datamill.augmentation import load_policy;"
        f"assert load_policy(Path({str(tmp_path / 'policy.json')!r})).is_identity;"
        "assert 'albumentations' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_building_a_policy_leaves_the_warning_filters_alone() -> None:
    before = list(warnings.filters)
    ImageAugmenter(MIXED)
    assert list(warnings.filters) == before
