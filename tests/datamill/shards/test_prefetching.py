import itertools
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from datamill.shards.prefetching import FIRST_REST, REFRESH, ThreadChoice, ahead


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
    with pytest.raises(KeyError), ThreadChoice(most=1).measured():
        raise KeyError(torch.get_num_threads())
    assert torch.get_num_threads() == 2


def chosen(choice: ThreadChoice, *, alone_s: float, many_s: float, count: int) -> list[int]:
    """Threads of the next tasks, where one of them takes so long on one thread and on several."""
    threads = []
    for _ in range(count):
        threads.append(choice.next(2))
        choice.learn(threads[-1], seconds=alone_s if threads[-1] == 1 else many_s)
    return threads


def test_all_threads_work_where_they_are_faster_and_one_is_measured_now_and_then() -> None:
    threads = chosen(ThreadChoice(), alone_s=1.0, many_s=0.6, count=2 * REFRESH)
    assert threads[:4] == [1, 2, 2, 2]
    assert threads.count(1) == 3


def test_one_thread_works_where_more_are_slower_and_more_are_tried_ever_more_rarely() -> None:
    threads = chosen(ThreadChoice(), alone_s=1.0, many_s=20.0, count=20 * FIRST_REST)
    tried = [place for place, count in enumerate(threads) if count == 2]
    assert len(tried) == 3
    rests = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert rests == sorted(rests)
    assert rests[-1] > 3 * rests[0]


def test_all_threads_come_back_when_the_other_process_is_gone() -> None:
    choice = ThreadChoice()
    chosen(choice, alone_s=1.0, many_s=20.0, count=100)
    assert chosen(choice, alone_s=1.0, many_s=0.6, count=600)[-40:].count(2) >= 39


def test_nobody_gets_more_threads_than_torch_has_outside() -> None:
    assert [ThreadChoice().next(1) for _ in range(5)] == [1] * 5
