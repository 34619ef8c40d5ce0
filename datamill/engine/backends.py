"""The three kinds of workers behind one protocol; a cluster's library is imported when it is chosen, never before."""

import functools
import os
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from datamill.engine import worker
from datamill.engine.window import Backend
from datamill.engine.worker import Answer
from datamill.errors import ParamsError, StageError
from datamill.settings import EngineKind

T = TypeVar("T")
R = TypeVar("R")

DEATHS = 3  # of workers at one item, after which it is given up
IDLE_S = 300.0  # after which a local worker gives its memory back
ANSWER_S = 10.0  # for a cluster to take a connection
SILENCE_S = 30.0  # for it to say that it is one


def connect(kind: EngineKind, *, address: str, num_workers: int) -> Backend:
    """The workers of this machine, or those of the cluster at ``address``.

    Raises:
        ParamsError: The cluster's library is not installed.
        StageError: The cluster does not answer.
    """
    if kind == "dask":
        return Dask(address, num_workers=num_workers)
    if kind == "ray":
        return Ray(address, num_workers=num_workers)
    return Loky(num_workers)


class Loky:
    """Processes of this machine, kept from one ``map`` to the next."""

    chances = DEATHS

    def __init__(self, num_workers: int) -> None:
        """Nothing is started before the first item."""
        self.num_workers = num_workers
        # a worker that has grown by 300 MB is replaced after its item: no reason to worry anybody
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given", category=UserWarning)

    def submit(self, function: Callable[[T], R], item: T) -> Future[Answer]:
        """The answer, in time; processes are started anew if one of them has died."""
        from joblib.externals.loky import BrokenProcessPool

        try:
            return self._executor().submit(worker.call, function, item)  # type: ignore[no-any-return]
        except BrokenProcessPool as error:  # one died this moment, at rest
            failed: Future[Answer] = Future()
            failed.set_exception(error)
            return failed

    def is_death(self, error: BaseException) -> bool:
        """Whether a process was killed, or ended together with one that was."""
        from joblib.externals.loky.process_executor import ShutdownExecutorError, TerminatedWorkerError

        return isinstance(error, TerminatedWorkerError | ShutdownExecutorError)

    def cancel(self, futures: Iterable[Future[Answer]]) -> None:
        """End the processes if they still work on these: a call cannot be stopped otherwise."""
        if not all(future.cancel() or future.done() for future in futures):
            self._executor().shutdown(wait=True, kill_workers=True)

    def _executor(self) -> Any:
        from joblib.externals.loky import get_reusable_executor

        return get_reusable_executor(
            max_workers=self.num_workers,
            timeout=IDLE_S,
            initializer=worker.start,
            initargs=(os.getpid(),),
            env=worker.ONE_THREAD,
        )


class Dask:
    """The workers of a Dask cluster, whose scheduler tries an item again when they die.

    It counts a death against every item the worker had been given, so one more chance, alone, finds the one to blame.
    """

    chances = 2

    def __init__(self, address: str, *, num_workers: int) -> None:
        """Connect; a cluster that grows with its work is kept busy with ``num_workers`` items at least."""
        with _connecting("dask", address):
            self._client = _dask_client(address)
            found = sum(self._client.nthreads().values())
        _say_if_empty(address, found=found)
        self.num_workers = max(num_workers, found)
        self._executor = self._client.get_executor(pure=False)

    def submit(self, function: Callable[[T], R], item: T) -> Future[Answer]:
        """The answer, in time."""
        return self._executor.submit(worker.call, function, item)  # type: ignore[no-any-return]

    def is_death(self, error: BaseException) -> bool:
        """Whether workers died more often than the scheduler allows."""
        from distributed import KilledWorker

        return isinstance(error, KilledWorker)

    def cancel(self, futures: Iterable[Future[Answer]]) -> None:
        """Take what waits from the scheduler; what runs, runs to its end."""
        for future in futures:
            future.cancel()


class Ray:
    """The workers of a Ray cluster, which tries an item again when they die."""

    chances = 1

    def __init__(self, address: str, *, num_workers: int) -> None:
        """Connect; a cluster that grows with its work is kept busy with ``num_workers`` items at least."""
        with _connecting("ray", address):
            self._ray = _ray(address)
            found = int(self._ray.cluster_resources().get("CPU", 0))
        _say_if_empty(address, found=found)
        self.num_workers = max(num_workers, found)
        self._call = self._ray.remote(num_cpus=1, max_retries=DEATHS - 1, retry_exceptions=False)(worker.call)

    def submit(self, function: Callable[[T], R], item: T) -> Future[Answer]:
        """The answer, in time."""
        return self._call.remote(function, item).future()  # type: ignore[no-any-return]

    def is_death(self, error: BaseException) -> bool:
        """Whether a worker, or its machine, died more often than it may."""
        from ray import exceptions

        deaths = exceptions.WorkerCrashedError | exceptions.OutOfMemoryError | exceptions.NodeDiedError
        return isinstance(error, deaths)

    def cancel(self, futures: Iterable[Future[Answer]]) -> None:
        """Interrupt what runs and drop what waits."""
        for future in futures:
            if not future.done():
                self._ray.cancel(future.object_ref)  # type: ignore[attr-defined]


@functools.cache
def _dask_client(address: str) -> Any:
    from distributed import Client

    assert address, "an empty one would start a cluster"
    _reach(address)
    return _in_time(lambda: Client(address, timeout=ANSWER_S, set_as_default=False))


@functools.cache
def _ray(address: str) -> Any:
    os.environ.setdefault("RAY_task_oom_retries", str(DEATHS - 1))  # read on import; for ever otherwise
    import ray

    assert address, "an empty one would start a cluster"
    if not ray.is_initialized():
        _reach(address)
        _in_time(lambda: ray.init(address=address, log_to_driver=False, logging_level="error"))
    return ray


def _reach(address: str) -> None:
    """Refuse an address nobody listens at; the libraries themselves would try for minutes."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.hostname and parts.port:
        socket.create_connection((parts.hostname, parts.port), timeout=ANSWER_S).close()


def _in_time(connect: Callable[[], R]) -> R:
    """What ``connect`` gives; somebody who listens and says nothing would keep the libraries waiting for ever."""
    answer: Future[R] = Future()

    def run() -> None:
        try:
            answer.set_result(connect())
        except BaseException as error:  # noqa: BLE001 - raised where the answer is awaited
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result(timeout=SILENCE_S)
    except FutureTimeout as error:
        raise TimeoutError(f"it listens, but has said nothing for {SILENCE_S:.0f} s") from error


@contextmanager
def _connecting(kind: EngineKind, address: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ParamsError(
            f"DATAMILL_ENGINE is {kind!r}, which needs {error.name}: pip install -e '.[engines]', or use 'loky'"
        ) from error
    except Exception as error:
        raise StageError(
            f"no {kind} cluster answers at {address!r} ({error}); start one, or correct DATAMILL_ENGINE_ADDRESS"
        ) from error


def _say_if_empty(address: str, *, found: int) -> None:
    if not found:
        print(f"  the cluster at {address} has no worker yet; waiting for one", file=sys.stderr, flush=True)
