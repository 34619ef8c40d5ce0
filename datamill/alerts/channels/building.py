"""The channels that ``watch.yaml`` names."""

from pathlib import Path

from datamill.alerts.channels import Channel
from datamill.alerts.channels.console import Console
from datamill.alerts.channels.jsonl import JsonLines
from datamill.alerts.channels.mail import Mail
from datamill.alerts.channels.service import Service
from datamill.alerts.channels.webhook import Webhook
from datamill.alerts.params import (
    AlertParams,
    AppriseChannel,
    ConsoleChannel,
    JsonLinesChannel,
    SmtpChannel,
    WebhookChannel,
)


def build(params: AlertParams, *, root: Path) -> dict[str, Channel]:
    """The channels by name, in the order of the file; those that need Prefect are left out."""
    built = {name: _build(one, root=root, timeout_s=params.timeout_s) for name, one in params.channels.items()}
    return {name: channel for name, channel in built.items() if channel is not None}


def _build(channel: object, *, root: Path, timeout_s: float) -> Channel | None:
    match channel:
        case ConsoleChannel():
            return Console()
        case JsonLinesChannel():
            return JsonLines(root / channel.path)
        case AppriseChannel():
            return Service(url_variable=channel.url_variable)
        case WebhookChannel():
            return Webhook(
                url_variable=channel.url_variable, token_variable=channel.token_variable, timeout_s=timeout_s
            )
        case SmtpChannel():
            return Mail(channel, timeout_s=timeout_s)
    return None
