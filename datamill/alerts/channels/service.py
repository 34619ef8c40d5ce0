"""Any service that Apprise knows."""

from datamill.alerts.channels import DeliveryError, secrecy
from datamill.alerts.messages import Message


class Service:
    """Sends messages through Apprise."""

    def __init__(self, *, url_variable: str) -> None:
        """Send to the Apprise address that a variable of the environment holds."""
        self._url_variable = url_variable

    def send(self, message: Message, *, attempt: int) -> None:
        """Send title and text; Apprise has its own limits of time, 4 seconds to connect and 4 to be answered.

        Raises:
            DeliveryError: Apprise does not know the address, or the service did not take the message.
        """
        secrecy.hush()
        import apprise  # takes 0.3 s, and few workspaces need it

        service = apprise.Apprise()
        if not service.add(secrecy.read(self._url_variable)):
            raise DeliveryError(f"the variable {self._url_variable} holds no address that Apprise knows")
        if not service.notify(title=message.title, body=message.text, body_format=apprise.NotifyFormat.TEXT):
            raise DeliveryError("the service did not take the message")
