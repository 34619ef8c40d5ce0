"""Stretches of images that are told by one hash."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamill.sources import stretches
from datamill.sources.stretches import KnownStretches, StretchWriter, cut, stretches_of

PAYLOADS = st.lists(st.one_of(st.none(), st.binary(max_size=12)), max_size=40)


def images(count: int, *, seed: int = 0) -> pa.Array:
    """Random bytes of random lengths."""
    rng = np.random.default_rng(seed)
    return pa.array([rng.bytes(size) for size in rng.integers(20, 60, count).tolist()], pa.binary())


def keys(count: int) -> pa.Array:
    return pa.array([f"a#{row}" for row in range(count)], pa.string())


def known(path: Path, payloads: pa.Array, *, names: pa.Array, hashes: NDArray[np.uint64]) -> KnownStretches:
    """Stretches of the last ingest, with these content hashes and sample ids, shape ``(2, N, 2)``."""
    writer = StretchWriter(path)
    some = stretches_of(payloads, keys=names, stops=cut(payloads, is_end=True))
    assert writer.write(some.table(*hashes)) == range(len(some.stops))
    writer.close()
    return KnownStretches(path)


def test_stretches_end_where_the_images_say() -> None:
    payloads = images(20_000)
    stops = cut(payloads, is_end=True)
    assert 200 < len(stops) < 450
    assert stops[-1] == 20_000
    shorter = pa.concat_arrays([payloads.slice(0, 9_000), payloads.slice(9_001)])
    moved = cut(shorter, is_end=True)
    assert len(np.setdiff1d(np.where(stops > 9_000, stops - 1, stops), moved)) <= 2
    assert cut(payloads.slice(0, 9_000), is_end=False).tolist() == stops[stops <= 9_000].tolist()


def test_equal_images_end_somewhere() -> None:
    stops = cut(pa.array([b"the same"] * 2_000), is_end=False)
    assert np.diff(stops, prepend=0).max() <= stretches.MAX_ROWS
    assert cut(pa.array([b"an", b"odd"]), is_end=False).tolist() in ([1], [2], [1, 2])
    assert cut(pa.array([], pa.binary()), is_end=True).tolist() == []


def test_what_is_known_of_a_stretch_is_found_until_an_image_or_a_key_differs(tmp_path: Path) -> None:
    payloads, names = images(3_000), keys(3_000)
    hashes = np.random.default_rng(1).integers(1, 2**63, (2, 3_000, 2)).astype(np.uint64)
    hashes[:, 5] = 0
    journal = known(tmp_path / "s", payloads, names=names, hashes=hashes)
    stops = cut(payloads, is_end=True)

    same = journal.find(stretches_of(payloads, keys=names, stops=stops), num_rows=3_000)
    assert (same.contents == hashes[0]).all()
    assert (same.identities == hashes[1]).all()
    assert same.rows.tolist() == list(range(len(stops)))

    renamed = pa.array([*names.to_pylist()[:-1], "b#0"])
    contents, identities, _ = journal.find(stretches_of(payloads, keys=renamed, stops=stops), num_rows=3_000)
    assert (contents == hashes[0]).all()
    assert (identities[: stops[-2]] == hashes[1][: stops[-2]]).all()
    assert not identities[stops[-2] :].any()

    changed = pa.array([*payloads.to_pylist()[:-1], b"another"])
    contents, identities, _ = journal.find(stretches_of(changed, keys=names, stops=stops), num_rows=3_000)
    assert (contents[: stops[-2]] == hashes[0][: stops[-2]]).all()
    assert not contents[stops[-2] :].any()
    assert not identities[stops[-2] :].any()


def test_contents_are_looked_for_beside_what_is_known_and_then_everywhere(tmp_path: Path) -> None:
    payloads = images(3_000)
    hashes = np.random.default_rng(1).integers(1, 2**63, (2, 3_000, 2)).astype(np.uint64)
    hashes[:, 5] = 0
    journal = known(tmp_path / "s", payloads, names=keys(3_000), hashes=hashes)
    stops = cut(payloads, is_end=True)
    first, second, far = hashes[0][[6]], hashes[0][[stops[0]]], hashes[0][[2_999]]
    new = np.array([[5, 5]], np.uint64)

    def has(*contents: NDArray[np.uint64], near: list[int]) -> list[bool]:
        return list(journal.has_content(np.concatenate(contents), near=np.array(near, np.int64)))

    assert has(*[first] * 3, new, near=[1]) == [True, True, True, False]
    assert has(*[first] * 3, far, near=[1]) == [True, True, True, False]  # which costs no more than a look at the image
    assert has(*[second] * 3, far, near=[1]) == [True] * 4
    assert has(first, far, new, np.zeros((1, 2), np.uint64), near=[]) == [True, True, False, False]


@given(payloads=PAYLOADS, others=PAYLOADS, start=st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_hashes_are_equal_exactly_where_payloads_are(
    payloads: list[bytes | None], others: list[bytes | None], start: int
) -> None:
    first = pa.array(payloads, pa.binary())
    second = pa.array([*[b"before"] * start, *others], pa.binary()).slice(start)
    hashes = [
        stretches_of(some, keys=pa.array([""] * len(some), pa.string()), stops=np.array([len(some)])).payloads.tolist()
        for some in (first, second)
    ]
    assert (hashes[0] == hashes[1]) == (payloads == others)


@pytest.mark.parametrize("chunk", [1, 7, 1_000])
def test_where_stretches_end_does_not_depend_on_how_they_were_read(chunk: int) -> None:
    payloads = images(1_500)
    rest, stops, before = payloads.slice(0, 0), [], 0
    for start in range(0, 1_500, chunk):
        rest = pa.concat_arrays([rest, payloads.slice(start, chunk)])
        if len(rest) < 700 and start + chunk < 1_500:
            continue
        ends = cut(rest, is_end=start + chunk >= 1_500)
        stops += (ends + before).tolist()
        before, rest = stops[-1], rest.slice(int(ends[-1]))
    assert stops == cut(payloads, is_end=True).tolist()
