"""The standard output of the process that watches."""

from datamill.alerts.messages import Message


class Console:
    """Prints messages."""

    def send(self, message: Message, *, attempt: int) -> None:
        """Print ``message``."""
        body = message.text.replace("\n", "\n  ")
        print(f"{message.severity}: {message.title}\n  {body}", flush=True)
