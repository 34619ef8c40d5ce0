"""Stand-ins for what surrounds a stage."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from datamill.stage import Context

T = TypeVar("T")


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


def make_context(folder: Path, *, tracker: MemoryTracker | None = None) -> Context:
    """A context on one CPU thread with its scratch below ``folder``."""
    scratch = folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    return Context(
        device="cpu",
        num_threads=1,
        num_workers=1,
        scratch=scratch,
        tracker=tracker or MemoryTracker(),
        progress=silent,
    )
