import threading
import time
from collections.abc import Iterator

import pytest
import torch

from datamill.shards.prefetching import ahead, single_thread


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("datamill-loader")]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
def test_results_come_in_the_order_of_their_tasks(num_workers: int) -> None:
    def make(task: int) -> int:
        time.sleep(0.002 if task % 3 == 0 else 0)
        return task * 10

    assert list(ahead(make, range(20), num_workers=num_workers, depth=3)) == list(range(0, 200, 10))
    assert workers() == []


def test_no_more_than_depth_is_made_ahead() -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for task in range(10):
            taken.append(task)
            yield task

    results = ahead(lambda task: task, tasks(), num_workers=2, depth=3)
    next(results)
    assert taken == [0, 1, 2, 3]
    next(results)
    assert taken == [0, 1, 2, 3, 4]
    results.close()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_comes_where_its_result_would_have_been(num_workers: int) -> None:
    def make(task: int) -> int:
        if task == 2:
            raise ValueError("task 2 is broken")
        return task

    results = ahead(make, range(5), num_workers=num_workers, depth=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="task 2 is broken"):
        next(results)
    assert workers() == []


def test_an_abandoned_iterator_ends_its_threads() -> None:
    release = threading.Event()

    def make(task: int) -> int:
        release.wait(0.05)
        return task

    results = ahead(make, range(1000), num_workers=2, depth=8)
    next(results)
    assert len(workers()) == 2
    start = time.perf_counter()
    del results
    assert workers() == []
    assert time.perf_counter() - start < 0.5  # what was waiting is not made


@pytest.mark.parametrize("num_workers", [0, 2])
def test_torch_has_one_thread_inside_and_as_many_as_before_outside(num_workers: int, two_threads: None) -> None:
    inside = list(ahead(lambda _: torch.get_num_threads(), range(4), num_workers=num_workers, depth=2))
    assert inside == [1, 1, 1, 1]
    assert torch.get_num_threads() == 2
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]


def test_threads_are_given_back_after_an_error(two_threads: None) -> None:
    with pytest.raises(KeyError), single_thread():
        raise KeyError
    assert torch.get_num_threads() == 2
