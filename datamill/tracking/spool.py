"""Events on disk until MLflow has them: written by stages, sent by whoever talks to the server.

One folder per run: ``run.json`` (session, stage, writer's process, how far it was sent), ``events.jsonl`` (one event a
line) and ``files/`` (copies of the artifacts, because the next run replaces the originals).
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock

from datamill import files
from datamill.settings import STATE, Settings
from datamill.tracking.session import Session

if TYPE_CHECKING:
    from datamill.tracking.server import Server

Event = dict[str, Any]
FILE_KEYS = ("path", "example")  # values of an event that name files
LAST_KINDS = ("finish", "session", "window")  # after one of these a run says no more


class Spool:
    """The folder of one run, open for its events."""

    def __init__(self, folder: Path) -> None:
        """Append to the run in ``folder``."""
        self._folder = folder

    @classmethod
    def open(cls, root: Path, *, session: Session, run_name: str, stages: Sequence[str], run_id: str | None) -> Self:
        """Start a run; ``run_id`` is its id where MLflow has it already."""
        folder = root / STATE / "spool" / f"{time.time_ns()}-{run_name}"
        folder.mkdir(parents=True)
        header = {
            "session": [session.key, session.name],
            "run_name": run_name,
            "stages": list(stages),
            "pid": os.getpid(),
        }
        files.write_json(folder / "run.json", {**header, "run_id": run_id, "sent": 0})
        return cls(folder)

    def keep(self, event: Event) -> None:
        """Append an event, with copies of the files it names."""
        for key in set(FILE_KEYS) & set(event):
            source = Path(event[key])
            target = self._folder / "files" / uuid.uuid4().hex[:8] / source.name
            target.parent.mkdir(parents=True)
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)
            event = {**event, key: str(target.relative_to(self._folder))}
        with (self._folder / "events.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(event) + "\n")


class Relay:
    """Sends what runs of a workspace keep in the spool, as it grows.

    A run is removed from the spool once its last event is sent, or once its process is gone and all is sent, and then
    MLflow shows it as killed. How far a run was sent is on disk, so a relay that is killed itself sends nothing twice
    but, at worst, the one event it was sending.
    """

    def __init__(self, *, root: Path, settings: Settings) -> None:
        """Relay the workspace ``root``."""
        self._root = root
        self._settings = settings
        self._servers: dict[Path, Server] = {}

    def pump(self) -> int:
        """Send what waits now; returns the number of events.

        Raises:
            Exception: The server does not answer; what was not sent stays.
        """
        state = self._root / STATE
        if not (state / "spool").is_dir():
            return 0
        with FileLock(state / "spool.lock"):  # of two flows in a workspace, one sends at a time
            return sum(self._send(header.parent) for header in sorted((state / "spool").glob("*/run.json")))

    def _send(self, folder: Path) -> int:
        import psutil

        header = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        is_alive = psutil.pid_exists(header["pid"])  # asked before reading: whatever it wrote is then read
        log = folder / "events.jsonl"
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        if header["sent"] == len(whole) and is_alive:
            return 0
        server = self._server(folder, header)
        kind = ""
        for number, line in enumerate(whole[header["sent"] :], start=header["sent"] + 1):
            event = json.loads(line)
            kind = event["kind"]
            server.apply({**event, **{key: str(folder / event[key]) for key in FILE_KEYS if key in event}})
            files.write_json(folder / "run.json", {**header, "run_id": server.run_id, "sent": number})
        if kind in LAST_KINDS or not is_alive:
            if kind not in LAST_KINDS:
                server.kill()
            files.remove(folder)
            self._servers.pop(folder, None)
        return len(whole) - int(header["sent"])

    def _server(self, folder: Path, header: dict[str, Any]) -> "Server":
        if folder not in self._servers:
            from datamill.tracking.server import Server

            self._servers[folder] = Server.connect(
                root=self._root,
                settings=self._settings,
                session=Session(*header["session"]),
                run_name=header["run_name"],
                all_stages=tuple(header["stages"]),
                run_id=header["run_id"],
            )
        return self._servers[folder]
