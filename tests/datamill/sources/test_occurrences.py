"""Counting hashes in little memory."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.sources.occurrences import Occurrences


@given(batches=st.lists(st.lists(st.integers(0, 30), max_size=20), max_size=12))
@settings(max_examples=100, deadline=None)
def test_each_is_counted_as_often_as_it_came_before(batches: list[list[int]]) -> None:
    seen, numbers, names = Counter[int](), Occurrences(), Occurrences()
    for batch in batches:
        expected = []
        for value in batch:
            expected.append(seen[value])
            seen[value] += 1
        assert numbers.count(np.array(batch, np.uint64)).tolist() == expected
        assert names.count(np.array([b"%016d" % value for value in batch], "S16")).tolist() == expected


def test_memory_is_a_few_bytes_each() -> None:
    occurrences = Occurrences()
    for start in range(0, 40_000, 4_000):
        occurrences.count(np.arange(start, start + 4_000, dtype=np.uint64))
    held = sum(array.nbytes for run in occurrences._runs for array in run)
    assert held == 40_000 * 12
    assert len(occurrences._runs) < 5
