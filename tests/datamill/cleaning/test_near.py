import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamill import recall, runs
from datamill.cleaning import buckets, near, pairs
from datamill.cleaning.duplicates import Copies
from datamill.cleaning.near import Likeness, find_near, near_clusters, settle_near
from datamill.cleaning.observing import CONTENT, NUM_PIXELS, SKETCH_RANGE, sketch
from datamill.cleaning.policies import NearPolicy
from datamill.fates import Fates
from datamill.links import NO_LINKS, Links, linked
from datamill.recall import State
from tests.datamill.cleaning.ids import IDS, Ids

BITS = st.sampled_from([0, 1, 2, 5, 21, 22, 42, 43, 63])
FINGERPRINT = st.lists(BITS, max_size=4).map(lambda bits: sum(1 << bit for bit in set(bits)))
PICTURE = st.tuples(FINGERPRINT, st.lists(st.sampled_from([0, 4, 30, 255]), min_size=3, max_size=3).map(tuple))
ALIKE = st.tuples(FINGERPRINT, st.lists(st.sampled_from([0, 4, 9]), min_size=3, max_size=3).map(tuple))

Picture = tuple[int, tuple[int, ...]]  # fingerprint, and grey of three broad stripes


def policy(kind: str, *, max_bits: int = 2) -> NearPolicy:
    return NearPolicy(policy=kind, max_bits=max_bits, max_mean_difference=0.02, max_pixel_difference=0.1)  # type: ignore[arg-type]


def no_copies(links: Links = NO_LINKS) -> Copies:
    return Copies(links=links, contested=np.empty(0, np.int64), labels=np.empty(0, np.int32))


def contents_of(fingerprints: list[int], *, names: list[int]) -> NDArray[Any]:
    """Samples in the order of their contents; equal names are equal contents, and their order is another one."""
    samples = np.zeros(len(names), CONTENT)
    samples["first"] = np.array(names, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    samples["row"], samples["print"] = np.arange(len(names)), np.array(fingerprints, np.uint64)
    return samples[np.argsort(samples["first"])]


class Stripes:
    """Pictures of three broad stripes."""

    def __init__(self, pictures: list[Picture]) -> None:
        pixels = np.array([stripes for _, stripes in pictures], np.uint8).reshape(-1, 3)
        self._pixels = np.repeat(pixels, -(-NUM_PIXELS // 3), axis=1)[:, :NUM_PIXELS]
        self.asked: NDArray[np.int64] | None = None
        self.num_read = 0

    def sketches(self, rows: NDArray[np.int64] | None) -> NDArray[np.uint64]:
        self.asked = rows
        found = sketch(self._pixels).view(np.uint64).ravel() if len(self._pixels) else np.empty(0, np.uint64)
        return found if rows is None else np.where(np.isin(np.arange(len(found)), rows), found, 0)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        assert (np.diff(rows) > 0).all()
        self.num_read += len(rows)
        return self._pixels[rows]


def clusters_of(
    pictures: list[Picture],
    *,
    state: Path | None = None,
    names: list[int] | None = None,
    stripes: Stripes | None = None,
    max_bits: int = 2,
    mean: float = 0.02,
    made_with: str = "test",
) -> list[list[int]]:
    """First sample and sample of all samples that are near an earlier one, after a run with the given state."""
    samples = contents_of([print_ for print_, _ in pictures], names=names or list(range(len(pictures))))
    with tempfile.TemporaryDirectory() as folder:
        return (
            near_clusters(
                lambda: [samples[start : start + 7] for start in range(0, len(samples), 7)],
                pictures=stripes or Stripes(pictures),
                max_bits=max_bits,
                likeness=Likeness(mean, 0.1),
                scratch=Path(folder),
                state=State(state or Path(folder) / "state", made_with=made_with),
            )
            .pairs()
            .tolist()
        )


def expected_of(pictures: list[Picture], *, max_bits: int, mean: float) -> list[list[int]]:
    """What comparing all with all finds."""
    found = []
    for (left, a), (right, b) in itertools.combinations(enumerate(pictures), 2):
        differences = [abs(x - y) for x, y in zip(a[1], b[1], strict=True)]
        difference = (86 * sum(differences[:2]) + 84 * differences[2]) / NUM_PIXELS  # stripes of 86, 86 and 84 pixels
        is_alike = difference <= mean * 255 and max(differences) <= 0.1 * 255
        if is_alike and (a[0] ^ b[0]).bit_count() <= max_bits:
            found.append([left, right])
    return linked(np.array(found, np.int64).reshape(-1, 2)).pairs().tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(PICTURE, max_size=25), st.integers(0, 4))
def test_clusters_equal_those_found_by_comparing_all(pictures: list[Picture], max_bits: int) -> None:
    found = clusters_of(pictures, max_bits=max_bits, mean=0.05)
    assert found == expected_of(pictures, max_bits=max_bits, mean=0.05)


def test_equal_hashes_of_different_pictures_are_no_near_duplicates() -> None:
    assert clusters_of([(0, (0, 0, 0)), (0, (200, 0, 0))]) == []


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 30), ALIKE), max_size=30), min_size=2, max_size=4),
    st.sampled_from([2, 3, 64]),
)
def test_a_run_after_others_finds_what_the_first_run_would(
    runs_: list[list[tuple[int, Picture]]], neighbors: int
) -> None:
    """Samples come, go and move between runs; with few neighbours, they also push others out of each one's reach.

    What is kept for the next run must be the same too, or a fault would only show there.
    """
    drawn: dict[int, Picture] = {}
    for name, picture in itertools.chain(*runs_):
        drawn.setdefault(name, picture)  # equal contents are equal pictures
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(buckets, "MAX_NEIGHBORS", neighbors)
        patch.setattr(near, "MAX_WAITING", 2)
        for number, run in enumerate(runs_):
            names = list(dict.fromkeys(name for name, _ in run))
            pictures = [drawn[name] for name in names]
            after_others = clusters_of(pictures, names=names, state=Path(folder) / "state")
            patch.setattr(near, "MAX_WAITING", 1000)
            assert after_others == clusters_of(pictures, names=names, state=Path(folder) / f"first-{number}")
            patch.setattr(near, "MAX_WAITING", 2)
            for name in ("samples", "pairs", "seal.json"):
                kept = [Path(folder) / state / name for state in ("state", f"first-{number}")]
                assert kept[0].read_bytes() == kept[1].read_bytes(), f"{name} of run {number}"


def many(count: int) -> list[Picture]:
    """Pictures of which some resemble each other; no two are equal."""
    rng = np.random.default_rng(5)
    prints, greys = rng.integers(0, 2**20, count // 4), rng.integers(0, 200, (count // 4, 3))
    return [(int(prints[row // 4]), tuple((greys[row // 4] + row % 4).tolist())) for row in range(count)]


def test_a_rerun_looks_at_nothing_but_what_came(tmp_path: Path) -> None:
    pictures = many(400)
    clusters_of(pictures[:-4], state=tmp_path)
    stripes = Stripes(pictures)
    assert clusters_of(pictures, state=tmp_path, stripes=stripes) == clusters_of(pictures)
    assert stripes.asked is not None
    assert stripes.asked.tolist() == [396, 397, 398, 399]
    assert 4 <= stripes.num_read < 20


def test_a_rerun_of_the_same_reads_no_picture(tmp_path: Path) -> None:
    first = clusters_of(many(100), state=tmp_path)
    stripes = Stripes(many(100))
    assert clusters_of(many(100), state=tmp_path, stripes=stripes) == first
    assert len(first) >= 70
    assert stripes.num_read == 0


@pytest.mark.parametrize("name", ["samples", "pairs", "seal.json"])
def test_a_damaged_state_is_not_believed(tmp_path: Path, name: str) -> None:
    clusters_of(many(40), state=tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1])
    assert clusters_of(many(60), state=tmp_path) == clusters_of(many(60))


def test_a_state_made_with_something_else_is_not_believed(tmp_path: Path) -> None:
    clusters_of(many(40), state=tmp_path, mean=0.0, made_with="strict")
    assert clusters_of(many(40), state=tmp_path) == clusters_of(many(40))


@settings(max_examples=30, deadline=None)
@given(st.lists(ALIKE, max_size=25), st.integers(1, 9))
def test_links_that_stand_for_pairs_join_the_same_samples(pictures: list[Picture], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(pairs, "MAX_PAIRS", most)
        patch.setattr(pairs, "PER_SAMPLE", 0)
        half = len(pictures) // 2
        clusters_of(pictures[:half], state=Path(folder) / "state")
        links = clusters_of(pictures, state=Path(folder) / "state")
    assert links == clusters_of(pictures)


def test_many_equal_fingerprints_of_rows_give_one_cluster(tmp_path: Path) -> None:
    num_samples = 20_000
    clusters = equal_rows(contents_of([0] * num_samples, names=list(range(num_samples))), folder=tmp_path)
    fates = Fates(num_samples)
    settle_near(fates, clusters=clusters, copies=no_copies(), sample_ids=Ids(), policy=policy("drop"))
    assert fates.counts == {"near_duplicate": num_samples - 1}
    assert not clusters.firsts.any()


def test_only_the_given_rows_are_compared(tmp_path: Path) -> None:
    samples = contents_of([0, 0, 0], names=[1, 2, 3])
    assert equal_rows(samples[samples["row"] > 0], folder=tmp_path).pairs().tolist() == [[1, 2]]


def equal_rows(samples: NDArray[Any], *, folder: Path) -> Links:
    """Near-duplicates among rows of a table."""
    return find_near(
        lambda: [samples[:7], samples[7:]],
        thumbnails=None,
        policy=policy("drop"),
        scratch=folder,
        state=State(folder / "state", made_with=""),
    )


def test_many_equal_pictures_give_one_cluster_and_a_bounded_number_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "MAX_PAIRS", 10_000)
    monkeypatch.setattr(near, "MAX_WAITING", 10_000)
    links = clusters_of([(0, (0, 0, 0))] * 3_000)
    assert links == [[0, row] for row in range(1, 3_000)]


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
    expected = clusters_of(many(60))
    for module, name, value in (
        (near, "COMPARED_AT_ONCE", piece),
        (near, "READ_AT_ONCE", 2 * piece),
        (near, "MAX_WAITING", piece),
        (near, "RUN_ROWS", piece),
        (pairs, "RUN_ROWS", piece),
        (buckets, "PAIRED_AT_ONCE", piece),
        (buckets, "PART_ROWS", 10 * piece),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(runs, "HELD_ROWS", block)
    monkeypatch.setattr(recall, "READ_ROWS", block)
    assert len(expected) > 40
    assert clusters_of(many(60)) == expected


@pytest.mark.parametrize(("kind", "fate"), [("drop", "dropped"), ("group", "kept"), ("flag", "kept")])
def test_all_but_the_first_of_a_cluster_and_its_copies_are_near_duplicates(kind: str, fate: str) -> None:
    fates = Fates(4)  # 1 is an exact copy of 0, 3 of 2; 2 is near 0
    settle_near(
        fates,
        clusters=Links(np.array([2]), np.array([0])),
        copies=no_copies(Links(np.array([1, 3]), np.array([0, 2]))),
        sample_ids=Ids(),
        policy=policy(kind),
    )
    columns = {name: column.to_pylist() for name, column in fates.columns(0, 4).items()}
    assert columns["reasons"] == ["", "", "near_duplicate", "near_duplicate"]
    assert columns["fates"] == ["kept", "kept", fate, fate]
    assert columns["details"][3] == f"of {IDS[0]}"
