import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.cleaning import near
from datamill.cleaning.near import find_near, near_pairs, settle_near
from datamill.cleaning.observing import Observed
from datamill.cleaning.policies import NearPolicy
from datamill.fates import Fates

BITS = st.sampled_from([0, 1, 2, 5, 21, 22, 42, 43, 63])
FINGERPRINT = st.lists(BITS, max_size=4).map(lambda bits: sum(1 << bit for bit in set(bits)))


def policy(kind: str, *, max_bits: int = 2) -> NearPolicy:
    return NearPolicy(policy=kind, max_bits=max_bits, max_mean_difference=0.02, max_pixel_difference=0.1)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(FINGERPRINT, st.lists(st.sampled_from([0, 4, 30, 255]), min_size=3, max_size=3)), max_size=25),
    st.integers(0, 4),
)
def test_pairs_equal_those_found_by_comparing_all(samples: list[tuple[int, list[int]]], max_bits: int) -> None:
    expected = []
    for (left, a), (right, b) in itertools.combinations(enumerate(samples), 2):
        differences = [abs(x - y) for x, y in zip(a[1], b[1], strict=True)]
        is_alike = sum(differences) / 3 <= 0.05 * 255 and max(differences) <= 0.1 * 255
        if is_alike and (a[0] ^ b[0]).bit_count() <= max_bits:
            expected.append([left, right])
    found = near_pairs(
        np.array([fingerprint for fingerprint, _ in samples], np.uint64),
        thumbnails=np.array([pixels for _, pixels in samples], np.uint8).reshape(-1, 3),
        max_bits=max_bits,
        max_mean_difference=0.05,
        max_pixel_difference=0.1,
    )
    assert found.tolist() == expected


def test_equal_hashes_of_different_pictures_are_no_near_duplicates() -> None:
    found = near_pairs(
        np.zeros(2, np.uint64),
        thumbnails=np.array([[0, 0], [200, 0]], np.uint8),
        max_bits=2,
        max_mean_difference=0.02,
        max_pixel_difference=0.1,
    )
    assert found.tolist() == []


def test_many_equal_fingerprints_give_a_bounded_number_of_pairs_and_one_cluster() -> None:
    num_samples = 20_000
    observed = Observed(np.zeros(num_samples, np.uint64), None, np.zeros(num_samples, bool))
    fates = Fates(num_samples)
    rows = np.arange(num_samples)
    pairs = find_near(fates, observed=observed, rows=rows, policy=policy("drop"))
    settle_near(fates, pairs=pairs, content=rows, sample_ids=[str(row) for row in rows], policy=policy("drop"))
    assert len(pairs) <= num_samples * near.MAX_NEIGHBORS
    assert fates.counts == {"near_duplicate": num_samples - 1}


def test_dropped_samples_are_not_compared() -> None:
    fates = Fates(3)
    fates.decide([0], fate="dropped", reason="constant", details=[""])
    observed = Observed(np.zeros(3, np.uint64), None, np.zeros(3, bool))
    assert find_near(fates, observed=observed, rows=np.arange(3), policy=policy("group")).tolist() == [[1, 2]]


def test_nothing_is_sought_when_off() -> None:
    observed = Observed(np.zeros(2, np.uint64), None, np.zeros(2, bool))
    assert find_near(Fates(2), observed=observed, rows=np.arange(2), policy=policy("off")).tolist() == []


@pytest.mark.parametrize(("kind", "fate"), [("drop", "dropped"), ("group", "kept"), ("flag", "kept")])
def test_all_but_the_first_of_a_cluster_and_its_copies_are_near_duplicates(kind: str, fate: str) -> None:
    fates = Fates(4)  # 1 is an exact copy of 0, 3 of 2; 2 is near 0
    settle_near(
        fates,
        pairs=np.array([[0, 2]]),
        content=np.array([0, 0, 2, 2]),
        sample_ids=["a", "b", "c", "d"],
        policy=policy(kind),
    )
    assert fates.reasons == ["", "", "near_duplicate", "near_duplicate"]
    assert fates.fates == ["kept", "kept", fate, fate]
    assert fates.details[3] == "of a"
