import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.cleaning.duplicates import Copies, find_copies, leak_groups, may_be_near, settle_duplicates
from datamill.cleaning.observing import CONTENT
from datamill.cleaning.policies import ExactPolicy
from datamill.fates import Fates
from datamill.hashes import halves
from datamill.links import Links
from datamill.runs import SortedRuns
from datamill.samples import content_hash
from tests.datamill.cleaning.ids import IDS, Ids

LABELS = np.array([0, 1, 0, 2, 0, 0], np.int32)  # the two b disagree


def hashes(contents: str | list[str]) -> np.ndarray:
    return halves(pa.array([content_hash(content.encode()) for content in contents], pa.string()))


def copies_of(contents: np.ndarray, labels: np.ndarray, *, at_once: int = 4) -> Copies:
    records = np.zeros(len(contents), CONTENT)
    records["first"], records["second"] = contents.T
    records["row"], records["label"] = np.arange(len(contents)), labels
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("datamill.runs.RUN_BYTES", at_once * CONTENT.itemsize)
        runs = SortedRuns(Path(folder) / "contents", CONTENT, key="first")
        for start in range(0, len(records), at_once):
            runs.add(records[start : start + at_once])
        return find_copies(runs)


COPIES = copies_of(hashes("abacba"), LABELS)


def settled(**policy: Any) -> Fates:
    fates = Fates(len(IDS))
    settle_duplicates(
        fates,
        copies=COPIES,
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
    fates = settled(policy="drop", conflicting="drop_all")
    may_be = may_be_near(np.arange(6), fates=fates, copies=COPIES)
    assert may_be.tolist() == [True, False, False, True, False, False]


def test_a_leak_group_joins_near_duplicates_and_exact_copies() -> None:
    copies = copies_of(hashes("abac"), np.zeros(4, np.int32))
    assert leak_groups(Links(np.array([1]), np.array([0])), copies=copies).pairs().tolist() == [[0, 1], [0, 2]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("01")), max_size=20))
def test_duplicates_and_conflicts_equal_those_found_pair_by_pair(samples: list[tuple[str, str]]) -> None:
    contents, labels = [one for one, _ in samples], [label for _, label in samples]
    numbers = np.array([int(label) for label in labels], np.int32)
    copies = copies_of(hashes(contents), numbers)
    assert copies.links.of(np.arange(len(contents))).tolist() == [contents.index(content) for content in contents]
    names = {content: Counter(label for one, label in samples if one == content) for content in contents}
    contested = [row for row, content in enumerate(contents) if len(names[content]) > 1]
    assert copies.contested.tolist() == contested
    assert copies.labels.tolist() == [int(labels[row]) for row in contested]


def test_contents_that_share_half_of_their_hash_are_told_apart() -> None:
    contents = np.array([[7, 1], [7, 2], [7, 1], [3, 1], [7, 2]], np.uint64)
    copies = copies_of(contents, np.zeros(5, np.int32))
    assert copies.links.of(np.arange(5)).tolist() == [0, 1, 0, 3, 1]
