"""A file with one JSON object per message: exactly once, whenever the process dies."""

import json
import os
from pathlib import Path
from typing import BinaryIO

from datamill import files
from datamill.alerts.messages import Message

BLOCK = 64 * 1024  # bytes read at a time, from the end


class JsonLines:
    """Appends messages to a file."""

    def __init__(self, path: Path) -> None:
        """Append to ``path``; nobody else may."""
        self._path = path

    def send(self, message: Message, *, attempt: int) -> None:
        """Append ``message``, unless it is the last line already: then the process died before it could remember.

        A line that was cut short by a kill is replaced.
        """
        line = json.dumps(message.model_dump(mode="json"), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        is_new = not self._path.exists()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            start, last = _last_line(file)
            if _id(last) == message.id:
                return
            if last and not last.endswith(b"\n"):
                if line.startswith(last):
                    file.truncate(start)
                else:
                    line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            files.fsync_path(self._path.parent)


def _last_line(file: BinaryIO) -> tuple[int, bytes]:
    """Where the last line starts, and its bytes; a line cut short has no newline at its end."""
    size = file.seek(0, os.SEEK_END)
    tail = b""
    start = size
    while start > 0 and b"\n" not in tail[:-1]:
        step = min(BLOCK, start)
        start -= step
        file.seek(start)
        tail = file.read(step) + tail
    last = tail[tail[:-1].rfind(b"\n") + 1 :]
    return size - len(last), last


def _id(line: bytes) -> str | None:
    if not line.endswith(b"\n"):
        return None
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content.get("id") if isinstance(content, dict) else None
