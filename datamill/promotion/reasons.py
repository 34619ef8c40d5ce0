"""What a check says, and what a decision is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Check = Literal["champion", "model", "test set", "headline", "recent", "slice", "latency", "size", "shadow", "person"]


@dataclass(frozen=True)
class Reason:
    """What one check found.

    Attributes:
        check: What was looked at.
        passes: Whether it lets the challenger through.
        found: What was seen, with its numbers.
        needed: What would have let it through.
        numbers: The same numbers, to be read by machines.
    """

    check: Check
    passes: bool
    found: str
    needed: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """Whether the challenger is promoted, and why."""

    promotes: bool
    reasons: tuple[Reason, ...]
