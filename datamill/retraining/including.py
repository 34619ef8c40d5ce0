"""Watched files become training data."""

import os
import shutil
import time
from pathlib import Path

from datamill import files
from datamill.errors import StageError
from datamill.retraining.params import IncludeParams

PREFIX = "watched-"  # begins the names of copies, so that none takes the place of a file that was there
SETTLED_S = 2.0  # a file younger than this may still be written


def include(root: Path, params: IncludeParams) -> list[str]:
    """Copy watched files that ingest has not got yet, or not in this version; returns the copies, sorted.

    The folders between stay as they are, because they name classes. Equal sizes and times of change mean equal
    contents, so a second call copies nothing, and ingest reads what is new. What was deleted among the watched files
    stays in the training data. Hidden files, links and files that may still be written are left for the next time.

    Raises:
        StageError: The watched folder is missing.
    """
    watched, into = root / params.watched, root / params.into
    if not watched.is_dir():
        raise StageError(f"retrain.include.watched is {params.watched!r}, and there is no such folder in {root}")
    copies = []
    for source in sorted(watched.rglob("*")):
        place = source.relative_to(watched)
        if source.is_symlink() or not source.is_file() or any(part.startswith(".") for part in place.parts):
            continue
        target = into / place.with_name(PREFIX + place.name)
        if _copy(source, target):
            copies.append(target.relative_to(into).as_posix())
    return copies


def _copy(source: Path, target: Path) -> bool:
    """Whether the file was copied: its copy is missing or old, and it stood still meanwhile."""
    before = source.stat()
    if target.exists() and _version(target.stat()) == _version(before):
        return False
    if time.time() - before.st_mtime < SETTLED_S:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = files.partial_path(target)
    shutil.copy2(source, partial)
    if _version(source.stat()) != _version(partial.stat()):
        files.remove(partial)
        return False
    files.publish(target)
    return True


def _version(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
