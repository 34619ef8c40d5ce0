"""Secrets, from the environment to the library that needs them and nowhere else."""

import logging
import os

from datamill.alerts.channels import DeliveryError

TALKATIVE = ("apprise", "httpcore", "httpx", "requests", "urllib3")  # their debug logs show whole addresses


def read(variable: str) -> str:
    """The value of a variable of the environment.

    Raises:
        DeliveryError: It is not set, or empty.
    """
    value = os.environ.get(variable, "")
    if not value:
        raise DeliveryError(f"the variable {variable} of the environment is not set")
    return value


def hush() -> None:
    """Keep libraries that log whole addresses from doing so, whatever the level of the root logger."""
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
