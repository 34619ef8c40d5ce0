import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamill.monitoring.keeping import Keeper, Kept
from datamill.samples import content_hash
from datamill.sampling import scores

IDS = pa.chunked_array([[content_hash(str(row).encode())[:32] for row in range(60)]])
INPUTS = np.arange(120, dtype=np.float32).reshape(60, 2)


def kept(cuts: list[int], *, size: int) -> Kept:
    keeper = Keeper(size, key="window 1")
    for start, stop in zip([0, *cuts], [*cuts, 60], strict=True):
        keeper.add(IDS.slice(start, stop - start), inputs=INPUTS[start:stop], first_row=start)
    return keeper.kept


@given(cuts=st.lists(st.integers(1, 59), max_size=5, unique=True).map(sorted), size=st.integers(1, 70))
def test_the_smallest_scores_are_kept_in_order_however_the_samples_come(cuts: list[int], size: int) -> None:
    chosen = kept(cuts, size=size)
    expected = np.sort(np.argsort(scores(IDS, key="window 1"), kind="stable")[:size])
    assert chosen.rows.tolist() == expected.tolist()
    assert chosen.inputs is not None
    assert chosen.inputs.tolist() == INPUTS[expected].tolist()


def test_nothing_is_kept_where_nothing_shall_be() -> None:
    assert kept([30], size=0).inputs is None


@pytest.mark.parametrize("size", [3, 20])
def test_what_was_added_can_be_taken_back(size: int) -> None:
    keeper = Keeper(size, key="window 1")
    keeper.add(IDS.slice(0, 10), inputs=INPUTS[:10], first_row=0)
    before = keeper.kept
    keeper.add(IDS.slice(10), inputs=INPUTS[10:], first_row=10)
    assert keeper.kept.rows.tolist() != before.rows.tolist()
    keeper.kept = before
    keeper.add(IDS.slice(10), inputs=INPUTS[10:], first_row=10)
    assert keeper.kept.rows.tolist() == kept([], size=size).rows.tolist()
