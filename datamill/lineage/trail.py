"""What is told when something is traced: a title, and what each artifact says."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Chapter:
    """What one artifact says of what was asked for."""

    stage: str
    artifact: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Trail:
    """Everything that is known of one thing."""

    title: str
    chapters: tuple[Chapter, ...]
