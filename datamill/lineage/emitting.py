"""Sends OpenLineage events: to the endpoint that the environment names, else to a file of the workspace.

``OPENLINEAGE_URL`` and ``OPENLINEAGE_ENDPOINT`` say where, ``OPENLINEAGE_API_KEY`` who, ``OPENLINEAGE_NAMESPACE`` under
which name, ``OPENLINEAGE_DISABLED=true`` sends nothing: the variables of OpenLineage's own client. A stage waits a few
seconds for a sick endpoint at its end and never longer; what was not delivered by then is in the file.
"""

import json
import os
import queue
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from datamill.lineage import events
from datamill.settings import STATE
from datamill.stage import Stage
from datamill.tracking import Session, redact

FILE = f"{STATE}/openlineage.jsonl"
MAX_FILE_BYTES = 64 * 2**20  # then it is put aside, and what was aside before is gone
REQUEST_TIMEOUT_S = 2.0
PATIENCE_S = 3.0  # at the end of a stage, for all that is still on its way
ENDPOINT = "api/v1/lineage"


@dataclass(frozen=True)
class Address:
    """Where events go."""

    url: str
    key: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> "Address | None":
        """The endpoint that the environment names; ``None`` for the file."""
        url = variables.get("OPENLINEAGE_URL", "").rstrip("/")
        endpoint = variables.get("OPENLINEAGE_ENDPOINT", ENDPOINT).strip("/")
        return cls(f"{url}/{endpoint}", variables.get("OPENLINEAGE_API_KEY", "")) if url else None


class Teller:
    """Tells what becomes of one execution of a stage; nothing in here raises, whoever does not listen."""

    def __init__(
        self, stage: Stage, *, root: Path, session: Session, variables: Mapping[str, str] | None = None
    ) -> None:
        """Speak for ``stage`` in the workspace ``root``; ``variables`` is the environment by default."""
        variables = os.environ if variables is None else variables
        namespace = variables.get("OPENLINEAGE_NAMESPACE") or root.name
        run_id = events.run_id(session, stage=stage.name, started_ns=time.time_ns())
        self._subject = events.Subject(stage, root, session, run_id, namespace)
        self._address = Address.from_environment(variables)
        self._is_silent = variables.get("OPENLINEAGE_DISABLED", "").lower() == "true"
        self._outbox: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._undelivered: list[dict[str, Any]] = []
        self._fault = ""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Say that the stage starts."""
        self._tell("START")

    def complete(self) -> None:
        """Say that it ended well, and see to it that everything said is delivered or in the file."""
        self._tell("COMPLETE")
        self._close()

    def fail(self, error: BaseException) -> None:
        """Say that it failed, or was interrupted, and see to it that everything said is delivered or in the file."""
        self._tell("ABORT" if isinstance(error, KeyboardInterrupt) else "FAIL", error=error)
        self._close()

    def _tell(self, kind: events.EventType, *, error: BaseException | None = None) -> None:
        if self._is_silent:
            return
        try:
            content = events.event(kind, self._subject, now=datetime.now(UTC), error=error)
            if self._address is None:
                append(self._subject.root / FILE, [content])
                return
            self._undelivered.append(content)
            self._outbox.put(content)
            if self._thread is None:
                self._thread = threading.Thread(target=self._deliver, args=(self._address,), daemon=True)
                self._thread.start()
        except Exception as fault:  # noqa: BLE001 - whatever is wrong with telling, the stage's result is not
            self._warn(fault)

    def _deliver(self, address: Address) -> None:
        while (content := self._outbox.get()) is not None:
            try:
                post(content, address=address)
                self._undelivered.remove(content)
            except (OSError, ValueError) as fault:
                self._fault = self._fault or f"{type(fault).__name__}: {fault}"

    def _close(self) -> None:
        if self._thread is None:
            return
        self._outbox.put(None)
        self._thread.join(timeout=PATIENCE_S)
        left, self._undelivered = list(self._undelivered), []
        if left:
            try:
                append(self._subject.root / FILE, left)
                self._warn(self._fault or f"no answer within {PATIENCE_S:g} s")
            except OSError as fault:
                self._warn(fault)

    def _warn(self, fault: object) -> None:
        where = redact(self._address.url) if self._address else FILE
        reason = redact(" ".join(str(fault).split()))[:160]
        print(
            f"  warning: OpenLineage at {where}: {reason}; what was not delivered is in {FILE}",
            file=sys.stderr,
            flush=True,
        )


def post(content: Mapping[str, Any], *, address: Address) -> None:
    """Deliver one event.

    Raises:
        OSError: The endpoint does not answer, or refuses.
        ValueError: The address is no HTTP address.
    """
    if urlsplit(address.url).scheme not in {"http", "https"}:
        raise ValueError("OPENLINEAGE_URL must begin with http:// or https://")
    headers = {"Content-Type": "application/json"}
    if address.key:
        headers["Authorization"] = f"Bearer {address.key}"
    body = json.dumps(content).encode()
    request = urllib.request.Request(address.url, data=body, headers=headers, method="POST")  # noqa: S310 checked above
    with _OPENER.open(request, timeout=REQUEST_TIMEOUT_S):
        pass


def append(path: Path, contents: list[dict[str, Any]]) -> None:
    """Add events to a file, one a line, each line in one write, so that stages can share it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > MAX_FILE_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    with path.open("ab", buffering=0) as file:
        for content in contents:
            file.write(json.dumps(content).encode() + b"\n")


class _StayHere(urllib.request.HTTPRedirectHandler):
    """A redirect is a refusal: the key is for one host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_StayHere)
