import numpy as np

from datamill.mixing import INCREMENT, mixed


def test_the_first_numbers_are_those_that_splitmix64_gives_for_seed_0():
    steps = np.arange(1, 4, dtype=np.uint64) * INCREMENT
    assert [f"{number:016x}" for number in mixed(steps).tolist()] == [
        "e220a8397b1dcdaf",
        "6e789e6aa1b965f4",
        "06c45d188009454f",
    ]


def test_no_two_numbers_are_mixed_into_one():
    some = np.arange(100_000, dtype=np.uint64)
    assert len(np.unique(mixed(some))) == 100_000
