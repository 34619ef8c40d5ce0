"""Where independent pieces of work run: processes of this machine, or the workers of a Dask or Ray cluster.

A stage hands ``context.engine`` a function and the parts to work on; nothing in the stage knows where they go::

    counts = context.engine.map(partial(count_rows, column="label"), paths)

Which engine it is, is a matter of the environment (``settings.py``) and never changes a result: answers come in the
order of the items, every item is computed on one thread, and an item whose worker died is computed again.

Files reach workers in one of two ways. With a shared file system (``storage`` empty) a path is a path. Otherwise they
pass through the storage, a folder of any fsspec file system, where each lies under the hash of its content: nothing
there is ever overwritten, a file shared twice is stored once, and whoever reads it checks it::

    this process   engine.share(path) -> url
    a worker       fetch(url, folder) -> path

What is made of them comes back as the answer of the call.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from datamill.engine import storage as stores
from datamill.engine import worker
from datamill.engine.storage import fetch
from datamill.engine.window import Backend, map_in_order
from datamill.overlap import ahead
from datamill.settings import EngineKind

__all__ = ["Engine", "fetch"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Engine:
    """One way to work on independent items. It is small, and starts nothing before there is work.

    Attributes:
        kind: ``loky`` for processes of this machine, ``dask`` or ``ray`` for the cluster at ``address``.
        address: Of Dask's scheduler (``tcp://host:8786``), or of a Ray cluster (``auto``, ``ray://host:10001``).
        num_workers: Processes of ``loky``; a cluster has as many as it has.
        storage: fsspec URL of a folder that this process and the workers reach; empty for a shared file system.
    """

    kind: EngineKind = "loky"
    address: str = ""
    num_workers: int = 1
    storage: str = ""

    def map(
        self,
        function: Callable[[T], R],
        items: Iterable[T],
        *,
        total: int | None = None,
        is_lockless: bool = False,
    ) -> Iterator[R]:
        """``function`` of each item, in the order of the items, computed a few items ahead of whoever reads them.

        At most twice as many items as there are workers are taken from ``items`` and not yet given back, so memory
        grows with the size of an item and the number of workers alone. Every item is computed on one thread. A single
        item, or a single local worker, takes no process at all.

        Args:
            function: A function of a module, or a ``functools.partial`` of one: workers import it.
            items: What to work on; small descriptions such as paths, because they travel.
            total: How many there are, where known.
            is_lockless: Whether ``function`` lets go of Python's lock most of the time, as decoders do that are given
                much at once. Local workers are threads of this process then, which cost no start and copy nothing.

        Raises:
            ParamsError: The engine is not installed.
            StageError: The cluster does not answer, or workers died three times while working on one item.
            Exception: The first, in the order of the items, that ``function`` raised; the items after it are dropped.
        """
        rest = iter(items)
        first = list(itertools.islice(rest, 2))
        everything = itertools.chain(first, rest)
        if len(first) < 2 or (self.kind == "loky" and self.num_workers == 1):
            for item in everything:
                yield worker.compute(function, item)
        elif self.kind == "loky" and is_lockless:
            with worker.one_thread():
                work = functools.partial(worker.compute_beside, function)
                yield from ahead(work, everything, num_threads=self.num_workers)
        else:
            yield from map_in_order(self._workers(), function, everything, total=total)

    def share(self, path: Path) -> str:
        """Where workers find a file: its path, or the URL of its copy, which is uploaded only once."""
        return stores.put(path, storage=self.storage) if self.storage else str(path.absolute())

    def _workers(self) -> Backend:
        from datamill.engine.backends import connect

        return connect(self.kind, address=self.address, num_workers=self.num_workers)
