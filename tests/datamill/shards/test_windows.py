from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamill.errors import ParamsError
from datamill.shards import Field, ShardWriter, open_shard
from datamill.shards.fields import ArrayField, RaggedField
from datamill.shards.native import memory_shard
from datamill.shards.windows import PaddedColumn, Window, WindowColumn

Rows = list[NDArray[Any]]


def ragged(
    folder: Path, rows: Rows, *, dtype: str = "int32", shape: tuple[int, ...] = (), segment: int = 4
) -> RaggedField:
    with ShardWriter(folder, split="train", fields={"tokens": Field.ragged(dtype, shape)}) as writer:
        for number, start in enumerate(range(0, len(rows), segment)):
            writer.next_segment("tokens", key=f"{number:02x}")
            writer.write({"tokens": [row.astype(dtype) for row in rows[start : start + segment]]})
    field = open_shard(folder).fields["tokens"]
    assert isinstance(field, RaggedField)
    return field


def numbered(lengths: list[int]) -> Rows:
    """Rows whose elements say which row and place they are from; none is 0."""
    return [1000 * (row + 1) + np.arange(length) for row, length in enumerate(lengths)]


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    pad=st.sampled_from([0, -1]),
    dtype=st.sampled_from(["int32", "float32"]),
    data=st.data(),
)
def test_rows_are_padded_to_the_longest_of_their_batch(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], pad: int, dtype: str, data: st.DataObject
) -> None:
    rows = numbered(lengths)
    column = PaddedColumn(ragged(tmp_path_factory.mktemp("r") / "s", rows, dtype=dtype), pad=pad)
    wanted = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=2, max_size=12)))
    sizes = [1, len(wanted) - 1]
    batches = column.load(wanted, sizes=sizes)
    for some, (padded, mask, length) in zip(np.split(wanted, [1]), batches, strict=True):
        longest = max(lengths[row] for row in some)
        expected = [[*rows[row].tolist(), *[pad] * (longest - lengths[row])] for row in some]
        assert padded.tolist() == expected
        assert padded.dtype == getattr(torch, dtype)
        assert mask.tolist() == [[place < lengths[row] for place in range(longest)] for row in some]
        assert length.tolist() == [lengths[row] for row in some]


def test_infinity_behind_a_row_is_blanked(tmp_path: Path) -> None:
    rows = [np.array([1.0]), np.array([np.inf, np.nan])]
    ((padded, _, _),) = PaddedColumn(ragged(tmp_path / "s", rows, dtype="float32"), pad=0).load(
        np.array([0, 1]), sizes=[2]
    )
    assert padded[0].tolist() == [1.0, 0.0]


def test_elements_may_have_a_shape(tmp_path: Path) -> None:
    rows = [np.ones((2, 3)), np.full((1, 3), 2)]
    ((padded, mask, _),) = PaddedColumn(ragged(tmp_path / "s", rows, shape=(3,)), pad=0).load(
        np.array([0, 1]), sizes=[2]
    )
    assert padded.shape == (2, 2, 3)
    assert padded[1].tolist() == [[2, 2, 2], [0, 0, 0]]
    assert mask.tolist() == [[True, True], [True, False]]


def windows(
    field: RaggedField | ArrayField, *, length: int, crop: Any = "random", epoch: int = 0, seed: int = 0
) -> Any:
    column = WindowColumn(field, window=Window(length, crop), seed=seed)
    out = torch.full((field.num_rows, *column.shape), -7, dtype=column.dtype)
    column.load(np.arange(field.num_rows), out=out, epoch=epoch)
    return out.tolist()


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=12), length=st.integers(1, 12), epoch=st.integers(0, 3))
def test_a_window_is_part_of_its_row_or_all_of_it_and_zeros(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], length: int, epoch: int
) -> None:
    rows = numbered(lengths)
    found = windows(ragged(tmp_path_factory.mktemp("r") / "s", rows), length=length, epoch=epoch)
    for row, window in zip(rows, found, strict=True):
        if len(row) < length:
            assert window == [*row.tolist(), *[0] * (length - len(row))]
        else:
            skipped = window[0] - row[0]
            assert window == row[skipped : skipped + length].tolist()


def test_random_windows_reach_both_ends_and_differ_by_epoch(tmp_path: Path) -> None:
    field = ragged(tmp_path / "s", numbered([6] * 60))
    skipped = [window[0] % 1000 for window in windows(field, length=4)]
    assert set(skipped) == {0, 1, 2}
    assert skipped != [window[0] % 1000 for window in windows(field, length=4, epoch=1)]
    assert skipped != [window[0] % 1000 for window in windows(field, length=4, seed=1)]


@pytest.mark.parametrize(("crop", "expected"), [("start", [1000, 1001]), ("center", [1002, 1003])])
def test_windows_at_the_start_and_in_the_middle(tmp_path: Path, crop: str, expected: list[int]) -> None:
    assert windows(ragged(tmp_path / "s", numbered([6])), length=2, crop=crop) == [expected]


def test_arrays_have_windows_too() -> None:
    x = np.arange(24).reshape(3, 4, 2)
    field = memory_shard({"x": x}, split="train").fields["x"]
    assert isinstance(field, ArrayField)
    assert windows(field, length=2, crop="center") == x[:, 1:3].tolist()


@pytest.mark.parametrize("wrong", [{"length": 0}, {"length": 3, "crop": "end"}])
def test_what_makes_no_window_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match="makes no window; length is at least 1, crop random, center or start"):
        Window(**wrong)
