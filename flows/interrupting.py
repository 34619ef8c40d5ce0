"""Ctrl-C in the middle of a flow: the stages end first, then everything else that this process started.

Left to itself, Prefect tries for minutes to tell its temporary server, which the same Ctrl-C has ended.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

import psutil
from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled

PATIENCE_S = 15.0  # for a stage to stop: it has a checkpoint to leave in order
EXIT_STATUS = 128  # plus the signal's number


def exit_at_interrupt() -> None:
    """From now on, Ctrl-C or SIGTERM ends this process and all it started; a second one does so at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end_in_order)


@contextmanager
def stages_end_with_it() -> Iterator[None]:
    """Interrupt the stages that run when the block is left by an exception, as when a worker cancels the flow."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, TerminationSignal) and signal.getsignal(signal.SIGINT) is _end_in_order:
            _end_in_order(signal.SIGTERM, None)  # Prefect would report to a server that has ended as well
        interrupt_stages()
        raise


def interrupt_stages() -> list[psutil.Process]:
    """Send Ctrl-C to the stages that run, which have sessions of their own; returns every process below this one."""
    children = psutil.Process().children(recursive=True)
    own = os.getsid(0)
    for child in children:
        with suppress(psutil.Error, ProcessLookupError):
            if os.getsid(child.pid) != own:
                child.send_signal(signal.SIGINT)
    return children


def _end_in_order(number: int, *_: object) -> None:
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, _end_now)
    print("interrupted: stopping the stages that run; Ctrl-C again stops at once", file=sys.stderr, flush=True)
    own = os.getsid(0)
    children = interrupt_stages()
    stages = [child for child in children if child.is_running() and _session(child) not in {own, None}]
    psutil.wait_procs(stages, timeout=PATIENCE_S)
    _tell_prefect()
    _kill(children, gently=True)
    print("stopped; the same command goes on from here", file=sys.stderr, flush=True)
    os._exit(EXIT_STATUS + number)


def _end_now(number: int, *_: object) -> None:
    _kill(psutil.Process().children(recursive=True), gently=False)
    os._exit(EXIT_STATUS + number)


def _kill(processes: list[psutil.Process], *, gently: bool) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.terminate() if gently else process.kill()
    _, alive = psutil.wait_procs(processes, timeout=5)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()


def _session(process: psutil.Process) -> int | None:
    with suppress(ProcessLookupError):
        return os.getsid(process.pid)
    return None


def _tell_prefect() -> None:
    """Mark the flow run as cancelled on a server that outlives this process."""
    run_id = flow_run.get_id()
    if run_id and PREFECT_API_URL.value():
        with suppress(Exception), get_client(sync_client=True, httpx_settings={"timeout": 3}) as client:
            client.set_flow_run_state(UUID(str(run_id)), Cancelled(message="interrupted with Ctrl-C"), force=True)
