"""Results in the order of the items, from workers that finish in any order and may die."""

import reprlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from datamill.engine.worker import Answer
from datamill.errors import StageError

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2  # items per worker that are taken and not yet given back: one at work, one waiting


class Backend(Protocol):
    """Workers, as this machine or a cluster offers them.

    Attributes:
        num_workers: Items they work on at a time.
        chances: How often an item is submitted before its worker's death is final.
    """

    num_workers: int
    chances: int

    def submit(self, function: Callable[[T], R], item: T) -> Future[Answer]:
        """The answer of ``worker.call``, in time."""

    def is_death(self, error: BaseException) -> bool:
        """Whether a future failed because its worker is gone."""

    def cancel(self, futures: Iterable[Future[Answer]]) -> None:
        """Spend no more time on these."""


@dataclass
class _Task:
    position: int
    item: Any
    future: Future[Answer] | None = None  # absent: to be run alone, when it is its turn
    deaths: int = 0


def map_in_order(backend: Backend, function: Callable[[T], R], items: Iterable[T], *, total: int | None) -> Iterator[R]:
    """``function`` of each item; see ``Engine.map``."""
    window = _Window(backend, function, total=total)
    try:
        for item in items:
            window.add(item)
            if len(window.tasks) >= AHEAD * backend.num_workers:
                yield window.take()
        while window.tasks:
            yield window.take()
    finally:
        backend.cancel([task.future for task in window.tasks if task.future is not None])


class _Window:
    """The items at work or waiting, in order."""

    def __init__(self, backend: Backend, function: Callable[..., Any], *, total: int | None) -> None:
        self.tasks: deque[_Task] = deque()
        self._backend = backend
        self._function = function
        self._total = total
        self._position = 0

    def add(self, item: Any) -> None:
        self._position += 1
        self.tasks.append(_Task(self._position, item, self._submit(item)))

    def take(self) -> Any:
        """The result of the first item."""
        task = self.tasks[0]
        while True:
            if task.future is None:
                wait([other.future for other in self.tasks if other.future is not None])
                task.future = self._submit(task.item)
            try:
                answer = task.future.result()
                break
            except CancelledError as error:
                raise StageError(
                    f"{self._name(task)} was dropped: the cluster's scheduler is gone; start it and run the stage again"
                ) from error
            except Exception as error:
                if not self._backend.is_death(error):
                    raise StageError(
                        f"{self._name(task)} could not reach a worker, or its result this process: "
                        f"{type(error).__name__}: {error}; both need the same packages"
                    ) from error
                self._retry(error)
        self.tasks.popleft()
        return answer.unwrap()

    def _retry(self, death: Exception) -> None:
        """Submit again what was lost with a worker, though not the last time: then an item runs alone.

        So an item whose worker dies once more has only itself to blame, and has had the machine's memory to itself.
        """
        for task in self.tasks:
            if task.future is None or not task.future.done() or task.future.cancelled():
                continue
            error = task.future.exception()
            if error is None or not self._backend.is_death(error):
                continue
            task.deaths += 1
            if task.deaths == self._backend.chances:
                raise StageError(
                    f"{self._name(task)} is not tried again: {str(death).splitlines()[0]} "
                    "Give workers more memory, run fewer of them, or look at that item"
                ) from death
            task.future = self._submit(task.item) if task.deaths < self._backend.chances - 1 else None

    def _submit(self, item: Any) -> Future[Answer]:
        return self._backend.submit(self._function, item)

    def _name(self, task: _Task) -> str:
        of = f" of {self._total}" if self._total is not None else ""
        return f"item {task.position}{of} ({reprlib.repr(task.item)})"
