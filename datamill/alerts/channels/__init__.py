"""Ways to reach somebody, one module each. Those that need Prefect are in ``flows/alerting.py``."""

from typing import Protocol

from datamill.alerts.messages import Message
from datamill.errors import DatamillError


class DeliveryError(DatamillError):
    """A message did not get through and is tried again. Its words go into logs and must not hold a secret."""


class Channel(Protocol):
    """Delivers messages, in order, one at a time."""

    def send(self, message: Message, *, attempt: int) -> None:
        """Return once the receiver has ``message``.

        Args:
            message: What to tell.
            attempt: 1 at first; more where an earlier attempt failed, or may have failed.

        Raises:
            Exception: It did not get through, or that is not certain.
        """
