import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from datamill.lineage.pairing import inverse, match

texts = st.lists(st.sampled_from("abcdef"), max_size=12)


def test_equal_texts_find_each_other_and_the_rest_stays_alone():
    assert match(pa.array(["a", "b", "c"]), pa.array(["c", "x", "a"])).tolist() == [2, -1, 0]


def test_the_second_of_two_equal_texts_goes_to_the_second():
    assert match(pa.array(["a", "a", "a"]), pa.array(["b", "a", "a"])).tolist() == [1, 2, -1]


def test_nothing_matches_nothing():
    assert match(pa.array(["a"]), pa.array([], pa.string())).tolist() == [-1]
    assert match(pa.array([], pa.string()), pa.array(["a"])).tolist() == []


def test_the_other_side_sees_the_same_partners():
    assert inverse(np.array([2, -1, 0]), count=4).tolist() == [2, -1, 0, -1]


@given(left=texts, right=texts)
def test_partners_are_equal_texts_and_nobody_has_two(left, right):
    found = match(pa.array(left, pa.string()), pa.array(right, pa.string())).tolist()
    taken = [place for place in found if place >= 0]
    assert len(taken) == len(set(taken))
    assert all(left[i] == right[place] for i, place in enumerate(found) if place >= 0)
    assert len(taken) == sum(min(left.count(text), right.count(text)) for text in set(left))
