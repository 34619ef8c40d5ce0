import numpy as np
from numpy.typing import NDArray
from scipy import stats

from datamill.shards.chance import row_chances

ROWS = np.arange(20_000)


def chances(
    rows: NDArray[np.int64] = ROWS, *, num: int = 1, seed: int = 1, epoch: int = 2, stream: int = 3
) -> NDArray[np.float64]:
    return row_chances(rows, num=num, seed=seed, epoch=epoch, stream=stream)


def test_numbers_belong_to_the_row_and_not_to_its_batch() -> None:
    np.testing.assert_array_equal(chances(np.array([17, 5, 17]), num=2), chances(num=2)[:, [17, 5, 17]])


def test_numbers_are_uniform() -> None:
    assert stats.kstest(chances()[0], "uniform").pvalue > 1e-4


def test_neighbours_epochs_seeds_and_streams_are_uncorrelated() -> None:
    one = chances()[0]
    others = [
        one[::-1],
        np.roll(one, 1),
        chances(num=2)[1],
        chances(seed=2)[0],
        chances(epoch=3)[0],
        chances(stream=4)[0],
    ]
    assert max(abs(np.corrcoef(one, other)[0, 1]) for other in others) < 4 / len(ROWS) ** 0.5
