from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.cleaning.duplicates import first_of_content, in_conflict, settle_duplicates, to_observe
from datamill.cleaning.policies import ExactPolicy
from datamill.fates import Fates

CONTENTS = ["a", "b", "a", "c", "b", "a"]
LABELS = ["0", "1", "0", "2", "0", "0"]  # the two b disagree
IDS = ["id0", "id1", "id2", "id3", "id4", "id5"]


def settled(**policy: Any) -> Fates:
    fates = Fates(len(IDS))
    content = first_of_content(CONTENTS)
    settle_duplicates(fates, content=content, labels=LABELS, sample_ids=IDS, policy=ExactPolicy(**policy))
    return fates


def test_the_first_in_sample_order_is_kept() -> None:
    fates = settled(policy="drop", conflicting="flag")
    assert fates.fates == ["kept", "kept", "dropped", "kept", "kept", "dropped"]
    assert fates.details[5] == "of id0"


@pytest.mark.parametrize(
    ("conflicting", "expected"),
    [("drop_all", ["dropped", "dropped"]), ("keep_first", ["kept", "dropped"]), ("flag", ["kept", "kept"])],
)
def test_copies_with_other_labels_follow_their_own_policy(conflicting: str, expected: list[str]) -> None:
    fates = settled(policy="off", conflicting=conflicting)
    assert [fates.fates[1], fates.fates[4]] == expected
    assert fates.reasons[4] == "conflicting_duplicate"
    assert fates.details[4] == "label '0', content of id1"
    assert fates.reasons[2] == ""


def test_flagged_copies_are_kept_with_the_reason() -> None:
    fates = settled(policy="flag", conflicting="flag")
    assert fates.fates == ["kept"] * 6
    assert fates.counts == {"exact_duplicate": 2, "conflicting_duplicate": 2}


def test_only_the_first_of_each_surviving_content_is_observed() -> None:
    fates = settled(policy="drop", conflicting="drop_all")
    content = first_of_content(CONTENTS)
    np.testing.assert_array_equal(to_observe(fates, content=content, is_wanted=True), [0, 3])
    assert len(to_observe(fates, content=content, is_wanted=False)) == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("01")), max_size=20))
def test_duplicates_and_conflicts_equal_those_found_pair_by_pair(samples: list[tuple[str, str]]) -> None:
    contents, labels = [one for one, _ in samples], [label for _, label in samples]
    first = first_of_content(contents)
    assert first.tolist() == [contents.index(content) for content in contents]
    names = {content: Counter(label for one, label in samples if one == content) for content in contents}
    assert in_conflict(first, labels=labels).tolist() == [len(names[content]) > 1 for content in contents]
