import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamill.balancing.interpolation import Interpolated, Oversampler, interpolate

CLASSES = "abc"
METHODS: list[Oversampler] = ["smote", "adasyn"]


def points(
    sizes: dict[str, int], *, seed: int = 0, spread: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    labels = numbers("".join(label * size for label, size in sizes.items()))
    rng = np.random.default_rng(seed)
    return (labels[:, None] + rng.normal(0, spread, (len(labels), 3))).astype(np.float32), labels


def numbers(names: str) -> NDArray[np.int32]:
    """Class numbers of these class names."""
    return np.array([CLASSES.index(name) for name in names], np.int32)


def made(
    sizes: dict[str, int], *, wanted: dict[str, int], method: Oversampler = "smote", seed: int = 0, spread: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.int32], Interpolated]:
    matrix, labels = points(sizes, spread=spread)
    new = interpolate(matrix, labels=labels, classes=CLASSES, wanted=wanted, method=method, num_neighbors=5, seed=seed)
    return matrix, labels, new


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(small=st.integers(2, 12), wanted=st.integers(1, 15), seed=st.integers(0, 99))
def test_every_new_row_lies_between_its_parents_and_they_are_of_its_class(
    method: Oversampler, small: int, wanted: int, seed: int
) -> None:
    matrix, labels, new = made({"a": 20, "b": small}, wanted={"b": wanted}, method=method, seed=seed)
    for row, parents in zip(new.matrix, new.parents, strict=True):
        assert {CLASSES[labels[parent]] for parent in parents} == {"b"}
        first, last = matrix[parents[0]], matrix[parents[-1]]
        detour = np.linalg.norm(row - first) + np.linalg.norm(row - last) - np.linalg.norm(first - last)
        assert abs(detour) < 1e-5


def test_smote_makes_as_many_rows_as_wanted() -> None:
    _, _, new = made({"a": 20, "b": 6, "c": 3}, wanted={"b": 14, "c": 17})
    assert new.labels.tolist() == [1] * 14 + [2] * 17
    assert new.matrix.shape == (31, 3)
    assert new.matrix.dtype == np.float32
    assert new.skipped == {}


def test_smote_interpolates_with_its_nearest_neighbours_only() -> None:
    matrix = np.array([[0.0], [1.0], [10.0], [11.0], [50.0]], np.float32)
    labels = numbers("bbbba")
    new = interpolate(matrix, labels=labels, classes=CLASSES, wanted={"b": 40}, method="smote", num_neighbors=1, seed=0)
    assert {tuple(sorted(pair)) for pair in new.parents} == {(0, 1), (2, 3)}


def test_adasyn_makes_more_where_other_classes_are_near() -> None:
    near, far = np.linspace(0, 1, 6), np.linspace(100, 101, 6)
    matrix = np.concatenate([near, far, np.linspace(0, 1, 30)])[:, None].astype(np.float32)
    labels = numbers("b" * 12 + "a" * 30)
    new = interpolate(
        matrix, labels=labels, classes=CLASSES, wanted={"b": 18}, method="adasyn", num_neighbors=3, seed=0
    )
    assert len(new.labels) > 12
    assert float(new.matrix.max()) <= 1


def test_a_class_of_one_is_left_as_it_is() -> None:
    _, _, new = made({"a": 20, "b": 1, "c": 2}, wanted={"b": 19, "c": 3})
    assert new.skipped == {"b": "1 sample, no neighbour to interpolate with"}
    assert new.labels.tolist() == [2] * 3


def test_adasyn_leaves_a_class_without_others_near() -> None:
    _, _, new = made({"a": 20, "b": 10}, wanted={"b": 10}, method="adasyn", spread=0.01)
    assert new.skipped == {"b": "no sample of another class near"}
    assert new.matrix.shape == (0, 3)


def test_equal_originals_give_the_same_row_again() -> None:
    matrix = np.zeros((6, 2), np.float32)
    labels = numbers("bbbaaa")
    new = interpolate(matrix, labels=labels, classes=CLASSES, wanted={"b": 4}, method="smote", num_neighbors=5, seed=0)
    assert new.matrix.tolist() == [[0.0, 0.0]] * 4
    assert all(1 <= len(pair) <= 2 and set(pair) <= {0, 1, 2} for pair in new.parents)


def test_a_class_draws_the_same_whatever_other_classes_want() -> None:
    _, _, alone = made({"a": 20, "b": 6, "c": 8}, wanted={"c": 5})
    _, _, together = made({"a": 20, "b": 6, "c": 8}, wanted={"b": 3, "c": 5})
    assert np.array_equal(alone.matrix, together.matrix[3:])


def test_seeds_give_different_rows() -> None:
    one, again, other = (made({"a": 20, "b": 6}, wanted={"b": 9}, seed=seed)[2].matrix for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_rows_can_be_left_out() -> None:
    _, _, new = made({"a": 20, "b": 6}, wanted={"b": 4})
    rest = new.without(np.array([0, 2]))
    assert np.array_equal(rest.matrix, new.matrix[[1, 3]])
    assert rest.parents == (new.parents[1], new.parents[3])
