"""What must not be told: the names and passwords in addresses."""

import re


def redact(text: str) -> str:
    """``text`` with user names and passwords taken out of every address in it."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)  # to the last @, for a password may hold one


def holds_password(text: str) -> bool:
    """Whether an address in ``text`` has a password."""
    return re.search(r"://[^/\s:]*:[^/\s]*@", text) is not None
