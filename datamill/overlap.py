"""Work on threads that overlaps with its caller's: for reading, hashing and writing, which let go of Python's lock."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, repeat
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def ahead(make: Callable[[Task], Result], tasks: Iterable[Task], *, num_threads: int) -> Generator[Result, None, None]:
    """Results in the order of their tasks, of which as many are under way as there are threads.

    An error is raised where its result would have been. Closing the iterator ends the threads after what they are
    doing now.

    Args:
        make: Called on a thread, or by whoever asks for a result where there is none.
        tasks: Read by whoever asks for results.
        num_threads: Threads; 0 works when a result is asked for.
    """
    if num_threads == 0:
        yield from map(make, tasks)
        return
    pool = ThreadPoolExecutor(num_threads, "datamill-ahead")
    pending: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            if len(pending) == num_threads:
                result = pending.popleft().result()
                pending.append(pool.submit(make, task))
                yield result
            else:
                pending.append(pool.submit(make, task))
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def drawn(items: Iterator[Result], *, is_ahead: bool) -> Iterator[Result]:
    """The items; if ``is_ahead``, each is taken on a thread while whoever asks for them works on the one before."""
    for some in ahead(lambda _: list(islice(items, 1)), repeat(None), num_threads=int(is_ahead)):
        if not some:
            return
        yield some[0]
