import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datamill.errors import ParamsError
from datamill.shards.batching import BucketPlan, Buckets, FixedPlan, Place, Plan, Shares
from datamill.shards.order import OrderReader, make_order

FIRST = Place()
LENGTHS = np.random.default_rng(0).integers(0, 50, 10_000)


def reader(num_rows: int) -> OrderReader:
    return OrderReader(make_order("random", num_rows=num_rows, seed=1, epoch=0))


def flat(batches: Iterable[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(batches))


def all_batches(plan: Plan, *, at_a_time: int = 3, place: Place = FIRST) -> list[list[int]]:
    batches = []
    while (portion := plan.portion(place, num_batches=at_a_time)) is not None:
        assert len(portion.sizes) == len(portion.places) <= at_a_time
        batches += [part.tolist() for part in np.split(portion.rows, np.cumsum(portion.sizes)[:-1])]
        place = portion.places[-1]
    assert place.batch >= len(batches)
    return batches


def bucketed(num_rows: int = 500, *, key: list[int] | None = None, **changes: Any) -> BucketPlan:
    buckets = {name: changes.pop(name) for name in ("max_tokens", "pool_batches", "multiple_of") if name in changes}
    return BucketPlan(
        reader(num_rows),
        shares=Shares(num_rows, **{"batch_size": 8} | changes),
        buckets=Buckets("tokens", **{"pool_batches": 4} | buckets),
        lengths=LENGTHS.__getitem__,
        key=[1, 0] if key is None else key,
    )


@pytest.mark.parametrize(("last", "sizes"), [("keep", [4, 4, 4, 2]), ("drop", [4, 4, 4]), ("even", [4, 4, 3, 3])])
def test_rows_that_do_not_fill_a_batch_are_kept_dropped_or_spread(last: Any, sizes: list[int]) -> None:
    batches = all_batches(FixedPlan(reader(14), shares=Shares(14, 4, last=last)))
    assert [len(batch) for batch in batches] == sizes
    assert flat(batches) == reader(14).rows(0, sum(sizes)).tolist()


@settings(max_examples=50, deadline=None)
@given(
    num_rows=st.integers(0, 200), steps=st.integers(1, 5), world=st.integers(1, 4), at=st.integers(1, 5), data=st.data()
)
def test_ranks_together_see_what_one_sees_in_the_same_order(
    num_rows: int, steps: int, world: int, at: int, data: Any
) -> None:
    size, last = steps * world, data.draw(st.sampled_from(["drop", "keep", "even"]))
    try:
        shares = [Shares(num_rows, size, rank=rank, world_size=world, last=last) for rank in range(world)]
    except ParamsError:
        assert last != "drop"
        return
    one = all_batches(FixedPlan(reader(num_rows), shares=Shares(num_rows, size, last=last)))
    ranks = [all_batches(FixedPlan(reader(num_rows), shares=share), at_a_time=at) for share in shares]
    assert [flat(parts) for parts in zip(*ranks, strict=True)] == one
    if last != "drop":
        assert sorted(flat(one)) == list(range(num_rows))


@settings(max_examples=30, deadline=None)
@given(start=st.integers(0, 62), at=st.integers(1, 9))
def test_an_epoch_goes_on_at_any_batch(start: int, at: int) -> None:
    plans: list[Plan] = [FixedPlan(reader(500), shares=Shares(500, 8)), bucketed()]
    for plan in plans:
        whole, place = all_batches(plan), Place()
        for _ in range(start):
            portion = plan.portion(place, num_batches=1)
            assert portion is not None
            place = portion.places[0]
        assert all_batches(plan, at_a_time=at, place=place) == whole[start:]


def test_the_middle_of_a_huge_epoch_costs_nothing() -> None:
    plan = FixedPlan(reader(10**12), shares=Shares(10**12, 1000))
    portion = plan.portion(Place(10**9 - 1), num_batches=4)
    assert portion is not None
    assert (portion.sizes, portion.places) == ([1000], [Place(10**9)])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; a batch has at least one row"),
        ({"rank": 2, "world_size": 2}, "rank is 2 of world_size 2; ranks count from 0 to one less"),
        ({"world_size": 3}, "batch_size 8 cannot be divided by world_size 3; use 6"),
        (
            {"batch_size": 8, "world_size": 8, "num_rows": 17},
            "the last batch has 1 rows for 8 ranks, .* drop_last=True",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        Shares(**{"num_rows": 100, "batch_size": 8} | numbers)


@settings(max_examples=40, deadline=None)
@given(
    num_rows=st.integers(0, 300),
    max_tokens=st.one_of(st.none(), st.integers(200, 600)),
    multiple_of=st.sampled_from([1, 2, 4]),
    drop=st.booleans(),
)
def test_buckets_give_every_row_once_within_the_budget(
    num_rows: int, max_tokens: int | None, multiple_of: int, drop: bool
) -> None:
    plan = bucketed(num_rows, max_tokens=max_tokens, multiple_of=multiple_of, last="drop" if drop else "keep")
    batches = all_batches(plan)
    rows = flat(batches)
    assert len(rows) == len(set(rows)) == num_rows - (num_rows % multiple_of if drop else 0)
    uneven = [batch for batch in batches if len(batch) % multiple_of]
    assert len(uneven) <= (0 if drop else 1)
    for batch in batches:
        assert 1 <= len(batch) <= 8
        assert len(batch) * LENGTHS[batch].max() <= (max_tokens or 10**9)


def padding(batches: list[list[int]]) -> float:
    lengths = [LENGTHS[batch] for batch in batches]
    return 1 - float(sum(some.sum() for some in lengths) / sum(some.max() * len(some) for some in lengths))


def test_buckets_pad_little() -> None:
    assert padding(all_batches(FixedPlan(reader(5000), shares=Shares(5000, 8)))) > 0.4
    assert padding(all_batches(bucketed(5000, pool_batches=32))) < 0.05


def test_batches_of_like_length_are_spread_over_the_epoch() -> None:
    longest = [LENGTHS[batch].max() for batch in all_batches(bucketed(5000, pool_batches=32))]
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.2
    assert abs(np.corrcoef(longest[1:], longest[:-1])[0, 1]) < 0.2


def test_ranks_share_the_batches_of_buckets() -> None:
    one = all_batches(bucketed(501, max_tokens=300, multiple_of=2, last="drop"))
    ranks = [
        all_batches(bucketed(501, max_tokens=300, multiple_of=2, last="drop", rank=rank, world_size=2))
        for rank in (0, 1)
    ]
    assert [first + second for first, second in zip(*ranks, strict=True)] == one
    assert {len(a) - len(b) for a, b in zip(*ranks, strict=True)} == {0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"world_size": 2}, "buckets.multiple_of is 1 for batch_size 8 and world_size 2; use a multiple of world_size"),
        ({"multiple_of": 3}, "buckets.multiple_of is 3 for batch_size 8"),
        ({"num_rows": 406, "multiple_of": 4, "world_size": 4}, "a batch of 2 rows is left for 4 ranks"),
        ({"pool_batches": 0}, "its numbers are at least 1"),
    ],
)
def test_buckets_that_cannot_be_shared_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        bucketed(**changes)


def test_a_row_beyond_the_budget_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"a row of \d\d elements, 1 of its like, exceeds buckets.max_tokens 20"):
        all_batches(bucketed(max_tokens=20))


def test_sequential_buckets_stay_sorted_within_their_pool() -> None:
    plan = BucketPlan(
        reader(64), shares=Shares(64, 8), buckets=Buckets("t", pool_batches=8), lengths=LENGTHS.__getitem__, key=None
    )
    lengths: NDArray[np.int64] = LENGTHS[flat(all_batches(plan))]
    assert (np.diff(lengths) >= 0).all()
