"""Stages that find their libraries loaded: they are forked from a process that has loaded them.

A run starts an interpreter for every stage, and each would load NumPy, Arrow, scikit-learn, Great Expectations or
torch for one to three seconds, which is most of what a small change costs. So the first stage of a run leaves a *host*
behind, which loads the modules of all stages while the first ones work. A later stage hands itself over: the host
forks, and the child takes on the caller's files, folder, environment and arguments and runs the same module. Nothing
that decides a result passes through the host, and a stage that cannot be handed over runs by itself.

The host belongs to one user and one run, listens on no network, and ends with the run's process (the flow's, or
DVC's). It refuses a caller with another environment or Python, and ends when a file of code that it loaded has changed.
Linux only; ``DATAMILL_WARM=off`` does without.

Every caller loads this module, so it imports little, and of the standard library alone; what the host does stands in
``datamill.hosting``.
"""

import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SWITCH = "DATAMILL_WARM"
KEEPER = "DATAMILL_KEEPER"  # process id of the flow, which starts a DVC of its own for every stage
TIMEOUT_S = 5.0
INTERRUPT, REFUSED = b"I", 256  # an exit status that no process has
LENGTH = struct.Struct("!I")
inherited = dict(os.environ)  # before libraries that are loaded for the host set variables of their own
is_forked = False  # set in children of a host


@dataclass(frozen=True)
class Keeper:
    """The process that a run ends with.

    Attributes:
        pid: Its number.
        start: When it began, in ticks of the system: numbers are used again.
    """

    pid: int
    start: int

    def address(self, *, is_slow: bool) -> str:
        """Where the host, or the one with the slow libraries, listens; no file, and it ends with the host."""
        return f"\0datamill-{os.getuid()}-{self.pid}-{self.start}{'-slow' * is_slow}"


def find_keeper() -> Keeper | None:
    """The flow that this process works for, or the DVC above it; ``None`` where there is neither, or no Linux."""
    if sys.platform != "linux":
        return None
    with suppress(OSError, ValueError, IndexError):
        if os.environ.get(KEEPER):
            return Keeper(int(os.environ[KEEPER]), _stat(int(os.environ[KEEPER]))[1])
        pid = os.getppid()
        while pid > 1:
            parent, start = _stat(pid)
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:4]
            if any(word.rpartition(b"/")[2] == b"dvc" for word in words):
                return Keeper(pid, start)
            pid = parent
    return None


def hand_over(module: str, arguments: list[str], *, host: list[str], is_slow: bool = False) -> int | None:
    """Run ``python -m module arguments`` in a fork of the host; its exit status, or ``None`` to do it here.

    Where there is no host yet, one is started for those that come later.

    Args:
        module: What ``-m`` names.
        arguments: What follows it.
        host: What follows ``-m module`` to start a host.
        is_slow: Whether it needs one of the slow libraries.
    """
    if is_forked or arguments == host or os.environ.get(SWITCH) == "off" or (keeper := find_keeper()) is None:
        return None
    with door() as line:
        line.settimeout(TIMEOUT_S)
        try:
            line.connect(keeper.address(is_slow=is_slow))
        except (ConnectionRefusedError, FileNotFoundError):
            _start_host([sys.executable, "-m", module, *host], keeper=keeper)
            return None
        except OSError:
            return None
        return _converse(line, [module, *arguments], keeper=keeper) if is_mine(line) else None


def door() -> socket.socket:
    """A socket for host or caller."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def _converse(line: socket.socket, words: list[str], *, keeper: Keeper) -> int | None:
    request = {
        "words": words,
        "folder": str(Path.cwd()),
        "environment": {**os.environ, KEEPER: str(keeper.pid)},
        "path": sys.path,
        "python": interpreter(),
    }
    content = json.dumps(request).encode()
    with _holding_interrupts():
        try:
            socket.send_fds(line, [LENGTH.pack(len(content))], [0, 1, 2])
            line.sendall(content)
            line.settimeout(None)
        except OSError:
            return None
        before = signal.signal(signal.SIGINT, lambda *_: _interrupt(line))  # the child ends as it thinks fit
    answer = line.recv(LENGTH.size, socket.MSG_WAITALL)
    signal.signal(signal.SIGINT, before)
    if not answer:
        print("error: the process that this stage ran in was killed; run it again", file=sys.stderr, flush=True)
        return 1
    status = int(LENGTH.unpack(answer)[0])
    return None if status == REFUSED else status


def _interrupt(line: socket.socket) -> None:
    with suppress(OSError):  # it has just ended
        line.sendall(INTERRUPT)


@contextmanager
def _holding_interrupts() -> Iterator[None]:
    """A Ctrl-C during the block waits for its end."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _start_host(command: list[str], *, keeper: Keeper) -> None:
    import subprocess

    nothing = subprocess.DEVNULL
    environment = {**os.environ, KEEPER: str(keeper.pid)}
    with suppress(OSError):
        subprocess.Popen(
            command, env=environment, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
        )


def is_mine(line: socket.socket) -> bool:
    """Whether the process at the other end is this user's."""
    _, user, _ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return bool(user == os.getuid())


def _stat(pid: int) -> tuple[int, int]:
    """Parent and start of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return int(fields[1]), int(fields[19])


def interpreter() -> list[Any]:
    """What must be the same of host and caller, besides their variables."""
    return [sys.executable, sys.version, list(sys.flags), sys.warnoptions]
