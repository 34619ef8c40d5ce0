"""A message as e-mail."""

import smtplib
import ssl
import sys
from email.message import EmailMessage
from email.utils import format_datetime

from datamill.alerts.channels import DeliveryError, secrecy
from datamill.alerts.messages import Message
from datamill.alerts.params import SmtpChannel


class Mail:
    """Sends messages by SMTP."""

    def __init__(self, params: SmtpChannel, *, timeout_s: float) -> None:
        """Send through the server of ``params``."""
        self._params = params
        self._timeout_s = timeout_s

    def send(self, message: Message, *, attempt: int) -> None:
        """Send ``message`` to all recipients; its ``Message-ID`` is the same at every attempt.

        A server that takes some recipients and refuses others has the message: those it refused are told of on the
        console, and the others do not get it again.

        Raises:
            DeliveryError: The server refuses, or does not answer.
        """
        try:
            with self._connect() as server:
                refused = server.send_message(self._compose(message))
        except smtplib.SMTPResponseException as error:
            raise DeliveryError(f"SMTP status {error.smtp_code}") from None
        except (smtplib.SMTPException, OSError) as error:
            raise DeliveryError(f"no delivery ({type(error).__name__})") from None
        if refused:
            print(f"  warning: {self._params.host} refused {len(refused)} of the recipients", file=sys.stderr)

    def _connect(self) -> smtplib.SMTP:
        params = self._params
        if params.security == "tls":
            context = ssl.create_default_context()
            server: smtplib.SMTP = smtplib.SMTP_SSL(params.host, params.port, timeout=self._timeout_s, context=context)
        else:
            server = smtplib.SMTP(params.host, params.port, timeout=self._timeout_s)
        try:
            if params.security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if params.username_variable and params.password_variable:
                server.login(secrecy.read(params.username_variable), secrecy.read(params.password_variable))
        except BaseException:
            server.close()
            raise
        return server

    def _compose(self, message: Message) -> EmailMessage:
        mail = EmailMessage()
        mail["Subject"] = " ".join(message.title.split())
        mail["From"] = self._params.sender
        mail["To"] = ", ".join(self._params.recipients)
        mail["Date"] = format_datetime(message.at)
        mail["Message-ID"] = f"<{message.id}@datamill>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.text + "\n")
        return mail
