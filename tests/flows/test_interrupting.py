"""Signals end a command in order."""

import subprocess
import sys

import pytest

CAUGHT_BY_PREFECT = "with interrupting.stages_end_with_it(): raise TerminationSignal(signal=15)"


@pytest.mark.parametrize(
    ("act", "status"),
    [("os.kill(os.getpid(), 15)", 143), ("os.kill(os.getpid(), 2)", 130), (CAUGHT_BY_PREFECT, 143)],
)
def test_a_signal_ends_the_command_with_its_status_and_one_message(act, status):
    begin = "import os; from prefect.exceptions import TerminationSignal; from flows import interrupting"
    code = f"{begin}\ninterrupting.exit_at_interrupt()\n{act}\nprint('went on')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == "stopped; the same command goes on from here"
    assert "Traceback" not in done.stderr


def test_a_worker_that_cancels_a_flow_gets_its_exception_back():
    code = (
        "import os\nfrom prefect.exceptions import TerminationSignal\nfrom flows import interrupting\n"
        f"try:\n  {CAUGHT_BY_PREFECT}\nexcept TerminationSignal: print('crashed in order')"
    ).replace(": raise", ":\n    raise")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "crashed in order\n"
