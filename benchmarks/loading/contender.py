"""What a contender is: something that gives the batches of an epoch, whose every row must come exactly once."""

import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

SOURCE = "source"
"""Format of the samples before any contender writes its own: NumPy files."""

Role = Literal["ours", "peer", "limit", "aside"]
"""``limit``: a bare loop without a loader around it; ``aside``: shown, but does less than the work asks for."""


class Batch(NamedTuple):
    """What every contender yields."""

    x: Any
    """Samples as the work asks for them: a torch tensor."""
    ids: Any
    """Row numbers, shape (B,)."""


Epochs = Callable[[int], Iterator[Batch]]
"""Batches of the epoch of this number."""


@dataclass(frozen=True)
class Data:
    """Samples of one work, in every format that contenders read."""

    folder: Path
    num_rows: int
    batch_size: int
    seed: int = 0

    @property
    def source(self) -> Path:
        """Folder of the NumPy files."""
        return self.folder / SOURCE

    def built(self, name: str) -> Path:
        """Folder of a format."""
        return self.folder / name


@dataclass(frozen=True)
class Contender:
    """One way to do a work."""

    name: str
    open: Callable[[Data], Epochs]
    """Imports what it needs and opens the data."""
    needs: tuple[str, ...] = ()
    """Modules without which it is absent."""
    reads: str = SOURCE
    """Format of the data."""
    role: Role = "peer"
    is_quick: bool = False
    """Takes part in ``--quick``, too."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Modules that are not installed."""
        return missing(self.needs)


def missing(modules: tuple[str, ...]) -> tuple[str, ...]:
    """Those modules that are not installed."""
    return tuple(name for name in modules if importlib.util.find_spec(name) is None)


def read_data(folder: Path) -> Data:
    """The data that ``write_data`` described."""
    return Data(folder=folder, **json.loads((folder / "data.json").read_text()))


def write_data(data: Data) -> None:
    """Describe data in its folder."""
    what = {"num_rows": data.num_rows, "batch_size": data.batch_size, "seed": data.seed}
    (data.folder / "data.json").write_text(json.dumps(what))
