import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from datamill import files
from datamill.engine import Engine, fetch
from datamill.errors import DataError, ParamsError, StageError

TWO = Engine(num_workers=2)


def process_of(item):
    return os.getpid()


def thread_of(item):
    time.sleep(0.05)
    return os.getpid(), threading.get_ident()


def slowest_first(item):
    time.sleep(0.2 if item == 0 else 0)
    return item


def note_and_double(item, *, log):
    with log.open("a") as file:
        file.write(f"{item}\n")
    return 2 * item


def kill_own_process(item, *, at, log, times):
    """Double of the item; the first ``times`` times, item ``at`` kills its worker after the others have begun."""
    if item == at:
        time.sleep(0.05)
        note_and_double(item, log=log)
        if len(log.read_text().split()) <= times:
            os.kill(os.getpid(), signal.SIGKILL)
    else:
        time.sleep(0.1)
    return 2 * item


class UnportableError(Exception):
    def __init__(self, message, lock):
        super().__init__(message)
        self.lock = lock


def fail(item):
    if item == 1:
        time.sleep(0.1)
        raise DataError("label 'x' is unknown")
    if item == 2:
        raise ValueError("what the second worker sees first")
    return item


def fail_at_once(item):
    raise ValueError(f"no {item}")


def fail_with_a_lock(item):
    raise UnportableError("cannot travel", threading.Lock())


def thread_counts(item):
    import cv2
    import numpy  # noqa: F401 - loads its BLAS
    import pyarrow
    from threadpoolctl import threadpool_info

    return {cv2.getNumThreads(), pyarrow.cpu_count(), *(library["num_threads"] for library in threadpool_info())}


def sleep_long(item):
    time.sleep(0 if item == 0 else 60)
    return os.getpid()


def read_file(url, *, folder):
    return fetch(url, folder).read_bytes()


def is_running(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def wait_until_ended(pids: list[int], *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, f"{pids} still run"
        time.sleep(0.05)


# map


def test_results_come_in_the_order_of_the_items_whoever_finishes_first():
    assert list(TWO.map(slowest_first, range(6))) == [0, 1, 2, 3, 4, 5]


def test_a_single_item_or_a_single_worker_takes_no_process():
    assert list(TWO.map(process_of, [1])) == [os.getpid()]
    assert list(Engine(num_workers=1).map(process_of, [1, 2])) == [os.getpid()] * 2
    assert list(TWO.map(process_of, [])) == []
    assert os.getpid() not in list(TWO.map(process_of, [1, 2]))


def test_what_lets_go_of_the_lock_runs_on_threads_of_this_process_in_order():
    assert list(TWO.map(slowest_first, range(6), is_lockless=True)) == [0, 1, 2, 3, 4, 5]
    processes, threads = zip(*TWO.map(thread_of, range(6), is_lockless=True), strict=True)
    assert set(processes) == {os.getpid()}
    assert len(set(threads)) == 2
    assert threading.get_ident() not in threads
    import torch  # noqa: F401 - loads its OpenMP, which counts for each thread

    list(TWO.map(thread_counts, range(2), is_lockless=True))  # loads the other libraries
    assert list(TWO.map(thread_counts, range(3), is_lockless=True)) == [{1}] * 3


def test_an_error_on_a_thread_is_raised_in_its_place_and_ends_the_rest():
    results = TWO.map(fail, range(100), is_lockless=True)
    assert next(results) == 0
    with pytest.raises(DataError, match="label 'x' is unknown"):
        next(results)
    assert list(results) == []


def test_workers_stay_for_the_next_map():
    first = set(TWO.map(process_of, range(8)))
    assert set(TWO.map(process_of, range(8))) & first


def test_at_most_two_items_per_worker_are_ahead_of_the_reader():
    taken = []
    results = TWO.map(process_of, (taken.append(item) or item for item in range(20)))
    assert taken == []
    next(results)
    time.sleep(0.1)
    assert taken == [0, 1, 2, 3]
    next(results)
    assert taken == [0, 1, 2, 3, 4]
    assert len(list(results)) == 18


def test_an_item_is_computed_on_one_thread_in_a_worker_and_here():
    import cv2
    import numpy  # noqa: F401 - loads its BLAS
    import pyarrow  # noqa: F401

    cv2.setNumThreads(2)
    assert list(TWO.map(thread_counts, range(3))) == [{1}] * 3
    assert list(TWO.map(thread_counts, [1])) == [{1}]
    assert cv2.getNumThreads() == 2


def test_items_lost_with_a_killed_worker_are_computed_again(tmp_path):
    log = tmp_path / "log"
    results = list(TWO.map(partial(kill_own_process, at=3, log=log, times=1), range(8)))
    assert results == [0, 2, 4, 6, 8, 10, 12, 14]
    assert log.read_text().split() == ["3", "3"]


def test_an_item_that_kills_its_worker_three_times_is_named_and_its_neighbours_are_not_blamed(tmp_path):
    log = tmp_path / "log"
    results = TWO.map(partial(kill_own_process, at=3, log=log, times=99), range(8), total=8)
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    with pytest.raises(StageError, match=r"item 4 of 8 \(3\) is not tried again: .*Give workers more memory"):
        next(results)
    assert log.read_text().split() == ["3", "3", "3"]


def test_an_item_that_kills_its_worker_twice_is_finished_by_the_third(tmp_path):
    log = tmp_path / "log"
    results = list(TWO.map(partial(kill_own_process, at=3, log=log, times=2), range(8)))
    assert results == [0, 2, 4, 6, 8, 10, 12, 14]


def test_a_worker_killed_at_rest_is_replaced():
    workers = set(TWO.map(process_of, range(8)))
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    assert not workers & set(TWO.map(process_of, range(8)))


def test_the_first_error_in_the_order_of_the_items_is_raised_as_itself_and_ends_the_rest(tmp_path):
    results = TWO.map(fail, range(100))
    assert next(results) == 0
    with pytest.raises(DataError, match="label 'x' is unknown"):
        next(results)
    assert list(results) == []


def test_an_error_tells_where_in_the_worker_it_came_from():
    with pytest.raises(ValueError, match="no 0") as caught:
        list(TWO.map(fail_at_once, [0, 1]))
    assert "in fail_at_once" in caught.value.__notes__[0]


def test_an_error_that_cannot_be_pickled_arrives_in_words():
    with pytest.raises(StageError, match="UnportableError: cannot travel"):
        list(TWO.map(fail_with_a_lock, [0, 1]))


def test_a_reader_who_stops_ends_what_is_at_work():
    results = TWO.map(sleep_long, range(4))
    next(results)
    workers = [child.pid for child in psutil.Process().children() if "LokyProcess" in " ".join(child.cmdline())]
    assert workers
    results.close()
    wait_until_ended(workers, timeout_s=5)


def run_script(text: str, folder: Path) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(text)
    command = [sys.executable, "-W", "error", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


SCRIPT = """
from datamill.engine import Engine
from tests.datamill.test_engine import {function}
for result in Engine(num_workers=2).map({function}, range(4)):
    print(result, flush=True)
"""


@pytest.mark.slow
def test_a_process_that_ends_leaves_neither_workers_nor_words(tmp_path):
    output, errors = run_script(SCRIPT.format(function="process_of"), tmp_path).communicate(timeout=30)
    assert errors == ""
    workers = [int(line) for line in output.split()]
    assert len(workers) == 4
    assert not any(map(is_running, workers))


@pytest.mark.slow
@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_stopped_takes_its_workers_with_it(name, tmp_path):
    process = run_script(SCRIPT.format(function="sleep_long"), tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(name)
    process.communicate(timeout=10)
    assert len(children) >= 2
    wait_until_ended(children, timeout_s=5)


def test_the_engine_imports_nothing_heavy():
    heavy = "{'joblib', 'fsspec', 'numpy', 'torch', 'ray', 'dask'}"
    code = f"import datamill.engine, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# clusters


@pytest.mark.parametrize(("kind", "library"), [("dask", "distributed"), ("ray", "ray")])
def test_an_engine_that_is_not_installed_is_named_with_what_to_install(kind, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    engine = Engine(kind=kind, address="tcp://127.0.0.1:1")
    with pytest.raises(ParamsError, match=rf"DATAMILL_ENGINE is '{kind}', which needs {library}: pip install"):
        list(engine.map(process_of, [1, 2]))


def test_a_cluster_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(Client=None))
    engine = Engine(kind="dask", address="tcp://127.0.0.1:1")
    message = r"no dask cluster answers at 'tcp://127.0.0.1:1' \(.*refused\); start one, or correct"
    with pytest.raises(StageError, match=message):
        list(engine.map(process_of, [1, 2]))


# storage


@pytest.fixture
def stored(tmp_path: Path) -> Engine:
    return Engine(num_workers=2, storage=f"file://{tmp_path}/storage")


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "document"
    path.write_bytes(b"content")
    return path


def everything_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_on_a_shared_file_system_a_path_is_a_path(tmp_path, document):
    assert TWO.share(document) == str(document)
    assert fetch(str(document), tmp_path / "worker") == document


def test_a_shared_file_is_stored_once_under_its_hash(tmp_path, stored, document):
    url = stored.share(document)
    assert url == f"{stored.storage}/shared/{files.sha256_file(document)}"
    (copy,) = everything_below(tmp_path / "storage")
    os.utime(copy, (1, 1))
    assert stored.share(document) == url
    assert copy.stat().st_mtime == 1


def test_a_file_whose_upload_was_cut_short_is_stored_again(tmp_path, stored, document):
    url = stored.share(document)
    (copy,) = everything_below(tmp_path / "storage")
    copy.write_bytes(b"cont")
    assert stored.share(document) == url
    assert copy.read_bytes() == b"content"


def test_a_worker_fetches_a_file_once_and_checks_it(tmp_path, stored, document):
    url = stored.share(document)
    copy = fetch(url, tmp_path / "worker")
    assert copy.read_bytes() == b"content"
    os.utime(copy, (1, 1))
    assert fetch(url, tmp_path / "worker").stat().st_mtime == 1
    copy.write_bytes(b"damaged")
    assert fetch(url, tmp_path / "worker").read_bytes() == b"content"


def test_a_file_that_was_changed_in_the_storage_is_refused(tmp_path, stored, document):
    url = stored.share(document)
    (copy,) = everything_below(tmp_path / "storage")
    copy.write_bytes(b"c0ntent")
    with pytest.raises(DataError, match="holds other bytes than its name says"):
        fetch(url, tmp_path / "worker")
    assert not everything_below(tmp_path / "worker")


def test_workers_read_what_was_shared(tmp_path, stored):
    for number in range(3):
        (tmp_path / f"part-{number}").write_text(f"{number}")
    urls = [stored.share(tmp_path / f"part-{number}") for number in range(3)]
    assert list(stored.map(partial(read_file, folder=tmp_path / "worker"), urls)) == [b"0", b"1", b"2"]


def test_a_storage_that_cannot_be_reached_is_named(tmp_path, document):
    with pytest.raises(StageError, match=r"nowhere://bucket: .*check DATAMILL_STORAGE"):
        Engine(storage="nowhere://bucket").share(document)
    with pytest.raises(StageError, match=r"file:///.*/gone: FileNotFoundError"):
        fetch(f"file://{tmp_path}/gone", tmp_path / "worker")
