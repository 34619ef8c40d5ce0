import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamill import runs
from datamill.cleaning import near
from datamill.cleaning.duplicates import Copies
from datamill.cleaning.near import Likeness, find_near, near_pairs, settle_near
from datamill.cleaning.observing import NUM_PIXELS, SEEN, SKETCH_RANGE, Observed, Thumbnails, sketch
from datamill.cleaning.policies import NearPolicy
from datamill.fates import Fates
from datamill.links import NO_LINKS, Links, linked
from tests.datamill.cleaning.ids import IDS, Ids

BITS = st.sampled_from([0, 1, 2, 5, 21, 22, 42, 43, 63])
FINGERPRINT = st.lists(BITS, max_size=4).map(lambda bits: sum(1 << bit for bit in set(bits)))


def policy(kind: str, *, max_bits: int = 2) -> NearPolicy:
    return NearPolicy(policy=kind, max_bits=max_bits, max_mean_difference=0.02, max_pixel_difference=0.1)  # type: ignore[arg-type]


def seen(fingerprints: NDArray[np.uint64]) -> NDArray[Any]:
    """What is known of samples without pictures."""
    samples = np.zeros(len(fingerprints), SEEN)
    samples["row"], samples["print"] = np.arange(len(fingerprints)), fingerprints
    return samples


def no_copies(links: Links = NO_LINKS) -> Copies:
    return Copies(links=links, contested=np.empty(0, np.int64), labels=np.empty(0, np.int32))


def equal_rows(samples: NDArray[Any], *, folder: Path) -> NDArray[np.int64]:
    """Near pairs among rows of a table."""
    observed = Observed(folder / "seen", constant=np.empty(0, np.int64), thumbnails=None)
    return find_near(
        lambda: [samples[:7], samples[7:]], observed=observed, num_samples=0, policy=policy("drop"), scratch=folder
    )


def pairs_of(
    fingerprints: NDArray[np.uint64], pixels: NDArray[np.uint8], *, max_bits: int = 2, mean: float = 0.02
) -> NDArray[np.int64]:
    """Near pairs of pictures of a few broad stripes."""
    thumbnails = np.repeat(pixels, -(-NUM_PIXELS // pixels.shape[1]), axis=1)[:, :NUM_PIXELS]
    samples = seen(fingerprints)
    samples["sketch"] = sketch(thumbnails).view(np.uint64).ravel()
    with tempfile.TemporaryDirectory() as folder:
        return near_pairs(
            lambda: [samples[start : start + 7] for start in range(0, len(samples), 7)],
            num_samples=len(fingerprints),
            read=lambda rows: thumbnails[rows],
            max_bits=max_bits,
            likeness=Likeness(mean, 0.1),
            scratch=Path(folder),
        )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(FINGERPRINT, st.lists(st.sampled_from([0, 4, 30, 255]), min_size=3, max_size=3)), max_size=25),
    st.integers(0, 4),
)
def test_pairs_equal_those_found_by_comparing_all(samples: list[tuple[int, list[int]]], max_bits: int) -> None:
    expected = []
    for (left, a), (right, b) in itertools.combinations(enumerate(samples), 2):
        differences = [abs(x - y) for x, y in zip(a[1], b[1], strict=True)]
        mean = (86 * sum(differences[:2]) + 84 * differences[2]) / NUM_PIXELS  # stripes of 86, 86 and 84 pixels
        is_alike = mean <= 0.05 * 255 and max(differences) <= 0.1 * 255
        if is_alike and (a[0] ^ b[0]).bit_count() <= max_bits:
            expected.append([left, right])
    fingerprints = np.array([fingerprint for fingerprint, _ in samples], np.uint64)
    thumbnails = np.array([pixels for _, pixels in samples], np.uint8).reshape(-1, 3)
    assert pairs_of(fingerprints, thumbnails, max_bits=max_bits, mean=0.05).tolist() == expected


def test_equal_hashes_of_different_pictures_are_no_near_duplicates() -> None:
    assert pairs_of(np.zeros(2, np.uint64), np.array([[0, 0], [200, 0]], np.uint8)).tolist() == []


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(FINGERPRINT, st.lists(st.sampled_from([0, 4, 9]), min_size=3, max_size=3)), max_size=25),
    st.integers(1, 9),
)
def test_links_that_stand_for_pairs_join_the_same_samples(samples: list[tuple[int, list[int]]], most: int) -> None:
    fingerprints = np.array([fingerprint for fingerprint, _ in samples], np.uint64)
    thumbnails = np.array([pixels for _, pixels in samples], np.uint8).reshape(-1, 3)
    pairs = pairs_of(fingerprints, thumbnails)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near, "MAX_PAIRS", most)
        links = pairs_of(fingerprints, thumbnails)
    clusters = [linked(one).pairs().tolist() for one in (pairs, links)]
    assert clusters[0] == clusters[1]


def test_many_equal_fingerprints_give_one_pair_each_and_one_cluster(tmp_path: Path) -> None:
    num_samples = 20_000
    pairs = equal_rows(seen(np.zeros(num_samples, np.uint64)), folder=tmp_path)
    fates = Fates(num_samples)
    settle_near(fates, pairs=pairs, copies=no_copies(), sample_ids=Ids(), policy=policy("drop"))
    assert len(pairs) == num_samples - 1
    assert fates.counts == {"near_duplicate": num_samples - 1}


def test_many_equal_pictures_give_a_bounded_number_of_links_and_one_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "MAX_PAIRS", 10_000)
    monkeypatch.setattr(runs, "RUN_ROWS", 100)
    num_samples = 3_000
    links = pairs_of(np.zeros(num_samples, np.uint64), np.zeros((num_samples, 4), np.uint8))
    assert len(links) < 10_000 + 2 * near.MAX_NEIGHBORS * 100
    assert linked(links).rows.tolist() == list(range(1, num_samples))
    assert not linked(links).firsts.any()


def test_only_the_given_samples_are_compared(tmp_path: Path) -> None:
    assert equal_rows(seen(np.zeros(3, np.uint64))[1:], folder=tmp_path).tolist() == [[1, 2]]


def test_thumbnails_are_read_from_their_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, NUM_PIXELS), dtype=np.uint8)
    pixels.tofile(tmp_path / "thumbnails")
    rows = np.array([7, 31, 0, 49])
    np.testing.assert_array_equal(Thumbnails(tmp_path / "thumbnails").read(rows), pixels[rows])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 9, 200]))
def test_sketches_differ_no_more_than_their_thumbnails(seed: int, change: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (1, NUM_PIXELS))
    other = np.clip(pixels + rng.integers(-change, change + 1, NUM_PIXELS) * rng.integers(0, 2), 0, 255)
    sketches = sketch(np.concatenate([pixels, other]).astype(np.uint8)).astype(int)
    assert np.abs(sketches).max() <= SKETCH_RANGE
    assert np.abs(sketches[0] - sketches[1]).max() <= np.abs(pixels - other).mean() / 255 * SKETCH_RANGE + 1


@pytest.mark.parametrize(("block", "piece"), [(1, 1), (3, 2), (1_000, 7)])
def test_how_much_is_looked_at_at_a_time_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, block: int, piece: int
) -> None:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (4, 3), dtype=np.uint8)[rng.integers(0, 4, 30)] // 2
    expected = pairs_of(np.zeros(30, np.uint64), pixels)
    for name, value in {
        "COMPARED_AT_ONCE": piece,
        "MAX_PAIRS": 10**6,
    }.items():
        monkeypatch.setattr(near, name, value)
    monkeypatch.setattr(runs, "RUN_ROWS", piece)
    monkeypatch.setattr(runs, "HELD_ROWS", block)
    assert len(expected) > 50
    np.testing.assert_array_equal(pairs_of(np.zeros(30, np.uint64), pixels), expected)


@pytest.mark.parametrize(("kind", "fate"), [("drop", "dropped"), ("group", "kept"), ("flag", "kept")])
def test_all_but_the_first_of_a_cluster_and_its_copies_are_near_duplicates(kind: str, fate: str) -> None:
    fates = Fates(4)  # 1 is an exact copy of 0, 3 of 2; 2 is near 0
    settle_near(
        fates,
        pairs=np.array([[0, 2]]),
        copies=no_copies(Links(np.array([1, 3]), np.array([0, 2]))),
        sample_ids=Ids(),
        policy=policy(kind),
    )
    columns = {name: column.to_pylist() for name, column in fates.columns(0, 4).items()}
    assert columns["reasons"] == ["", "", "near_duplicate", "near_duplicate"]
    assert columns["fates"] == ["kept", "kept", fate, fate]
    assert columns["details"][3] == f"of {IDS[0]}"
