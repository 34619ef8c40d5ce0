"""Sends what the stages of a flow say to MLflow while they run, from a thread of the flow's process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datamill.settings import Settings
from datamill.tracking import Relay
from datamill.tracking.tracker import warn_away

INTERVAL_S = 1.0


@contextmanager
def relaying(root: Path) -> Iterator[None]:
    """Relay the workspace's spool until the block ends and everything in it was sent, or MLflow stopped answering."""
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
    try:
        while not ended.wait(INTERVAL_S):
            relay.pump()
        relay.pump()
    except Exception as error:  # noqa: BLE001 - a sick server must not stop the flow; the spool keeps the rest
        warn_away(error, root=root, settings=settings)
