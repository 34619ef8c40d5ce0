"""Work done ahead on threads, handed over in order; one thread inside each, so that they do not fight over cores."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Task = TypeVar("Task")
Result = TypeVar("Result")


def ahead(
    make: Callable[[Task], Result], tasks: Iterable[Task], *, num_workers: int, depth: int
) -> Generator[Result, None, None]:
    """Results in the order of their tasks.

    With workers, ``depth`` tasks beyond the one handed over are under way; a task is taken when it can start. An error
    in a worker is raised where its result would have been. Closing the iterator ends the threads after what they are
    doing now.

    Args:
        make: Called on a worker's thread, without workers on the caller's; torch has one thread inside it.
        tasks: Read on the caller's thread.
        num_workers: Threads; 0 works when a result is asked for.
        depth: Tasks under way, at least 1 with workers.
    """
    if num_workers == 0:
        for task in tasks:
            with single_thread():
                result = make(task)
            yield result
        return
    pool = ThreadPoolExecutor(num_workers, "datamill-loader", initializer=_pin, initargs=(torch.get_num_threads(),))
    pending: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            pending.append(pool.submit(make, task))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Torch on one thread, and on as many as before when the block ends.

    Small operations on two busy cores wait for each other: with another process on one core, a loader on both became
    a hundred times slower, on one thread it kept four fifths of its speed.
    """
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _pin(others: int) -> None:
    """One thread for this thread's operations.

    The number is each thread's own, but threads that start later take over what was set last: so another thread sets
    it back to that of the ``others``.
    """
    torch.get_num_threads()  # from here on this thread no longer takes over a number
    torch.set_num_threads(1)
    restorer = threading.Thread(target=torch.set_num_threads, args=(others,))
    restorer.start()
    restorer.join()
