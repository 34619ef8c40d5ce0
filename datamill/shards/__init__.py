"""Training shards: the native memory-mapped format, its loader, and exports to other formats.

``native`` is what training reads; its byte layout is specified in the README beside it. ``writing`` writes it,
``remote`` fetches it, ``loader`` makes batches of it. ``exchange`` writes and reads the formats of other tools.
``placing``, ``recipe``, ``previous``, ``packing`` and ``exporting`` are what the stage ``shard`` is made of.

What this package offers is found when it is asked for, so that ``SPLITS`` alone costs nothing. Stages import from the
modules: a stage's code dependencies are read from its import statements.
"""

import importlib
from typing import Any

SPLITS = ("train", "validation", "test")
"""One shard each, in this order, in a folder of this name."""

_HOMES = {
    "Buckets": "batching",
    "Decode": "decoding",
    "Field": "entries",
    "Shard": "native",
    "ShardLoader": "loader",
    "ShardWriter": "writing",
    "Window": "windows",
    "memory_shard": "native",
    "open_remote": "remote",
    "open_shard": "native",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
