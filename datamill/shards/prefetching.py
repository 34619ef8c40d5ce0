"""Work done ahead on threads, handed over in order; one thread inside each, so that they do not fight over cores."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

FIRST_REST, LAST_REST = 16, 4096  # tasks on one thread after more did not pay
REFRESH = 64  # tasks after which one thread is measured again
PAYS = 0.85  # of one thread's time

Task = TypeVar("Task")
Result = TypeVar("Result")


def ahead(
    make: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    num_workers: int,
    depth: int,
    choice: "ThreadChoice | None" = None,
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
        choice: Of torch's threads without workers, where it is to have more than one; remembers what paid.
    """
    if num_workers == 0:
        choice = choice or ThreadChoice(most=1)
        for task in tasks:
            with choice.measured():
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


class ThreadChoice:
    """On how many threads torch works at a time: on all of them while that is faster, else on one.

    On two idle cores, blocks of rows are gathered and normalised twice as fast on two threads as on one. With another
    process on one of the cores, threads wait for each other at the end of every operation, and a loader on both becomes
    a hundred times slower. So one thread's cost is known, more are tried, and tried the more rarely the oftener they
    did not pay.
    """

    def __init__(self, *, most: int | None = None) -> None:
        """Choose between one and ``most`` threads; when not given, as many as torch has outside."""
        self._limit = most
        self._alone = 0.0  # seconds a task takes on one thread; 0 when that is not known
        self._count = self._resting = 0
        self._patience = FIRST_REST

    def next(self, most: int) -> int:
        """How many threads the next task has, ``most`` at most."""
        self._count += 1
        if most == 1 or not self._alone or self._resting or self._count % REFRESH == 0:
            self._resting = max(0, self._resting - 1)
            return 1
        return most

    def learn(self, num_threads: int, *, seconds: float) -> None:
        """Take note of how long a task took."""
        if num_threads == 1:
            self._alone = seconds if not self._alone else self._alone + (seconds - self._alone) / 4
        elif seconds < PAYS * self._alone:
            self._patience = max(FIRST_REST, self._patience // 2)
        else:
            self._resting = self._patience
            self._patience = min(4 * self._patience, LAST_REST)

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Torch with the next task's threads, and as many as before when the block ends."""
        before = torch.get_num_threads()
        chosen = self.next(min(before, self._limit or before))
        if chosen != before:
            torch.set_num_threads(chosen)
        start = time.perf_counter()
        try:
            yield
        finally:
            if before > 1:
                self.learn(chosen, seconds=time.perf_counter() - start)
            if chosen != before:
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
