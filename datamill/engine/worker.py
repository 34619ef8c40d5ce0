"""What runs in a worker: one call at a time, on one thread, with an answer that always travels."""

import contextlib
import functools
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

from datamill.errors import DatamillError, StageError

T = TypeVar("T")
R = TypeVar("R")

ONE_THREAD = dict.fromkeys(  # what arithmetic libraries look at when they are loaded; Arrow heeds OpenMP's
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)
THREADS_OF = {  # the same for those loaded before
    "torch": ("get_num_threads", "set_num_threads"),
    "cv2": ("getNumThreads", "setNumThreads"),
    "pyarrow": ("cpu_count", "set_cpu_count"),
}
WATCH_EVERY_S = 1.0

_thread = threading.local()


@dataclass(frozen=True)
class Answer:
    """What a call gave: a value, or the error it raised."""

    value: Any = None
    error: Exception | None = None

    def unwrap(self) -> Any:
        """The value, unless there is an error to raise."""
        if self.error is not None:
            raise self.error
        return self.value


def call(function: Callable[[T], R], item: T) -> Answer:
    """The answer of ``function``, in a process that computes on one thread from now on."""
    _settle()
    try:
        return Answer(function(item))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the answer arrives
        return Answer(error=_portable(error))


def compute(function: Callable[[T], R], item: T) -> R:
    """``function`` of ``item`` in this process, on one thread as in a worker: the same bytes."""
    with one_thread():
        return function(item)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Inside the block, the arithmetic libraries that are loaded compute on one thread."""
    before = [(module, limit, getattr(module, get)()) for module, get, limit in _loaded()]
    with _limit_loaded():
        try:
            yield
        finally:
            for module, limit, count in before:
                getattr(module, limit)(count)


def compute_beside(function: Callable[[T], R], item: T) -> R:
    """``function`` of ``item`` on one of several threads of this process, while ``one_thread`` holds for all of it.

    OpenMP counts for each thread, and ``function`` may have loaded libraries.
    """
    if getattr(_thread, "num_modules", 0) != len(sys.modules):
        _limit_loaded()
        _thread.num_modules = len(sys.modules)
    return function(item)


def start(parent: int) -> None:
    """Make a process of this machine the worker of ``parent``: it ends with it, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_EVERY_S)
    os._exit(1)  # killed without a chance to end its workers; nobody waits for the answer


def _settle() -> None:
    """Limit this thread for good: a cluster's worker may have several, and OpenMP counts for each of them."""
    if not hasattr(_thread, "is_settled"):
        os.environ.update(ONE_THREAD)
        _limit_loaded()
        _thread.is_settled = True


def _limit_loaded() -> contextlib.AbstractContextManager[Any]:
    for module, _, limit in _loaded():
        getattr(module, limit)(1)
    return _controller(len(sys.modules)).limit(limits=1)  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=1)
def _controller(num_modules: int) -> ThreadpoolController:
    """Every BLAS and OpenMP of this process; finding them takes milliseconds, so only when modules were added."""
    return ThreadpoolController()


def _loaded() -> list[tuple[ModuleType, str, str]]:
    """Those of ``THREADS_OF`` that are loaded; another thread may be at it."""
    found = ((sys.modules.get(name), *functions) for name, functions in THREADS_OF.items())
    return [(module, get, limit) for module, get, limit in found if module and hasattr(module, limit)]


def _portable(error: Exception) -> Exception:
    """``error`` with its traceback as a note, or a ``StageError`` in its words where it cannot be pickled."""
    if not isinstance(error, DatamillError):
        error.add_note("In a worker:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own, a line above
    except Exception:  # noqa: BLE001 - whatever its class makes of it
        return StageError(f"{type(error).__name__}: {error}")
    return error
