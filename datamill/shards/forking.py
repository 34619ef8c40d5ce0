"""What threads share, in a process that may be forked while they hold it; none but the forking one is in the child."""

import os
import threading
import weakref
from types import TracebackType
from typing import Protocol


class Renewable(Protocol):
    """State of threads."""

    def renew(self) -> None:
        """Begin anew: no other thread holds anything, or is at work on anything."""


_SHARED: "weakref.WeakSet[Renewable]" = weakref.WeakSet()


def renewed_in_children(shared: Renewable) -> None:
    """From now on ``shared`` begins anew in every forked child, before anything else runs there."""
    _SHARED.add(shared)


def _renew() -> None:
    for shared in list(_SHARED):
        shared.renew()


os.register_at_fork(after_in_child=_renew)


class OwnLock:
    """A lock that a thread may take again, and that is open in a forked child."""

    def __init__(self) -> None:
        """Open."""
        self.renew()
        renewed_in_children(self)

    def renew(self) -> None:
        """Open, whoever held it."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._lock.release()
