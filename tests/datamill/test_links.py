import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamill.links import NO_LINKS, Links, linked

SIZE = 12
PAIRS = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)), max_size=15)


def as_pairs(pairs: list[tuple[int, int]]) -> NDArray[np.int64]:
    return np.array(pairs, np.int64).reshape(-1, 2)


def firsts(links: Links, *, num_samples: int) -> list[int]:
    return links.of(np.arange(num_samples)).tolist()  # type: ignore[no-any-return]


def test_pairs_chain_into_one_group_named_by_its_first_row() -> None:
    links = linked(as_pairs([(4, 2), (2, 5), (0, 1)]))
    assert firsts(links, num_samples=6) == [0, 0, 2, 3, 2, 2]
    assert links.pairs().tolist() == [[0, 1], [2, 4], [2, 5]]


def test_no_pair_leaves_every_sample_alone() -> None:
    assert firsts(linked(as_pairs([])), num_samples=3) == [0, 1, 2]
    assert firsts(NO_LINKS, num_samples=0) == []


def test_a_sample_paired_with_itself_is_alone() -> None:
    assert len(linked(as_pairs([(3, 3)]))) == 0


def test_samples_may_be_asked_for_in_any_order() -> None:
    links = linked(as_pairs([(1, 7), (7, 9)]))
    assert links.of(np.array([9, 0, 7, 1, 10])).tolist() == [1, 0, 1, 1, 10]
    assert links.named(np.array([9, 0, 7, 1, 10])).tolist() == [True, False, True, False, False]


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.permutations(range(SIZE)))
def test_groups_do_not_depend_on_the_order_of_the_samples(pairs: list[tuple[int, int]], order: list[int]) -> None:
    first = np.array(firsts(linked(as_pairs(pairs)), num_samples=SIZE))
    renamed = np.array(firsts(linked(as_pairs([(order[a], order[b]) for a, b in pairs])), num_samples=SIZE))
    together = first[:, None] == first[None, :]
    moved = np.array(order)
    np.testing.assert_array_equal(together, renamed[moved][:, None] == renamed[moved][None, :])
