from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from datamill.errors import DataError, DatamillError, ParamsError
from datamill.shards import order
from datamill.shards.order import Kind, OrderReader, Shuffled, make_order


def epoch_rows(
    kind: Kind = "random", *, num_rows: int, seed: int = 1, epoch: int = 0, block_rows: int = 64
) -> NDArray[np.int64]:
    reader = OrderReader(make_order(kind, num_rows=num_rows, seed=seed, epoch=epoch, block_rows=block_rows))
    return reader.rows(0, num_rows)


@pytest.fixture
def tiny_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "PIECE", 8)
    monkeypatch.setattr(order, "WINDOW", 3)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["random", "blocks", "sequential"]),
    num_rows=st.one_of(st.integers(0, 70), st.integers(12_280, 40_000)),
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 1000),
    block_rows=st.integers(1, 300),
)
def test_every_row_comes_exactly_once(kind: Kind, num_rows: int, seed: int, epoch: int, block_rows: int) -> None:
    rows = epoch_rows(kind, num_rows=num_rows, seed=seed, epoch=epoch, block_rows=block_rows)
    assert rows.dtype == np.int64
    assert len(rows) == num_rows
    np.testing.assert_array_equal(np.sort(rows), np.arange(num_rows))


@settings(max_examples=60, deadline=None)
@given(num_rows=st.integers(1, 200), data=st.data())
def test_the_feistel_network_is_a_bijection_at_any_size(num_rows: int, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "PIECE", 0)
        shuffled = Shuffled(num_rows, rng=np.random.default_rng(data.draw(st.integers(0, 99))))
    assert sorted(shuffled.at(np.arange(num_rows)).tolist()) == list(range(num_rows))


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(["random", "blocks", "sequential"]), data=st.data())
def test_a_part_is_the_same_wherever_reading_starts(kind: Kind, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "PIECE", 8)
        patch.setattr(order, "WINDOW", 3)
        whole = epoch_rows(kind, num_rows=75, block_rows=4)
        start = data.draw(st.integers(0, 75))
        stop = data.draw(st.integers(start, 75))
        reader = OrderReader(make_order(kind, num_rows=75, seed=1, epoch=0, block_rows=4))
        np.testing.assert_array_equal(reader.rows(start, stop), whole[start:stop])


@pytest.mark.parametrize("num_rows", [2**40, 2**40 + 1, 10**12])
def test_a_huge_epoch_is_read_in_its_middle_at_once(num_rows: int) -> None:
    start = num_rows // 2
    rows = OrderReader(make_order("random", num_rows=num_rows, seed=0, epoch=3)).rows(start, start + 1000)
    assert len(set(rows.tolist())) == 1000
    assert 0 <= rows.min() < num_rows // 4 < 3 * num_rows // 4 < rows.max() < num_rows


def test_sequential_is_the_order_of_the_rows() -> None:
    np.testing.assert_array_equal(epoch_rows("sequential", num_rows=20_000), np.arange(20_000))


@pytest.mark.parametrize("num_rows", [20_000, 65_537, 100_003])
def test_a_shuffle_leaves_no_trend(num_rows: int) -> None:
    rows = epoch_rows(num_rows=num_rows)
    assert abs(stats.spearmanr(np.arange(num_rows), rows).statistic) < 4 / num_rows**0.5


@pytest.mark.parametrize("num_rows", [20_000, 65_537])
def test_neighbours_are_torn_apart(num_rows: int) -> None:
    steps = np.abs(np.diff(epoch_rows(num_rows=num_rows)))
    assert (steps == 1).sum() < 12  # two are expected
    assert np.median(steps) == pytest.approx(num_rows * (1 - 0.5**0.5), rel=0.03)


@pytest.mark.parametrize("num_rows", [10_000, 20_000, 65_537])
def test_rows_of_any_quarter_go_to_all_quarters_alike(num_rows: int) -> None:
    rows = epoch_rows(num_rows=num_rows)
    table = np.histogram2d(np.arange(num_rows), rows, bins=4)[0]
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_low_bits_are_as_random_as_high_ones() -> None:
    rows = epoch_rows(num_rows=2**16)
    table = np.histogram2d(np.arange(2**16) % 16, rows % 16, bins=16)[0]
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_any_row_comes_first_in_some_epoch_equally_often() -> None:
    first = [
        int(OrderReader(make_order("random", num_rows=20_000, seed=5, epoch=epoch)).rows(0, 1)[0])
        for epoch in range(400)
    ]
    assert stats.kstest(np.array(first) / 20_000, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("kind", ["random", "blocks"])
@pytest.mark.parametrize("other", [{"seed": 2}, {"epoch": 1}])
def test_seeds_and_epochs_are_uncorrelated(kind: Kind, other: dict[str, int]) -> None:
    one, two = epoch_rows(kind, num_rows=20_000), epoch_rows(kind, num_rows=20_000, **other)
    assert abs(stats.spearmanr(one, two).statistic) < 4 * 64 / 20_000**0.5
    assert (one == two).sum() < 12


def test_a_block_shuffle_leaves_no_trend_and_tears_neighbours_apart() -> None:
    rows = epoch_rows("blocks", num_rows=100_003, block_rows=50)
    assert abs(stats.spearmanr(np.arange(100_003), rows).statistic) < 4 / 2000**0.5  # as random as 2000 blocks can be
    assert (np.abs(np.diff(rows)) == 1).mean() < 0.03  # two of a block's 50 rows, in a window of 3200


def test_a_block_shuffle_reads_few_places_at_a_time() -> None:
    rows = epoch_rows("blocks", num_rows=200_000, block_rows=100)
    window = np.sort(rows[: order.WINDOW * 100])
    assert (np.diff(window) > 1).sum() < order.WINDOW


def test_blocks_begin_elsewhere_in_each_epoch(tiny_pieces: None) -> None:
    windows = [epoch_rows("blocks", num_rows=75, epoch=epoch, block_rows=5)[:15] for epoch in range(8)]
    assert len({rows.min() % 5 for rows in windows}) > 1


def drawn(draw: NDArray[np.floating[Any]], *, epoch: int = 0) -> NDArray[np.int64]:
    reader = OrderReader(make_order("random", num_rows=len(draw), seed=3, epoch=epoch, draw=draw))
    return reader.rows(0, len(draw))


def test_rows_are_drawn_as_often_as_they_are_probable() -> None:
    draw = np.ones(40_000, np.float32)
    draw[:10_000] = 3
    rows = drawn(draw)
    assert len(rows) == 40_000
    assert (rows < 10_000).mean() == pytest.approx(0.5, abs=0.01)


def test_a_row_of_probability_0_is_never_drawn() -> None:
    draw = np.zeros(20_000)
    draw[[3, 17]] = 1
    assert set(drawn(draw).tolist()) == {3, 17}


def test_equal_probabilities_are_a_shuffle() -> None:
    np.testing.assert_array_equal(drawn(np.full(500, 0.2)), epoch_rows(num_rows=500, seed=3))


def test_draws_differ_between_epochs_and_are_read_from_anywhere(tiny_pieces: None) -> None:
    draw = np.arange(50.0)
    assert not np.array_equal(drawn(draw), drawn(draw, epoch=1))
    reader = OrderReader(make_order("random", num_rows=50, seed=3, epoch=0, draw=draw))
    np.testing.assert_array_equal(reader.rows(21, 40), drawn(draw)[21:40])


def refused(kind: str = "random", **changes: Any) -> pytest.ExceptionInfo[DatamillError]:
    with pytest.raises(DatamillError) as caught:
        make_order(kind, **{"num_rows": 3, "seed": 0, "epoch": 0} | changes)  # type: ignore[arg-type]
    return caught


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("shuffled", {}, "order is 'shuffled'; choose from random, sequential, blocks"),
        ("random", {"seed": -1}, "seed is -1 and epoch 0; both count from 0"),
        ("blocks", {"block_rows": 0}, "block_rows is 0; a block has at least one row"),
        ("blocks", {"draw": np.ones(3)}, "draw needs order 'random', not 'blocks'"),
    ],
)
def test_parameters_that_make_no_order_are_refused(kind: str, changes: dict[str, Any], message: str) -> None:
    caught = refused(kind, **changes)
    assert caught.type is ParamsError
    assert caught.match(message)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        ([1.0, -1.0, 1.0], r"draw goes from -1\.0 to 1\.0; relative probabilities are finite and not negative"),
        ([1.0, np.nan, 1.0], "draw goes from nan"),
        ([0.0, 0.0, 0.0], "draw is 0 for all 3 rows, so none can be drawn"),
        ([1.0, 1.0], r"draw has shape \(2,\) for 3 rows"),
    ],
)
def test_probabilities_that_are_none_are_refused(draw: list[float], message: str) -> None:
    caught = refused(draw=np.array(draw))
    assert caught.type is DataError
    assert caught.match(message)
