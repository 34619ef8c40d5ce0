"""Patience with remote stores: what failed once is tried again, a little later each time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSES_S = (0.5, 2.0, 8.0)  # before each further attempt
FINAL = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, NotImplementedError)


def patiently(action: Callable[[], T]) -> T:
    """What ``action`` gives, tried up to four times; every store raises errors of its own, so all count as passing.

    Raises:
        Exception: The error of the last attempt, or one that says that trying again is no use (``FINAL``).
    """
    for pause_s in PAUSES_S:
        try:
            return action()
        except FINAL:
            raise
        except Exception:  # noqa: BLE001
            time.sleep(pause_s)
    return action()
