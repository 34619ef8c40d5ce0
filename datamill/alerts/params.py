"""What a user says of alerts in ``watch.yaml``. No secret stands there: a variable of the environment holds it."""

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from datamill.stage import Params

VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
SECRET = re.compile(r"pass|token|secret|key|url|auth|variable", re.IGNORECASE)

Sends = Literal["pages", "all", "nothing"]


class _Hidden:
    """Stands for a value that may be a secret, so that no message of an error shows it."""

    def __repr__(self) -> str:
        return "<not shown>"


HIDDEN: Final = _Hidden()


def _hide(value: Any, *, key: str = "") -> Any:
    """``value`` without what may be a secret: addresses, and what stands where a secret could be expected."""
    if isinstance(value, dict):
        return {name: _hide(one, key=str(name)) for name, one in value.items()}
    if isinstance(value, list):
        return [_hide(one, key=key) for one in value]
    is_named = isinstance(value, str) and VARIABLE.fullmatch(value) is not None
    is_secret = "://" in str(value) or (SECRET.search(key) and value is not None and not is_named)
    return HIDDEN if is_secret else value


def _refuse_hidden(value: Any) -> Any:
    if value is HIDDEN:
        raise ValueError(
            "this may be a secret, and secrets stay out of files; put it into a variable of the environment and give "
            "the variable's name here, in capitals"
        )
    return value


Text = Annotated[str, BeforeValidator(_refuse_hidden), Field(min_length=1)]
Variable = Annotated[str, BeforeValidator(_refuse_hidden), Field(pattern=r"^[A-Z][A-Z0-9_]*$")]


class _ChannelParams(Params):
    sends: Sends
    """What is sent at once: pages only, all alerts (notices too), or nothing."""
    digest: bool
    """Whether the digest goes here."""


class ConsoleChannel(_ChannelParams):
    """The standard output of the process that watches."""

    kind: Literal["console"]
    """Standard output."""


class JsonLinesChannel(_ChannelParams):
    """A file with one JSON object per message, for a log shipper or a script."""

    kind: Literal["jsonl"]
    """A file of JSON lines."""
    path: Text
    """File, absolute or relative to the workspace."""


class PrefectEventChannel(_ChannelParams):
    """Prefect's events, which automations react to."""

    kind: Literal["prefect-event"]
    """Events datamill.alert.raised and datamill.alert.recovered."""


class PrefectBlockChannel(_ChannelParams):
    """A notification block of the Prefect server, which keeps its secret: Slack, Teams, PagerDuty, e-mail..."""

    kind: Literal["prefect-block"]
    """A notification block."""
    block: Annotated[Text, Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")]
    """Type and name of the block, as slack-webhook/ops."""


class AppriseChannel(_ChannelParams):
    """Any of the services that Apprise knows, by its address."""

    kind: Literal["apprise"]
    """An Apprise address."""
    url_variable: Variable
    """Variable of the environment that holds the address."""


class WebhookChannel(_ChannelParams):
    """An HTTP endpoint that takes the message as JSON."""

    kind: Literal["webhook"]
    """POST of JSON."""
    url_variable: Variable
    """Variable of the environment that holds the address (http or https)."""
    token_variable: Variable | None
    """Variable of the environment that holds a bearer token; null for none."""


class SmtpChannel(_ChannelParams):
    """A mail server."""

    kind: Literal["smtp"]
    """E-mail."""
    host: Text
    """Name of the mail server."""
    port: int = Field(ge=1, le=65_535)
    """Its port: 25, 587 with starttls, 465 with tls."""
    security: Literal["none", "starttls", "tls"]
    """How the connection is encrypted."""
    sender: Text
    """Address the mail comes from."""
    recipients: tuple[Text, ...] = Field(min_length=1)
    """Addresses it goes to."""
    username_variable: Variable | None
    """Variable of the environment that holds the user's name; null where the server asks for none."""
    password_variable: Variable | None
    """Variable of the environment that holds the password; null where the server asks for none."""

    @model_validator(mode="after")
    def _name_and_password_go_together(self) -> Self:
        if (self.username_variable is None) != (self.password_variable is None):
            raise ValueError("username_variable and password_variable go together; give both, or null for both")
        return self


ChannelParams = Annotated[
    ConsoleChannel
    | JsonLinesChannel
    | PrefectEventChannel
    | PrefectBlockChannel
    | AppriseChannel
    | WebhookChannel
    | SmtpChannel,
    Field(discriminator="kind"),
]
ChannelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


class AlertParams(Params):
    """Section ``alerts`` of ``watch.yaml``."""

    cooldown_h: float = Field(ge=0, le=24 * 365)
    """Time after a message (hours) within which the same alert is counted and not sent again."""
    calm_windows: int = Field(ge=1, le=1000)
    """Windows in a row without the alert (count) after which it has recovered."""
    budget_s: float = Field(gt=0, le=300)
    """Longest time (seconds) that delivering takes from judging; what is not delivered then waits."""
    timeout_s: float = Field(gt=0, le=60)
    """Longest time (seconds) that a server may take for an answer."""
    first_retry_s: float = Field(ge=0, le=3600)
    """Pause (seconds) before the second attempt; it doubles with every attempt."""
    longest_retry_s: float = Field(gt=0, le=86_400)
    """Longest pause (seconds) between two attempts; they never end."""
    keep_days: int = Field(ge=1, le=3650)
    """How long (days) delivered messages and the record of windows are kept."""
    digest_when_quiet: bool
    """Whether the digest is sent when there is nothing to say."""
    channels: Annotated[dict[ChannelName, ChannelParams], BeforeValidator(_hide)]
    """Where messages go, by a name of your own."""

    @model_validator(mode="after")
    def _files_differ(self) -> Self:
        paths = [one.path for one in self.channels.values() if isinstance(one, JsonLinesChannel)]
        if len(set(paths)) != len(paths):
            raise ValueError(f"two channels write to one of the files {sorted(paths)}; give each a file of its own")
        return self
