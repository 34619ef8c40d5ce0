"""A toy module that runs itself warm, called as DVC calls stages, with a process of the test's as the run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from datamill import imports, warm
from tasks import PIPELINE
from tasks.__main__ import SLOW

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks hand over files by Linux's means")

TOY = """
import os, sys, time
from datamill import hosting, warm

def main():
    if sys.argv[1:] == ["host"]:
        os.environ["SET_BY_A_LIBRARY"] = "on its way"
        hosting.serve(["toy.heavy"], slow=["toy.slow"])
        return 0
    try:
        loaded = [name for name in ("heavy", "slow") if f"toy.{name}" in sys.modules]
        print("+".join(loaded) or "light", os.getpid(), os.getcwd(),
              os.environ.get("DATAMILL_X"), sys.argv[1:], flush=True)
        if sys.argv[1:] == ["wait"]:
            time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        return 130
    if sys.argv[1:] == ["read"]:
        print(sys.stdin.read(), end="")
    print("to err", file=sys.stderr)
    return int(sys.argv[2]) if len(sys.argv) > 2 else 0

if __name__ == "__main__":
    ended = warm.hand_over("toy", sys.argv[1:], host=["host"], is_slow=sys.argv[1:] == ["slow"])
    sys.exit(main() if ended is None else ended)
"""


@pytest.fixture
def run() -> Iterator[subprocess.Popen[bytes]]:
    """What the host belongs to."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture
def start(tmp_path: Path, run: subprocess.Popen[bytes]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    package = tmp_path / "toy"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "heavy.py").touch()
    (package / "slow.py").write_text("import os, time\nwhile os.path.exists('loading'):\n    time.sleep(0.01)\n")
    (package / "__main__.py").write_text(TOY)

    def start(*arguments: str, folder: Path = tmp_path, **variables: str) -> subprocess.Popen[str]:
        search = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        lasting = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        environment = {**lasting, "PYTHONPATH": search, warm.KEEPER: str(run.pid), warm.SWITCH: "on", **variables}
        command = [sys.executable, "-m", "toy", *arguments]
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen(command, cwd=folder, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def host(start: Callable[..., subprocess.Popen[str]], run: subprocess.Popen[bytes]) -> psutil.Process:
    """The process that the first call leaves behind, once it takes callers."""
    assert start("first").communicate()[0].startswith("light ")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        said = start("ready").communicate()[0].split()
        if said[0] == "heavy":
            return _host_of(run)
        time.sleep(0.05)
    raise AssertionError("the host takes no caller")


def _host_of(run: subprocess.Popen[bytes]) -> psutil.Process:
    return next(
        one
        for one in psutil.process_iter(["cmdline", "environ"])
        if (one.info["cmdline"] or [])[-2:] == ["toy", "host"]
        and (one.info["environ"] or {}).get(warm.KEEPER) == str(run.pid)
    )


def test_a_child_of_the_host_has_the_callers_folder_variables_arguments_and_files(
    start: Callable[..., subprocess.Popen[str]], host: psutil.Process, tmp_path: Path
) -> None:
    folder = tmp_path / "else where"
    folder.mkdir()
    caller = start("read", "7", folder=folder, DATAMILL_X="y z")
    out, err = caller.communicate("said to it\n")
    first, *rest = out.splitlines()
    kind, pid, *told = first.split(" ", 2)
    assert (kind, told) == ("heavy", [f"{folder} y z ['read', '7']"])
    assert rest == []
    assert err == "to err\n"
    assert int(pid) not in (caller.pid, host.pid)
    assert caller.returncode == 7


def test_it_reads_the_callers_standard_input(start: Callable[..., subprocess.Popen[str]], host: psutil.Process) -> None:
    assert start("read").communicate("said to it\n")[0].splitlines()[1:] == ["said to it"]


def test_a_caller_is_answered_while_the_slow_libraries_load_for_another(
    start: Callable[..., subprocess.Popen[str]], run: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    loading = tmp_path / "loading"
    loading.touch()
    start("first").communicate()
    while not start("ready").communicate()[0].startswith("heavy "):
        time.sleep(0.05)
    slow = start("slow")
    assert start("quick").communicate()[0].startswith("heavy ")
    assert slow.poll() is None
    loading.unlink()
    assert slow.communicate()[0].startswith("heavy+slow ")


def test_a_caller_learns_of_its_childs_end_while_the_host_loads(
    start: Callable[..., subprocess.Popen[str]], run: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    waits = "import os, time\nwhile os.path.exists({!r}):\n    time.sleep(0.01)\n"
    for module in ("early", "heavy"):
        (tmp_path / "toy" / f"{module}.py").write_text(waits.format(f"{module} loads"))
        (tmp_path / f"{module} loads").touch()
    (tmp_path / "toy" / "__main__.py").write_text(TOY.replace('["toy.heavy"]', '["toy.early", "toy.heavy"]'))
    caller = start("first")
    while caller.poll() is not None or caller.args[-1] == "first":  # until one waits for the host
        caller.communicate()
        caller = start("second")
        with suppress(subprocess.TimeoutExpired):
            caller.wait(1)
    (tmp_path / "early loads").unlink()
    assert int(caller.communicate(timeout=30)[0].split()[1]) != caller.pid
    (tmp_path / "heavy loads").unlink()


def test_the_second_host_ends_with_the_run_as_well(
    start: Callable[..., subprocess.Popen[str]], host: psutil.Process, run: subprocess.Popen[bytes]
) -> None:
    start("slow").communicate()
    (second,) = host.children()
    run.kill()
    second.wait(10)


def test_an_interrupt_reaches_the_child_and_its_status_the_caller(
    start: Callable[..., subprocess.Popen[str]], host: psutil.Process
) -> None:
    caller = start("wait")
    assert caller.stdout is not None
    assert caller.stdout.readline().startswith("heavy ")
    caller.send_signal(signal.SIGINT)
    assert caller.communicate()[0] == "interrupted\n"
    assert caller.returncode == 130


def test_the_child_dies_with_its_caller(start: Callable[..., subprocess.Popen[str]], host: psutil.Process) -> None:
    caller = start("wait")
    assert caller.stdout is not None
    child = psutil.Process(int(caller.stdout.readline().split()[1]))
    caller.kill()
    child.wait(10)
    caller.communicate()
    assert start("next").communicate()[0].startswith("heavy ")


def test_the_child_dies_with_the_host_and_the_caller_says_so(
    start: Callable[..., subprocess.Popen[str]], host: psutil.Process
) -> None:
    caller = start("wait")
    assert caller.stdout is not None
    child = psutil.Process(int(caller.stdout.readline().split()[1]))
    host.kill()
    child.wait(10)
    assert "was killed; run it again" in caller.communicate()[1]
    assert caller.returncode == 1


@pytest.mark.parametrize("variables", [{"OMP_NUM_THREADS": "3"}, {"PYTHONDEVMODE": "1"}, {warm.SWITCH: "off"}])
def test_what_a_library_may_have_read_when_it_was_loaded_must_be_the_same(
    start: Callable[..., subprocess.Popen[str]], host: psutil.Process, variables: dict[str, str]
) -> None:
    assert start("other", **variables).communicate()[0].startswith("light ")


def test_changed_code_is_never_run_as_it_was(
    start: Callable[..., subprocess.Popen[str]], host: psutil.Process, tmp_path: Path
) -> None:
    (tmp_path / "toy" / "heavy.py").write_text("changed = True\n")
    out = start("changed").communicate()
    assert out[0].startswith("light "), out
    host.wait(10)


def test_the_host_ends_with_the_run(host: psutil.Process, run: subprocess.Popen[bytes]) -> None:
    run.kill()
    host.wait(10)


def test_outside_a_run_nothing_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(warm.KEEPER, raising=False)
    monkeypatch.setattr(warm, "find_keeper", lambda: None)
    assert warm.hand_over("toy", [], host=["host"]) is None


def test_the_stages_that_load_torch_or_great_expectations_go_to_the_second_host() -> None:
    libraries = {"torch", "great_expectations", "albumentations"}
    quick = {name for stage in PIPELINE if stage.name not in SLOW for name in imports.modules(stage.module)}
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code, *sorted(quick)], capture_output=True, text=True, check=True)
    assert libraries.isdisjoint(loaded.stdout.split())
    for stage in PIPELINE:
        files = imports.closure(stage.module)
        names = {
            name.partition(".")[0]
            for file in files
            if file.suffix == ".py"
            for name in imports.imported_names(file.read_text(encoding="utf-8"), package="datamill")
        }
        assert stage.name not in SLOW or libraries & names, stage.name


def test_dvc_above_a_process_is_what_it_works_for(tmp_path: Path) -> None:
    (tmp_path / "dvc").symlink_to(sys.executable)
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    asks = "import os; from datamill import warm; print(warm.find_keeper().pid == os.getppid())"
    environment = {name: value for name, value in os.environ.items() if name != warm.KEEPER}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [str(tmp_path / "dvc"), "-c", code.replace("sys.executable", repr(sys.executable)), asks]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "True\n"
