"""A message as JSON to an HTTP endpoint, with an idempotency key."""

import http.client
import json
import urllib.error
import urllib.request
from email.message import Message as Headers
from typing import IO
from urllib.parse import urlsplit

from datamill.alerts.channels import DeliveryError, secrecy
from datamill.alerts.messages import Message


class Webhook:
    """Posts messages."""

    def __init__(self, *, url_variable: str, token_variable: str | None, timeout_s: float) -> None:
        """Post to the address that a variable of the environment holds."""
        self._url_variable = url_variable
        self._token_variable = token_variable
        self._timeout_s = timeout_s

    def send(self, message: Message, *, attempt: int) -> None:
        """Post ``message`` as JSON; ``Idempotency-Key`` is its id at every attempt.

        Raises:
            DeliveryError: The answer is no success (2xx), or there is none.
        """
        request = self._request(message, attempt=attempt)
        try:
            with _OPENER.open(request, timeout=self._timeout_s) as answer:
                answer.read(1)
        except urllib.error.HTTPError as error:
            error.close()
            raise DeliveryError(f"HTTP status {error.code}") from None
        except urllib.error.URLError as error:
            raise DeliveryError(f"no answer ({type(error.reason).__name__})") from None
        except (http.client.InvalidURL, ValueError):
            raise DeliveryError(f"the variable {self._url_variable} holds no address of a server") from None
        except (OSError, http.client.HTTPException) as error:
            raise DeliveryError(f"no answer ({type(error).__name__})") from None

    def _request(self, message: Message, *, attempt: int) -> urllib.request.Request:
        url = secrecy.read(self._url_variable)
        if urlsplit(url).scheme not in {"http", "https"}:
            raise DeliveryError(f"the variable {self._url_variable} holds no address that begins with http or https")
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "datamill",
            "Idempotency-Key": message.id,
            "X-Datamill-Attempt": str(attempt),
        }
        if self._token_variable:
            headers["Authorization"] = f"Bearer {secrecy.read(self._token_variable)}"
        body = json.dumps(message.model_dump(mode="json"), allow_nan=False).encode()
        return urllib.request.Request(url, data=body, headers=headers, method="POST")  # noqa: S310 - checked above


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET without the message, and carry the token elsewhere."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Headers, newurl: str
    ) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)
