"""Pieces of JSON that anybody may have written: each is what belongs in its place, or a ``ValueError`` says why not.

Checked by hand: a loader opens shards before anything else, and a validation library takes longer to import than the
first batch takes to load.
"""

import dataclasses
import re
from typing import Any

MAX_NUMBER = 2**62


def named(content: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """A table that has these members and no others."""
    found = table(content)
    if found.keys() != set(names):
        raise ValueError(f"members {sorted(found)} where {sorted(names)} belong")
    return found


def values_of(content: Any, kind: type[Any]) -> list[Any]:
    """Values of a dataclass's fields, in order, from a table that has these and no others."""
    names = tuple(one.name for one in dataclasses.fields(kind))
    found = named(content, names)
    return [found[name] for name in names]


def table(content: Any) -> dict[str, Any]:
    """A table."""
    if not isinstance(content, dict):
        raise ValueError(f"{str(content)[:40]!r} where a table belongs")
    return content


def listed(content: Any, *, limit: int | None = None) -> list[Any]:
    """A list of at most ``limit`` pieces."""
    if not isinstance(content, list) or (limit is not None and len(content) > limit):
        raise ValueError(f"{str(content)[:40]!r} where a list{'' if limit is None else f' of at most {limit}'} belongs")
    return content


def number(content: Any, *, least: int = 0, most: int = MAX_NUMBER) -> int:
    """A whole number from ``least`` to ``most``."""
    if type(content) is not int or not least <= content <= most:
        raise ValueError(f"{str(content)[:40]!r} where a whole number from {least} to {most} belongs")
    return content


def text(content: Any) -> str:
    """Text."""
    if not isinstance(content, str):
        raise ValueError(f"{str(content)[:40]!r} where text belongs")
    return content


def one_of(content: Any, known: tuple[str, ...]) -> str:
    """One of the texts that are known."""
    if content not in known:
        raise ValueError(f"{str(content)[:40]!r} is none of {', '.join(known)}")
    return str(content)


def matching(content: Any, pattern: re.Pattern[str]) -> str:
    """Text that a pattern describes as a whole."""
    if not isinstance(content, str) or pattern.fullmatch(content) is None:
        raise ValueError(f"{str(content)[:80]!r} does not match {pattern.pattern}")
    return content
