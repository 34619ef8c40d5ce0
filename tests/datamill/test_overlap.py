import threading
from collections.abc import Iterator

import pytest

from datamill.overlap import ahead, drawn


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_results_come_in_the_order_of_their_tasks(num_threads: int) -> None:
    assert list(ahead(lambda task: task * task, range(20), num_threads=num_threads)) == [n * n for n in range(20)]


@pytest.mark.parametrize("num_threads", [1, 2])
def test_as_many_tasks_are_under_way_as_there_are_threads(num_threads: int) -> None:
    begun: list[int] = []
    results = ahead(lambda task: task, (begun.append(task) or task for task in range(9)), num_threads=num_threads)
    assert next(results) == 0
    assert len(begun) == num_threads + 1
    results.close()
    assert len(begun) == num_threads + 1


def test_threads_work_while_the_caller_does() -> None:
    is_begun = threading.Event()
    results = ahead(lambda task: is_begun.set() if task else None, [0, 1], num_threads=1)
    next(results)
    assert is_begun.wait(10)  # though nobody has asked for the second result
    assert list(results) == [None]


@pytest.mark.parametrize("num_threads", [0, 2])
def test_an_error_is_raised_in_its_place(num_threads: int) -> None:
    results = ahead(lambda task: 12 // task, [3, 2, 0, 1], num_threads=num_threads)
    assert [next(results), next(results)] == [4, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("is_ahead", [False, True])
def test_items_are_drawn_one_after_the_other(is_ahead: bool) -> None:
    threads = set()

    def items() -> Iterator[int]:
        for number in range(5):
            threads.add(threading.current_thread())
            yield number

    assert list(drawn(items(), is_ahead=is_ahead)) == [0, 1, 2, 3, 4]
    assert (threads == {threading.main_thread()}) == (not is_ahead)


def test_no_thread_outlives_what_it_worked_for() -> None:
    before = threading.active_count()
    results = drawn(iter(range(100)), is_ahead=True)
    assert next(results) == 0
    assert threading.active_count() == before + 1
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
