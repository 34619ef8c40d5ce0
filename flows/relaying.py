"""Sends what the stages of a flow say to MLflow while they run, from a thread of the flow's process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datamill.settings import Settings
from datamill.tracking import Relay
from datamill.tracking.tracker import warn_away

INTERVAL_S = 1.0
RETRY_INTERVAL_S = 15.0  # while MLflow does not answer


@contextmanager
def relaying(root: Path) -> Iterator[None]:
    """Relay the workspace's spool until the block ends; what is left then waits for MLflow to answer again."""
    settings = Settings.from_environment()
    ended = threading.Event()
    thread = threading.Thread(target=_pump, args=(root, settings, ended), name="relay")
    if settings.tracking == "on":
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if settings.tracking == "on":
            thread.join()


def _pump(root: Path, settings: Settings, ended: threading.Event) -> None:
    relay = Relay(root=root, settings=settings)
    is_away = is_last = False
    while not is_last:
        is_last = ended.wait(RETRY_INTERVAL_S if is_away else INTERVAL_S)
        try:
            relay.pump()
            is_away = False
        except Exception as error:  # noqa: BLE001 - a sick server must not stop the flow; the spool keeps the rest
            if not is_away:
                warn_away(error, root=root, settings=settings)
            is_away = True
