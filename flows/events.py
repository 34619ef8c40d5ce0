"""Events that a Prefect server is known to have kept, because the loop hangs on them."""

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.events import Event
from prefect.events.clients import get_events_client
from prefect.settings import PREFECT_API_URL

from datamill.errors import StageError

STORED_WITHIN_S = 15.0  # three times what Prefect waits before it writes to its database
LOOK_AGAIN_S = 0.5
FIRST_LOOK = timedelta(days=1)  # clocks differ


def has_server() -> bool:
    """Whether a Prefect server is named; the temporary one of a flow run has nobody who listens."""
    return bool(PREFECT_API_URL.value())


def emit(
    name: str,
    *,
    root: Path,
    event_id: str,
    labels: Mapping[str, str],
    payload: Mapping[str, Any],
    at: datetime,
) -> None:
    """Emit an event about the workspace ``root`` and wait until the server has it in its database.

    A server holds events in memory for some seconds before it stores them, and one that is killed then forgets them. So
    an event that is not found stored in time is no success; the next attempt looks first whether it arrived after all.

    Args:
        name: Such as ``datamill.alert.raised``.
        root: The workspace; the resource is ``datamill.workspace.<folder name>``.
        event_id: 32 hexadecimal digits, the same at every attempt: a server keeps one event of an id.
        labels: What automations can match on, besides the name.
        payload: Facts, as JSON values.
        at: When it happened.

    Raises:
        StageError: It was not found stored in time.
        Exception: The server does not answer.
    """
    key = UUID(event_id)
    if _is_stored(key, at=at):
        return
    resource = {
        "prefect.resource.id": f"datamill.workspace.{root.name}",
        "prefect.resource.name": root.name,
        **{f"datamill.{label}": value for label, value in labels.items()},
    }
    deadline = time.monotonic() + STORED_WITHIN_S
    event = Event(id=key, event=name, occurred=at, resource=resource, payload=dict(payload))  # type: ignore[arg-type]
    asyncio.run(asyncio.wait_for(_send(event), STORED_WITHIN_S))
    while not _is_stored(key, at=at):
        if time.monotonic() > deadline:
            raise StageError(f"the Prefect server has not stored event {event_id} within {STORED_WITHIN_S:g} s")
        time.sleep(LOOK_AGAIN_S)


async def _send(event: Event) -> None:
    async with get_events_client(reconnection_attempts=0, checkpoint_every=1) as client:
        await client.emit(event)


def _is_stored(key: UUID, *, at: datetime) -> bool:
    between = {"since": (at - FIRST_LOOK).isoformat(), "until": (at + FIRST_LOOK).isoformat()}
    wanted = {"filter": {"id": {"id": [str(key)]}, "occurred": between}, "limit": 1}
    with get_client(sync_client=True) as client:
        answer = client.request("POST", "/events/filter", json=wanted)
        return bool(answer.raise_for_status().json()["events"])
