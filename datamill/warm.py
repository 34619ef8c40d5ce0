"""Stages that find their libraries loaded: they are forked from a process that has loaded them.

A run starts an interpreter for every stage, and each would load NumPy, Arrow, scikit-learn, Great Expectations or
torch for one to three seconds, which is most of what a small change costs. So the first stage of a run leaves a *host*
behind, which loads the modules of all stages while the first ones work. A later stage hands itself over: the host
forks, and the child takes on the caller's files, folder, environment and arguments and runs the same module. Nothing
that decides a result passes through the host, and a stage that cannot be handed over runs by itself.

A host cannot answer while a library loads. So it loads what the first stages need, forks a second host for the slow
libraries (torch, Great Expectations: one to three seconds each), and stays for the callers that do not need those.

The host belongs to one user and one run, listens on no network, and ends with the run's process (the flow's, or
DVC's). It refuses a caller with another environment or Python, and ends when a file of code that it loaded has changed.
Linux only; ``DATAMILL_WARM=off`` does without. This module imports the standard library alone, and little of it.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NoReturn

SWITCH = "DATAMILL_WARM"
KEEPER = "DATAMILL_KEEPER"  # process id of the flow, which starts a DVC of its own for every stage
OWN = ("DATAMILL_", "DVC_")  # begin the names of variables that may differ between host and caller,
EPHEMERAL = frozenset({"PWD", "OLDPWD", "SHLVL", "_", "TERM", "COLUMNS", "LINES"})  # and so may these
TIMEOUT_S = 5.0
INTERRUPT, REFUSED = b"I", 256  # an exit status that no process has
LENGTH = struct.Struct("!I")
PR_SET_PDEATHSIG: Final = 1
PR_SET_NAME: Final = 15

_inherited = dict(os.environ)  # before libraries that are loaded for the host set variables of their own
_is_forked = False


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
    if _is_forked or arguments == host or os.environ.get(SWITCH) == "off" or (keeper := find_keeper()) is None:
        return None
    with _door() as line:
        line.settimeout(TIMEOUT_S)
        try:
            line.connect(keeper.address(is_slow=is_slow))
        except (ConnectionRefusedError, FileNotFoundError):
            _start_host([sys.executable, "-m", module, *host], keeper=keeper)
            return None
        except OSError:
            return None
        return _converse(line, [module, *arguments], keeper=keeper) if _is_mine(line) else None


def serve(first: Iterable[str], *, quick: Iterable[str] = (), slow: Iterable[str] = ()) -> None:
    """Be the hosts: load modules between callers, and return when the run has ended.

    In every child the caller's module runs instead, and then the process ends.

    Args:
        first: Modules that both hosts have.
        quick: Those of the first host.
        slow: Those of the second one, for callers that are slow (``hand_over``).
    """
    keeper = find_keeper()
    if keeper is None:
        return
    with _door() as door, _door() as slow_door:
        try:
            door.bind(keeper.address(is_slow=False))
            slow_door.bind(keeper.address(is_slow=True))
        except OSError:  # another stage of this run has started one
            return
        door.listen()
        slow_door.listen()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until a child is ready for it
        host = _Host(door, keeper=keeper)
        caller = host.load(first)
        if caller is None and os.fork() == 0:
            host = host.followed_by(slow_door, keeper=keeper)
            caller = host.load(slow)
        elif caller is None:
            slow_door.close()
            caller = host.load(quick)
        caller = caller or host.wait()
    if caller is not None:
        _become(caller)


@dataclass(frozen=True)
class Caller:
    """A process that wants to be forked.

    Attributes:
        line: To it.
        files: Its standard input, output and error.
        request: What it is: module and arguments, folder, environment, search path, version.
    """

    line: socket.socket
    files: list[int]
    request: Mapping[str, Any]


class _Host:
    """Waits for callers, children and the end of the run."""

    def __init__(self, door: socket.socket, *, keeper: Keeper) -> None:
        self._door = door
        self._keeper = os.pidfd_open(keeper.pid)
        self._environment = _lasting(_inherited)
        self._code: dict[str, tuple[int, int] | None] = {}
        self._children: dict[int, tuple[int, socket.socket]] = {}  # process id and line by the child's descriptor
        self._selector = selectors.DefaultSelector()
        self._selector.register(door, selectors.EVENT_READ)
        self._selector.register(self._keeper, selectors.EVENT_READ)
        self._is_ending = False

    def load(self, modules: Iterable[str]) -> Caller | None:
        """``None`` when all are loaded, and in a child the caller it was forked for."""
        for name in modules:
            if (caller := self._answer(timeout=0)) is not None:
                return caller
            if self._is_ending:
                break
            self._load(name)
        return None

    def wait(self) -> Caller | None:
        """``None`` at the end of the run, and in a child the caller it was forked for."""
        while not (self._is_ending and not self._children):
            if (caller := self._answer(timeout=None)) is not None:
                return caller
        return None

    def followed_by(self, door: socket.socket, *, keeper: Keeper) -> "_Host":
        """A host with the same modules in a process of its own: what belongs to this one's callers is closed there."""
        self._door.close()
        self._selector.close()
        os.close(self._keeper)
        for descriptor, (_, line) in self._children.items():
            os.close(descriptor)
            line.close()
        other = _Host(door, keeper=keeper)
        other._code = self._code
        return other

    def _load(self, name: str) -> None:
        if name in sys.modules:
            return
        with suppress(Exception):  # whoever needs it will say what is wrong
            importlib.import_module(name)
        files = {str(getattr(one, "__file__", None)) for one in list(sys.modules.values())}
        for file in files - self._code.keys():
            if "site-packages" not in file:
                self._code[file] = _mark(file)

    def _answer(self, *, timeout: float | None) -> Caller | None:
        for key, _ in self._selector.select(timeout):
            if (caller := self._hear(key.fileobj)) is not None:
                return caller
        return None

    def _hear(self, source: Any) -> Caller | None:
        if source is self._door:
            return self._admit()
        if source == self._keeper:
            self._is_ending = True
            self._selector.unregister(self._keeper)
        elif isinstance(source, socket.socket):
            self._listen(source)
        else:
            self._bury(source)
        return None

    def _admit(self) -> Caller | None:
        line, _ = self._door.accept()
        line.settimeout(TIMEOUT_S)
        files: list[int] = []
        child: int | None = None
        try:
            caller = _receive(line, files) if _is_mine(line) else None
            if caller is not None and self._fits(caller.request):
                gc.freeze()  # else collecting would copy every page that host and child share
                child = os.fork()
            if child == 0:
                return caller
        except (OSError, ValueError, KeyError):
            pass
        finally:
            if child != 0:
                for file in files:
                    os.close(file)
        if child is None:
            with suppress(OSError):
                line.sendall(LENGTH.pack(REFUSED))
            line.close()
            return None
        descriptor = os.pidfd_open(child)
        self._children[descriptor] = child, line
        self._selector.register(descriptor, selectors.EVENT_READ)
        self._selector.register(line, selectors.EVENT_READ)
        return None

    def _fits(self, request: Mapping[str, Any]) -> bool:
        if any(_mark(file) != mark for file, mark in self._code.items()):
            self._is_ending = True  # the next caller starts a host with the present code
            self._selector.unregister(self._door)
            self._door.close()
            return False
        return bool(request["python"] == _python() and _lasting(request["environment"]) == self._environment)

    def _listen(self, line: socket.socket) -> None:
        """A caller wants its child interrupted, or has gone: then the child goes as well."""
        try:
            said = line.recv(1)
        except OSError:
            said = b""
        child = next(pid for pid, one in self._children.values() if one is line)
        with suppress(ProcessLookupError):
            if said == INTERRUPT:
                os.kill(child, signal.SIGINT)
            else:
                os.killpg(child, signal.SIGKILL)
        if said != INTERRUPT:
            self._selector.unregister(line)

    def _bury(self, descriptor: int) -> None:
        child, line = self._children.pop(descriptor)
        _, status = os.waitpid(child, 0)
        with suppress(OSError):
            line.sendall(LENGTH.pack(os.waitstatus_to_exitcode(status) % REFUSED))
        with suppress(KeyError):
            self._selector.unregister(line)
        line.close()
        self._selector.unregister(descriptor)
        os.close(descriptor)


def _door() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def _converse(line: socket.socket, words: list[str], *, keeper: Keeper) -> int | None:
    request = {
        "words": words,
        "folder": str(Path.cwd()),
        "environment": {**os.environ, KEEPER: str(keeper.pid)},
        "path": sys.path,
        "python": _python(),
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


def _receive(line: socket.socket, files: list[int]) -> Caller:
    head, descriptors, _, _ = socket.recv_fds(line, LENGTH.size, 3)
    files += descriptors
    content, size = b"", LENGTH.unpack(head)[0]
    while len(content) < size and (piece := line.recv(size - len(content))):
        content += piece
    if len(files) != 3:
        raise ValueError("a caller sends three files")
    return Caller(line, files, json.loads(content))


def _become(caller: Caller) -> NoReturn:
    """Take on what the caller is, and run its module; a child of the host from here on."""
    global _is_forked
    _is_forked = True
    os.setpgid(0, 0)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(PR_SET_NAME, " ".join(caller.request["words"]).encode()[:15])  # what ps and top show
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(caller.files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = _stream(0, "r"), _stream(1, "w"), _stream(2, "w")
    request = caller.request
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[:] = request["path"]
    sys.argv = list(request["words"])
    _end(_status(request["words"][0]), line=caller.line)


def _status(module: str) -> int:
    """The exit status of a module that runs as the main one."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001 - as the interpreter would at its end
        traceback.print_exc()
        return 1
    return 0


def _end(status: int, *, line: socket.socket) -> NoReturn:
    """End as a forked process must: C++ libraries would wait for threads that only the host has.

    The caller learns it here, because the host may be loading a library; it only tells of children that were killed.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    with suppress(OSError):
        line.sendall(LENGTH.pack(status % REFUSED))
    os._exit(status)


def _stream(number: int, mode: str) -> IO[str]:
    return open(number, mode, buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _start_host(command: list[str], *, keeper: Keeper) -> None:
    import subprocess

    nothing = subprocess.DEVNULL
    environment = {**os.environ, KEEPER: str(keeper.pid)}
    with suppress(OSError):
        subprocess.Popen(
            command, env=environment, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
        )


def _is_mine(line: socket.socket) -> bool:
    """Whether the process at the other end is this user's."""
    _, user, _ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return bool(user == os.getuid())


def _stat(pid: int) -> tuple[int, int]:
    """Parent and start of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return int(fields[1]), int(fields[19])


def _mark(file: str) -> tuple[int, int] | None:
    """What changes when a file does; ``None`` where there is none."""
    with suppress(OSError):
        status = Path(file).stat()
        return status.st_mtime_ns, status.st_size
    return None


def _python() -> list[Any]:
    return [sys.executable, sys.version, list(sys.flags), sys.warnoptions]


def _lasting(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a library may have read when it was loaded."""
    return {name: value for name, value in environment.items() if not name.startswith(OWN) and name not in EPHEMERAL}
