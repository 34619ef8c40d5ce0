"""Stand-ins for what surrounds a stage."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from datamill.stage import Context

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class MemoryTracker:
    """Keeps what it is told."""

    metrics: list[tuple[int | None, dict[str, float]]] = field(default_factory=list)

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Remember the numbers."""
        self.metrics.append((step, dict(metrics)))


def silent(items: Iterable[T], *, total: int | None, label: str) -> Iterable[T]:
    """No progress at all."""
    return items


class InlineEngine:
    """Works on the parts one after the other, right here, and counts them."""

    def __init__(self) -> None:
        """Nothing was worked on yet."""
        self.num_items = 0

    def map(
        self, function: Callable[[T], R], items: Iterable[T], *, total: int | None = None, is_lockless: bool = False
    ) -> Iterator[R]:
        """Each result when it is asked for."""
        for item in items:
            self.num_items += 1
            yield function(item)

    def share(self, path: Path) -> str:
        """The path itself."""
        return str(path)


def make_context(
    folder: Path,
    *,
    tracker: MemoryTracker | None = None,
    engine: InlineEngine | None = None,
    previous: Mapping[str, Path] | None = None,
) -> Context:
    """A context on one CPU thread with its scratch below ``folder``."""
    scratch = folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    return Context(
        wanted_device="cpu",
        num_threads=1,
        num_workers=1,
        engine=engine or InlineEngine(),
        previous=previous or {},
        scratch=scratch,
        state=folder / "state",
        tracker=tracker or MemoryTracker(),
        progress=silent,
    )
