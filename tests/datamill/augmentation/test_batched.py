from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.augmentation.batched import BatchAugmenter, chances
from datamill.augmentation.policy import Policy, Transform
from datamill.errors import ParamsError


def augmenter(name: str, *, probability: float = 1.0, seed: int = 0, **arguments: Any) -> BatchAugmenter:
    step = Transform(name=name, probability=probability, arguments=arguments)
    return BatchAugmenter(Policy(kind="image", seed=seed, engine="torch", transforms=(step,)))


def ids(count: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16), dtype=np.uint8)


def images(count: int = 4, *, size: int = 9, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 6), stop=st.integers(1, 7))
def test_an_image_does_not_depend_on_its_neighbours(start: int, stop: int) -> None:
    x, keys = images(8, channels=3), ids(8)
    change = augmenter("Affine", rotate=(-20, 20), scale=(0.8, 1.2), translate_percent=(-0.1, 0.1), shear=(-5, 5))
    whole = change.apply(x, sample_ids=keys, epoch=3)
    part = slice(start, start + stop)
    np.testing.assert_array_equal(change.apply(x[part], sample_ids=keys[part], epoch=3), whole[part])


def test_epochs_and_seeds_give_other_images() -> None:
    x, keys = images(), ids(4)
    shifted = [
        augmenter("Affine", seed=seed, translate_percent=(-0.4, 0.4)).apply(x, sample_ids=keys, epoch=epoch)
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert not np.array_equal(shifted[0], shifted[1])
    assert not np.array_equal(shifted[0], shifted[2])


def test_an_affine_change_of_nothing_changes_nothing() -> None:
    x = images(channels=3)
    np.testing.assert_array_equal(augmenter("Affine").apply(x, sample_ids=ids(4), epoch=0), x)


def test_a_quarter_turn_is_counter_clockwise() -> None:
    x = images()
    turned = augmenter("Affine", rotate=(90, 90)).apply(x, sample_ids=ids(4), epoch=0)
    np.testing.assert_array_equal(turned, np.rot90(x, axes=(1, 2)))


def test_a_translation_moves_right_and_down_and_leaves_black() -> None:
    x = images(size=10)
    moved = augmenter("Affine", translate_percent=(0.2, 0.2)).apply(x, sample_ids=ids(4), epoch=0)
    np.testing.assert_array_equal(moved[:, 2:, 2:], x[:, :-2, :-2])
    assert moved[:, :2].max() == 0


def test_a_scale_above_one_enlarges() -> None:
    x = np.zeros((1, 16, 16, 1), np.uint8)
    x[:, 6:10, 6:10] = 255
    enlarged = augmenter("Affine", scale=(2, 2)).apply(x, sample_ids=ids(1), epoch=0)
    assert enlarged[0, 5:11, 5:11].min() == 255
    assert 55 <= (enlarged > 127).sum() <= 68


@pytest.mark.parametrize(("name", "axis"), [("HorizontalFlip", 2), ("VerticalFlip", 1)])
def test_flips_mirror(name: str, axis: int) -> None:
    x = images(channels=3)
    np.testing.assert_array_equal(augmenter(name).apply(x, sample_ids=ids(4), epoch=0), np.flip(x, axis))


def test_a_probability_is_the_share_of_changed_images() -> None:
    x = np.tile(images(1), (2000, 1, 1, 1))
    changed = augmenter("HorizontalFlip", probability=0.3).apply(x, sample_ids=ids(2000), epoch=0)
    assert 0.26 < (changed != x).any(axis=(1, 2, 3)).mean() < 0.34


def test_brightness_and_contrast_stay_within_a_byte() -> None:
    x = images()
    brighter = augmenter("RandomBrightnessContrast", brightness_limit=(0.5, 0.5), contrast_limit=(0, 0))
    np.testing.assert_array_equal(
        brighter.apply(x, sample_ids=ids(4), epoch=0), np.minimum(np.rint(x + 127.5), 255).astype(np.uint8)
    )


def test_erasing_blackens_a_rectangle_of_the_share_asked_for() -> None:
    x = np.full((200, 40, 40, 1), 9, np.uint8)
    erased = augmenter("Erasing", scale=(0.25, 0.25), ratio=(1, 1)).apply(x, sample_ids=ids(200), epoch=0) == 0
    assert set(erased.sum(axis=(1, 2, 3)).tolist()) == {400}
    assert len({image.tobytes() for image in erased}) > 100


def test_chances_are_uniform_and_independent() -> None:
    drawn = chances(ids(20_000), num=3, key="a")
    assert np.abs(np.corrcoef(drawn) - np.eye(3)).max() < 0.03
    assert np.abs(np.quantile(drawn, [0.1, 0.5, 0.9], axis=1) - [[0.1], [0.5], [0.9]]).max() < 0.02


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Afine", {}, "unknown transform for engine torch 'Afine'; did you mean Affine"),
        ("Affine", {"rotation": (0, 1)}, "unknown argument 'rotation'; did you mean rotate"),
        ("Affine", {"rotate": "far"}, "Affine: rotate was 'far'"),
        ("Affine", {"scale": (0, 1)}, "give factors above 0"),
        ("Erasing", {"scale": (0.1, 2)}, "Erasing: scale was"),
    ],
)
def test_a_wrong_policy_is_told(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        augmenter(name, **arguments)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_images_but_for_rounding() -> None:
    x, keys = torch.from_numpy(images(64, size=28)), ids(64)
    change = augmenter("Affine", rotate=(-20, 20), scale=(0.8, 1.2))
    here = change.augment(x, sample_ids=keys, epoch=0).int()
    there = change.augment(x.cuda(), sample_ids=keys, epoch=0).cpu().int()
    assert (here - there).abs().max() <= 1
