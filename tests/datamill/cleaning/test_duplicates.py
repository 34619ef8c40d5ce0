from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.cleaning.duplicates import first_of_content, in_conflict, settle_duplicates, to_compare
from datamill.cleaning.policies import ExactPolicy
from datamill.fates import Fates
from datamill.hashes import halves
from datamill.samples import content_hash
from tests.datamill.cleaning.ids import IDS, Ids

LABELS = np.array([0, 1, 0, 2, 0, 0], np.int32)  # the two b disagree


def hashes(contents: str | list[str]) -> np.ndarray:
    return halves(pa.array([content_hash(content.encode()) for content in contents], pa.string()))


CONTENT = first_of_content(hashes("abacba"))


def settled(**policy: Any) -> Fates:
    fates = Fates(len(IDS))
    settle_duplicates(
        fates,
        content=CONTENT,
        labels=LABELS,
        classes=["0", "1", "2"],
        sample_ids=Ids(),
        policy=ExactPolicy(**policy),
    )
    return fates


def told(fates: Fates, what: str) -> list[str]:
    return fates.columns(0, len(fates))[what].to_pylist()


def test_the_first_in_sample_order_is_kept() -> None:
    fates = settled(policy="drop", conflicting="flag")
    assert told(fates, "fates") == ["kept", "kept", "dropped", "kept", "kept", "dropped"]
    assert told(fates, "details")[5] == f"of {IDS[0]}"


@pytest.mark.parametrize(
    ("conflicting", "expected"),
    [("drop_all", ["dropped", "dropped"]), ("keep_first", ["kept", "dropped"]), ("flag", ["kept", "kept"])],
)
def test_copies_with_other_labels_follow_their_own_policy(conflicting: str, expected: list[str]) -> None:
    fates = settled(policy="off", conflicting=conflicting)
    assert [told(fates, "fates")[1], told(fates, "fates")[4]] == expected
    assert told(fates, "reasons")[4] == "conflicting_duplicate"
    assert told(fates, "details")[4] == f"label '0', content of {IDS[1]}"
    assert told(fates, "reasons")[2] == ""


def test_flagged_copies_are_kept_with_the_reason() -> None:
    fates = settled(policy="flag", conflicting="flag")
    assert told(fates, "fates") == ["kept"] * 6
    assert fates.counts == {"exact_duplicate": 2, "conflicting_duplicate": 2}


def test_only_the_first_of_each_surviving_content_is_compared() -> None:
    np.testing.assert_array_equal(to_compare(settled(policy="drop", conflicting="drop_all"), content=CONTENT), [0, 3])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("01")), max_size=20))
def test_duplicates_and_conflicts_equal_those_found_pair_by_pair(samples: list[tuple[str, str]]) -> None:
    contents, labels = [one for one, _ in samples], [label for _, label in samples]
    first = first_of_content(hashes(contents))
    assert first.tolist() == [contents.index(content) for content in contents]
    names = {content: Counter(label for one, label in samples if one == content) for content in contents}
    numbers = np.array([int(label) for label in labels], np.int32)
    assert in_conflict(first, labels=numbers).tolist() == [len(names[content]) > 1 for content in contents]


def test_contents_that_share_half_of_their_hash_are_told_apart() -> None:
    contents = np.array([[7, 1], [7, 2], [7, 1], [3, 1], [7, 2]], np.uint64)
    assert first_of_content(contents).tolist() == [0, 1, 0, 3, 1]
