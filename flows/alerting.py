"""Alerts from flows: what a verdict gives reason to say, the channels that need Prefect, and the daily digest."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow

from datamill.alerts import digest
from datamill.alerts.alert import read_verdict
from datamill.alerts.channels import Channel, DeliveryError, secrecy
from datamill.alerts.channels.building import build
from datamill.alerts.delivery import deliver, tell_waiting
from datamill.alerts.messages import Message
from datamill.alerts.params import AlertParams, PrefectBlockChannel, PrefectEventChannel
from datamill.alerts.store import Store, severities_of
from datamill.drift import Verdict
from datamill.errors import StageError
from datamill.watchfile import load_section
from flows import events

EVENTS = {
    "raised": "datamill.alert.raised",
    "repeated": "datamill.alert.raised",
    "recovered": "datamill.alert.recovered",
    "replaced": "datamill.alert.recovered",
    "digest": "datamill.digest",
}


class PrefectEvents:
    """Emits messages as events of the Prefect server."""

    def __init__(self, *, root: Path) -> None:
        """Emit events about the workspace ``root``."""
        self._root = root

    def send(self, message: Message, *, attempt: int) -> None:
        """Emit ``message`` and wait until it is stored; without a server nobody listens, and nothing is done.

        Raises:
            DeliveryError: It was not stored in time.
        """
        if not events.has_server():
            return
        labels = ("severity", "topic", "model", "fingerprint")
        try:
            events.emit(
                EVENTS[message.event],
                root=self._root,
                event_id=message.id,
                labels={label: getattr(message, label) for label in labels if getattr(message, label)},
                payload=message.model_dump(mode="json"),
                at=message.at,
            )
        except StageError as error:
            raise DeliveryError(str(error)) from None


class PrefectBlock:
    """Sends messages through a notification block."""

    def __init__(self, block: str) -> None:
        """Use the block ``type/name`` of the server."""
        self._block = block

    def send(self, message: Message, *, attempt: int) -> None:
        """Send title and text.

        Raises:
            DeliveryError: The block is no notification block.
            Exception: There is no such block, or the service did not take the message.
        """
        secrecy.hush()
        import prefect.blocks.notifications  # noqa: F401 - registers the types of blocks
        from prefect.blocks.abstract import NotificationBlock
        from prefect.blocks.core import Block

        block: Any = Block.load(self._block, _sync=True)  # type: ignore[call-arg]
        if not isinstance(block, NotificationBlock):
            raise DeliveryError(f"block {self._block} is no notification block")
        notify: Any = block.notify
        with block.raise_on_failure():
            notify(message.text, subject=message.title, _sync=True)


def announce(
    root: Path,
    *,
    verdict: Verdict,
    window: str,
    model: str,
    links: Mapping[str, str],
    now: datetime,
    is_whole: bool = True,
) -> None:
    """Tell what ``verdict`` gives reason to tell, once for each window; what cannot be delivered now waits.

    Args:
        root: The workspace.
        verdict: Of the window.
        window: The window's id; one that was announced before changes nothing.
        model: Which model was watched.
        links: Where to look: ``report``, ``mlflow``.
        now: Time of judging, with its zone.
        is_whole: Whether the verdict is about the window as a whole, and not about labels alone that came later.

    Raises:
        ParamsError: ``watch.yaml`` is wrong.
        StageError: The alerts cannot be kept, because the disk is full or the store damaged.
    """
    root = root.resolve()
    now = now.astimezone(UTC)
    params = load_section(root, "alerts", AlertParams)
    store = Store(root)
    store.begin_channels(params.channels)
    reading = read_verdict(verdict, workspace=root.name, model=model, window=window, links=links, is_whole=is_whole)
    store.record(reading, params=params, now=now)
    _deliver(store, params=params, root=root, now=now)


def deliver_waiting(root: Path, *, now: datetime) -> None:
    """Try again to deliver what waits; for times in which there is no window to announce."""
    root = root.resolve()
    params = load_section(root, "alerts", AlertParams)
    _deliver(Store(root), params=params, root=root, now=now.astimezone(UTC))


@flow(name="send-digest", persist_result=False, validate_parameters=True)
def send_digest(root: str = ".") -> bool:
    """Send the digest of the windows since the latest one; returns whether there was one to send."""
    workspace = Path(root).resolve()
    now = datetime.now(UTC)
    params = load_section(workspace, "alerts", AlertParams)
    store = Store(workspace)
    store.begin_channels(params.channels)
    waiting = store.waiting(severities_of(params))
    with store.digesting() as (windows, state, messages):
        if params.digest_when_quiet or not digest.is_quiet(windows, state=state, waiting=waiting):
            text = digest.summarise(windows, state=state, waiting=waiting)
            messages.append(digest.message_of(text, workspace=workspace.name, windows=windows, now=now))
    _deliver(store, params=params, root=workspace, now=now)
    return bool(messages)


def build_channels(params: AlertParams, *, root: Path) -> dict[str, Channel]:
    """Every channel that ``watch.yaml`` names."""
    channels = build(params, root=root)
    for name, one in params.channels.items():
        if isinstance(one, PrefectEventChannel):
            channels[name] = PrefectEvents(root=root)
        elif isinstance(one, PrefectBlockChannel):
            channels[name] = PrefectBlock(one.block)
    return channels


def _deliver(store: Store, *, params: AlertParams, root: Path, now: datetime) -> None:
    tell_waiting(deliver(store, channels=build_channels(params, root=root), params=params, now=now))
