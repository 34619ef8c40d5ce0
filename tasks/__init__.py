"""The stages: one file each, one DVC node each. ``PIPELINE`` says which exist, in which order."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamill.stage import Stage

    PIPELINE: tuple[Stage, ...]

STAGES = (
    "ingest",
    "extract",
    "validate",
    "clean",
    "split",
    "audit",
    "preprocess",
    "augment",
    "synthesize",
    "balance",
    "shard",
    "train",
    "diagnose",
    "evaluate",
    "export",
)


def __getattr__(name: str) -> Any:
    """``PIPELINE`` when it is first asked for: a stage that runs elsewhere (``datamill.warm``) asks for nothing."""
    if name != "PIPELINE":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = tuple(import_module(f"{__name__}.{stage}").STAGE for stage in STAGES)
    return globals()[name]
