import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamill import hashes
from datamill.hashes import HashIndex


def some(count: int, *, seed: int = 0) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 2**64, (count, 2), dtype=np.uint64)


@settings(max_examples=100, deadline=None)
@given(
    known=st.lists(st.integers(0, 60), unique=True, max_size=50),
    wanted=st.lists(st.integers(0, 80), max_size=90),
    stride=st.integers(1, 9),
)
def test_places_are_those_of_equal_hashes(known: list[int], wanted: list[int], stride: int) -> None:
    everything = some(81)
    index = HashIndex(everything[known])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashes, "STRIDE", stride)
        found = index.find(everything[wanted])
    assert found.tolist() == [known.index(one) if one in known else -1 for one in wanted]


def test_hashes_that_share_a_half_are_told_apart() -> None:
    index = HashIndex(np.array([[1, 5], [2, 6], [3, 7]], np.uint64))
    assert index.find(np.array([[1, 6], [2, 6], [9, 7], [3, 7]], np.uint64)).tolist() == [-1, 1, -1, 2]


def test_an_index_of_nothing_finds_nothing() -> None:
    assert HashIndex(some(0)).find(some(3)).tolist() == [-1, -1, -1]
    assert HashIndex(some(3)).find(some(0)).tolist() == []


@pytest.mark.parametrize("edit", ["changed", "removed", "inserted"])
def test_hashes_in_the_order_of_the_index_are_found_with_few_searches(
    edit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, other = some(10_000), some(10, seed=1)
    rows = np.arange(500, 10_000, 1_000)
    after = {
        "changed": np.where(np.isin(np.arange(10_000), rows)[:, None], other[0], before),
        "removed": np.delete(before, rows, axis=0),
        "inserted": np.insert(before, rows, other, axis=0),
    }[edit]
    searched = []
    search = HashIndex._search
    monkeypatch.setattr(HashIndex, "_search", lambda self, some: searched.append(len(some)) or search(self, some))
    found = HashIndex(before).find(after)
    assert sum(searched) < 10_000 / hashes.STRIDE + 30
    assert int((found < 0).sum()) == {"changed": 10, "removed": 0, "inserted": 10}[edit]
    np.testing.assert_array_equal(before[found[found >= 0]], after[found >= 0])
