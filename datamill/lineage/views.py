"""Bytes of earlier runs where they can be opened: views in the workspace's state, which may be deleted at any time."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from datamill import files
from datamill.settings import STATE

FOLDER = f"{STATE}/opened"
KEPT_S = 7 * 24 * 3600  # after a view was asked for last; much longer than a comparison of two runs takes


def view(name: str, *, root: Path, write: Callable[[Path], object], is_whole: Callable[[Path], bool]) -> Path:
    """The view of this name, written unless it is there; one that is written takes the place of those unasked for.

    Args:
        name: Says what is in it: a digest.
        root: The workspace.
        write: Makes the view at a path that is not there yet.
        is_whole: Whether what is at a path can serve.
    """
    path = root / FOLDER / name
    if not is_whole(path):
        with files.atomic_write(path) as partial:
            write(partial)
        _forget_before(path.lstat().st_mtime - KEPT_S, folder=path.parent)
    with contextlib.suppress(PermissionError):  # somebody else's workspace
        os.utime(path)
    return path


def _forget_before(time: float, *, folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # another process forgets them, too
        for path in folder.iterdir():
            if path.lstat().st_mtime < time:
                files.remove(path)
