import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamill import recall
from datamill.recall import Former, State, match

NAMED = np.dtype([("first", np.uint64), ("second", np.uint64)])


def named(firsts: list[int]) -> np.ndarray:
    records = np.zeros(len(firsts), NAMED)
    records["first"] = sorted(firsts)
    return records


def kept(folder: Path) -> Path:
    (folder / "words").write_bytes(b"one two")
    State(folder / "state", made_with="a").keep([folder / "words"], facts={"count": 2})
    return folder / "state"


def test_what_was_kept_is_recalled_with_its_facts(tmp_path: Path) -> None:
    state = kept(tmp_path)
    assert State(state, made_with="a").facts() == {"count": 2}
    assert (state / "words").read_bytes() == b"one two"
    assert not (tmp_path / "words").exists()


def test_what_was_made_with_something_else_is_not_believed(tmp_path: Path) -> None:
    assert State(kept(tmp_path), made_with="b").facts() is None


@pytest.mark.parametrize("name", ["words", "seal.json"])
@pytest.mark.parametrize("content", [b"", b"one twa", None])
def test_what_is_damaged_or_gone_is_not_believed(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = kept(tmp_path) / name
    path.write_bytes(content) if content is not None else path.unlink()
    assert State(tmp_path / "state", made_with="a").facts() is None


def test_nothing_is_recalled_before_the_first_run(tmp_path: Path) -> None:
    assert State(tmp_path / "state", made_with="a").facts() is None


@given(st.lists(st.integers(0, 40), max_size=30), st.lists(st.integers(0, 40), max_size=5), st.integers(1, 4))
def test_records_are_taken_as_far_as_asked_and_none_twice(firsts: list[int], bounds: list[int], at_once: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(recall, "READ_ROWS", at_once)
        named(firsts).tofile(Path(folder) / "records")
        former = Former(Path(folder) / "records", NAMED)
        taken = [former.up_to(np.uint64(bound))["first"].tolist() for bound in sorted(bounds)]
        rest = former.up_to()["first"].tolist()
    for some, bound in zip(taken, sorted(bounds), strict=True):
        assert all(first <= bound for first in some)
    assert all(first > max(bounds, default=-1) for first in rest)
    assert [*(first for some in taken for first in some), *rest] == sorted(firsts)


def test_without_a_file_there_are_no_records() -> None:
    assert len(Former(None, NAMED).up_to(np.uint64(7))) == 0


def test_records_match_where_all_fields_are_equal() -> None:
    records, others = named([1, 3, 5, 9]), named([0, 3, 5])
    records["second"], others["second"] = [0, 7, 7, 0], [0, 7, 8]
    assert match(records, others, fields=["second"]).tolist() == [-1, 1, -1, -1]
    assert match(records, others[:0], fields=["second"]).tolist() == [-1, -1, -1, -1]
