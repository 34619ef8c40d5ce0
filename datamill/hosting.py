"""The host that a run's stages are forked from: it loads their modules, and forks for whoever hands itself over.

A host cannot answer while a library loads. So it loads what the first stages need, forks a second host for the slow
libraries (torch, Great Expectations: one to three seconds each), and stays for the callers that do not need those. Who
calls, and how, stands in ``datamill.warm``.
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
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from datamill import warm

OWN = ("DATAMILL_", "DVC_")  # begin the names of variables that may differ between host and caller,
EPHEMERAL = frozenset({"PWD", "OLDPWD", "SHLVL", "_", "TERM", "COLUMNS", "LINES"})  # and so may these
PR_SET_PDEATHSIG: Final = 1
PR_SET_NAME: Final = 15


def serve(first: Iterable[str], *, quick: Iterable[str] = (), slow: Iterable[str] = ()) -> None:
    """Be the hosts: load modules between callers, and return when the run has ended.

    In every child the caller's module runs instead, and then the process ends.

    Args:
        first: Modules that both hosts have.
        quick: Those of the first host.
        slow: Those of the second one, for callers that are slow (``warm.hand_over``).
    """
    keeper = warm.find_keeper()
    if keeper is None:
        return
    with warm.door() as door, warm.door() as slow_door:
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

    def __init__(self, door: socket.socket, *, keeper: warm.Keeper) -> None:
        self._door = door
        self._keeper = os.pidfd_open(keeper.pid)
        self._environment = _lasting(warm.inherited)
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

    def followed_by(self, door: socket.socket, *, keeper: warm.Keeper) -> "_Host":
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
        line.settimeout(warm.TIMEOUT_S)
        files: list[int] = []
        child: int | None = None
        try:
            caller = _receive(line, files) if warm.is_mine(line) else None
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
                line.sendall(warm.LENGTH.pack(warm.REFUSED))
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
        return bool(request["python"] == warm.interpreter() and _lasting(request["environment"]) == self._environment)

    def _listen(self, line: socket.socket) -> None:
        """A caller wants its child interrupted, or has gone: then the child goes as well."""
        try:
            said = line.recv(1)
        except OSError:
            said = b""
        child = next(pid for pid, one in self._children.values() if one is line)
        with suppress(ProcessLookupError):
            if said == warm.INTERRUPT:
                os.kill(child, signal.SIGINT)
            else:
                os.killpg(child, signal.SIGKILL)
        if said != warm.INTERRUPT:
            self._selector.unregister(line)

    def _bury(self, descriptor: int) -> None:
        child, line = self._children.pop(descriptor)
        _, status = os.waitpid(child, 0)
        with suppress(OSError):
            line.sendall(warm.LENGTH.pack(os.waitstatus_to_exitcode(status) % warm.REFUSED))
        with suppress(KeyError):
            self._selector.unregister(line)
        line.close()
        self._selector.unregister(descriptor)
        os.close(descriptor)


def _receive(line: socket.socket, files: list[int]) -> Caller:
    head, descriptors, _, _ = socket.recv_fds(line, warm.LENGTH.size, 3)
    files += descriptors
    content, size = b"", warm.LENGTH.unpack(head)[0]
    while len(content) < size and (piece := line.recv(size - len(content))):
        content += piece
    if len(files) != 3:
        raise ValueError("a caller sends three files")
    return Caller(line, files, json.loads(content))


def _become(caller: Caller) -> NoReturn:
    """Take on what the caller is, and run its module; a child of the host from here on."""
    warm.is_forked = True
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
        line.sendall(warm.LENGTH.pack(status % warm.REFUSED))
    os._exit(status)


def _stream(number: int, mode: str) -> IO[str]:
    return open(number, mode, buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _mark(file: str) -> tuple[int, int] | None:
    """What changes when a file does; ``None`` where there is none."""
    with suppress(OSError):
        status = Path(file).stat()
        return status.st_mtime_ns, status.st_size
    return None


def _lasting(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a library may have read when it was loaded."""
    return {name: value for name, value in environment.items() if not name.startswith(OWN) and name not in EPHEMERAL}
