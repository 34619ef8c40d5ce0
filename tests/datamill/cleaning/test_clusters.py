import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamill.cleaning.clusters import first_of_cluster, leak_groups

SIZE = 12
PAIRS = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)), max_size=15)


def as_pairs(pairs: list[tuple[int, int]]) -> NDArray[np.int64]:
    return np.array(pairs, np.int64).reshape(-1, 2)


def test_pairs_chain_into_one_cluster_named_by_its_first_row() -> None:
    assert first_of_cluster(as_pairs([(4, 2), (2, 5), (0, 1)]), num_samples=6).tolist() == [0, 0, 2, 3, 2, 2]


def test_no_pair_leaves_every_sample_alone() -> None:
    assert first_of_cluster(as_pairs([]), num_samples=3).tolist() == [0, 1, 2]
    assert first_of_cluster(as_pairs([]), num_samples=0).tolist() == []


def test_a_leak_group_joins_near_duplicates_and_exact_copies() -> None:
    content = np.array([0, 1, 0, 3])
    assert leak_groups(as_pairs([(0, 1)]), content=content).tolist() == [0, 0, 0, 3]


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.permutations(range(SIZE)))
def test_clusters_do_not_depend_on_the_order_of_the_samples(pairs: list[tuple[int, int]], order: list[int]) -> None:
    first = first_of_cluster(as_pairs(pairs), num_samples=SIZE)
    renamed = first_of_cluster(as_pairs([(order[a], order[b]) for a, b in pairs]), num_samples=SIZE)
    together = first[:, None] == first[None, :]
    moved = np.array(order)
    np.testing.assert_array_equal(together, renamed[moved][:, None] == renamed[moved][None, :])
