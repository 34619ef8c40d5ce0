"""From the disk to the channels: in order, each message once, and within a budget of time."""

import contextvars
import sys
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timedelta

from filelock import FileLock, Timeout

from datamill.alerts.channels import Channel, DeliveryError
from datamill.alerts.params import AlertParams
from datamill.alerts.store import Delivery, Store, Waiting, severities_of
from datamill.errors import DatamillError


def deliver(store: Store, *, channels: Mapping[str, Channel], params: AlertParams, now: datetime) -> list[Waiting]:
    """Deliver what waits, every channel by itself, for ``params.budget_s`` at most; gives the channels still behind.

    One process delivers to a channel at a time. A channel that does not come back in time is left to itself: its
    thread ends with the process, and what it was sending is tried again.

    Args:
        store: Where messages wait.
        channels: By name; those that are not in ``params`` are ignored.
        params: Pauses and the budget.
        now: Decides which channels are due.
    """
    deadline = time.monotonic() + params.budget_s
    severities = severities_of(params)
    store.begin_channels(severities)
    threads = []
    for name in (name for name in severities if name in channels):
        context = contextvars.copy_context()
        drain = (_drain, store, name, channels[name], severities[name], params, now, deadline)
        threads.append(threading.Thread(target=context.run, args=drain, name=f"deliver-{name}", daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return store.waiting(severities)


def tell_waiting(waiting: list[Waiting]) -> None:
    """Say on the console which channels are behind, and why."""
    for one in waiting:
        reason = one.error or "not yet tried"
        print(
            f"  warning: channel {one.channel}: {one.num_messages} messages wait ({reason}) and are tried again later",
            file=sys.stderr,
            flush=True,
        )


def pause(attempts: int, *, params: AlertParams) -> timedelta:
    """Time to the next attempt after ``attempts`` of them failed."""
    doubled = params.first_retry_s * 2.0 ** min(attempts - 1, 30)
    return timedelta(seconds=min(doubled, params.longest_retry_s))


def is_due(delivery: Delivery, *, now: datetime, params: AlertParams) -> bool:
    """Whether to try now; a pause longer than the longest means that the clock jumped back."""
    if delivery.not_before is None:
        return True
    return not timedelta(0) < delivery.not_before - now <= timedelta(seconds=params.longest_retry_s)


def _drain(
    store: Store,
    name: str,
    channel: Channel,
    severities: tuple[str, ...],
    params: AlertParams,
    now: datetime,
    deadline: float,
) -> None:
    """Deliver to one channel until it has everything, fails or runs out of time."""
    try:
        with FileLock(store.folder / f"channel-{name}.lock").acquire(timeout=max(0.0, deadline - time.monotonic())):
            while time.monotonic() < deadline:
                delivery = store.next_for(name, severities=severities)
                if delivery is None or not is_due(delivery, now=now, params=params):
                    return
                if not _attempt(store, name, channel, delivery=delivery, params=params, now=now):
                    return
    except Timeout:
        return  # another process delivers to this channel
    except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to; what was not delivered waits
        reason = str(error) if isinstance(error, DatamillError) else type(error).__name__
        print(f"  warning: channel {name}: {reason}; its messages wait", file=sys.stderr, flush=True)


def _attempt(
    store: Store, name: str, channel: Channel, *, delivery: Delivery, params: AlertParams, now: datetime
) -> bool:
    store.begin_attempt(name)
    attempt = delivery.attempts + 1
    try:
        channel.send(delivery.message, attempt=attempt)
    except Exception as error:  # noqa: BLE001 - channels raise what their libraries raise
        # The words of a library's error may hold the address, and with it the secret; its type does not.
        reason = str(error) if isinstance(error, DeliveryError) else type(error).__name__
        store.fail(name, error=reason, not_before=now + pause(attempt, params=params))
        return False
    store.succeed(name, number=delivery.number)
    return True
