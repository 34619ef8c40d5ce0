import hashlib
import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.sampling import BottomK, scores, smallest


def samples(numbers: Sequence[int]) -> pa.Table:
    """Samples with these numbers, and ids that do not show them."""
    ids = [hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest() for number in numbers]
    return pa.table({"sample_id": pa.array(ids, pa.string()), "number": pa.array(numbers, pa.int64())})


def chosen(*tables: Sequence[int], size: int, key: str = "k") -> list[int]:
    draw = BottomK(size, key=key)
    for numbers in tables:
        draw.add(samples(numbers))
    result: list[int] = draw.table()["number"].to_pylist()
    return result


def test_the_chosen_are_those_of_the_smallest_scores_in_the_order_they_came() -> None:
    table = samples(range(100))
    lowest = np.sort(np.argsort(scores(table["sample_id"], key="k"))[:10])
    assert chosen(range(100), size=10) == lowest.tolist()


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 20_000), max_size=6), size=st.integers(0, 40))
def test_a_choice_made_in_pieces_is_the_choice_of_the_whole(cuts: list[int], size: int) -> None:
    edges = [0, *sorted(cuts), 20_000]
    pieces = [range(start, stop) for start, stop in itertools.pairwise(edges)]
    assert chosen(*pieces, size=size) == chosen(range(20_000), size=size)


def test_merged_choices_are_the_choice_of_the_whole() -> None:
    whole, first, second = (BottomK(30, key="k", num_groups=2) for _ in range(3))
    numbers = np.arange(9_000)
    whole.add(samples(numbers.tolist()), groups=numbers % 2)
    first.add(samples(numbers[:4_000].tolist()), groups=numbers[:4_000] % 2)
    second.add(samples(numbers[4_000:].tolist()), groups=numbers[4_000:] % 2)
    first.update(second)
    assert first.table().equals(whole.table())
    assert first.group(1).equals(whole.group(1))


def test_each_group_has_its_own_choice_in_random_order() -> None:
    draw = BottomK(5, key="k", num_groups=3)
    numbers = np.arange(300)
    draw.add(samples(numbers.tolist()), groups=np.where(numbers < 298, 0, 2))
    assert [draw.group(number).num_rows for number in range(3)] == [5, 0, 2]
    drawn = draw.group(0)
    ordered = scores(drawn["sample_id"], key="k").tolist()
    assert ordered == sorted(ordered)
    assert drawn["number"].to_pylist() != sorted(drawn["number"].to_pylist())


def test_a_choice_changes_by_what_was_added() -> None:
    before, after = set(chosen(range(10_000), size=1_000)), set(chosen(range(10_100), size=1_000))
    assert 0 < len(before - after) < 30


def test_keys_choose_differently() -> None:
    assert chosen(range(1_000), size=20, key="a") != chosen(range(1_000), size=20, key="b")


def test_scores_are_uniform() -> None:
    table = samples(range(20_000))
    counts = np.bincount((scores(table["sample_id"], key="k") >> np.uint64(60)).astype(np.int64), minlength=16)
    assert counts == pytest.approx([1_250] * 16, abs=5 * 1_250**0.5)


def test_of_equal_values_the_first_are_taken() -> None:
    values = np.array([3, 1, 1, 1, 2], np.uint64)
    assert smallest(values, groups=np.zeros(5, np.int64), size=2).tolist() == [1, 2]
