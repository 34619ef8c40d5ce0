"""One stage through DVC: reproduced when something changed, skipped when nothing did."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Literal

from datamill import warm
from datamill.errors import StageError

Status = Literal["executed", "cached"]

ERROR = "error: "  # begins the message of a stage
DVC_ERROR = "ERROR: "
LOCK_SIGNS = (
    "Unable to acquire lock",
    "is busy, it is being blocked by",
    "Failed to acquire lock",
    "could not be locked",
)
MISSING = re.compile(r"failed to reproduce .*: \[Errno 2\] No such file or directory: '(.*)'")  # before the stage began
FOREIGN = ("DVC_ROOT", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_", "PREFECT_")  # the flow talks to servers, its stages do not
NOISE = (
    "Running stage ",
    "> python -m tasks",
    "Updating lock file",
    "Generating lock file",
    "Use `dvc push`",
    "Data and pipelines are up to date",
    "To enable auto staging",
    "\tdvc config core.autostage",
    "To track the changes",
    "\tgit add",
)


class LockedError(StageError):
    """Another DVC process holds a lock that this stage needs; trying again later helps."""


@dataclass(frozen=True)
class Outcome:
    """How a stage ended."""

    name: str
    status: Status
    seconds: float


def reproduce(name: str, *, root: Path, environment: Mapping[str, str], tell: Callable[[str], None]) -> Status:
    """Run ``dvc repro --single-item`` for one stage with this interpreter; ``tell`` gets each line the stage prints.

    Raises:
        LockedError: Another process holds the lock.
        StageError: The stage failed; carries its error message.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
    lines: list[str] = []
    is_failing = False
    with subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C reaches it through the flow, in order
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            is_failing = is_failing or line.startswith((ERROR, DVC_ERROR))  # raised below, and told once
            if not is_failing and line.strip() and not is_noise(line.rstrip()):
                tell(line.rstrip())
    if process.returncode == 0:
        return "cached" if any("didn't change" in line for line in lines) else "executed"
    raise explain(name, lines)


def is_noise(line: str) -> bool:
    """Whether a line of DVC's says nothing to those who run a flow; an output may well be an empty folder."""
    return line.startswith(NOISE) or line.endswith("' is empty.") or "didn't change" in line


def explain(name: str, lines: list[str]) -> StageError:
    """The error behind a failed ``dvc repro``: the stage's own message, or a lock, or DVC's last words."""
    if any(sign in line for line in lines for sign in LOCK_SIGNS):
        return LockedError(f"{name}: another DVC process holds the lock of this workspace")
    for number, line in enumerate(lines):
        if line.startswith(ERROR):
            told = takewhile(lambda following: not following.startswith(DVC_ERROR), lines[number:])
            return StageError("\n".join(told).removeprefix(ERROR))
    for line in lines:
        if line.endswith("is not a git repository"):
            return StageError(f"{line.removeprefix(DVC_ERROR)}, which DVC needs; `datamill init` makes it one again")
        if missing := MISSING.search(line):
            return StageError(
                f"{name} reads {missing[1]}, which does not exist; put it there, or mend the path in params.yaml"
            )
    return StageError(f"{name} failed:\n" + "\n".join(lines[-15:]))


@cache  # libraries that the flow loads while its stages work set variables; a host of other variables would refuse them
def stage_environment(*, session: str) -> Mapping[str, str]:
    """The environment for stages of one session: this interpreter first on the path, nothing that servers are told.

    It is that of the first call, which comes before anything is loaded for the session.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    environment["DATAMILL_SESSION"] = session
    environment[warm.KEEPER] = str(os.getpid())
    environment["PYTHONUNBUFFERED"] = "1"
    if environment.get("DATAMILL_TRACKING", "on") == "on":
        environment["DATAMILL_TRACKING"] = "relay"  # the flow sends what its stages say
    return environment
