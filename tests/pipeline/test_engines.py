"""Real Dask and Ray clusters and a real S3 server, each of them processes on 127.0.0.1."""

import contextlib
import importlib.util
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from datamill import extracting
from datamill.engine import Engine, backends, fetch
from datamill.errors import DataError, StageError
from datamill.settings import Settings
from datamill.shards import packing
from datamill.sources import exchanged
from tests.pipeline.histories import SMALL, History, PackedImages, run, write_params

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
NUM_ITEMS = 24


def need(*libraries: str) -> None:
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")


# what workers do


def square(item, *, log):
    time.sleep(0.1)
    with (log / str(item)).open("a") as file:
        file.write("x")
    return item * item, os.getpid()


def refuse_three(item):
    if item == 3:
        raise DataError("label 'x' is unknown")
    return item


def kill_at_three(item):
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    return item


def worker_id(item):
    return os.getpid()


def num_threads(item):
    import numpy  # noqa: F401 - loads its BLAS
    from threadpoolctl import threadpool_info

    return [library["num_threads"] for library in threadpool_info()]


def read_file(url, *, folder):
    return fetch(url, folder).read_bytes()


# clusters


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, *, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@contextlib.contextmanager
def running(*command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with all it starts, ended with the block."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("ab") as file:
        process = subprocess.Popen([sys.executable, "-m", *command], env=environment, stdout=file, stderr=file)
    try:
        yield process
    finally:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()


def short_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder whose path is short enough for sockets."""
    return tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)


@contextlib.contextmanager
def scheduler(port: int, *, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    with running(*command, log=folder / "scheduler.log") as process:
        wait_for(port, process=process, log=folder / "scheduler.log")
        yield process


def workers(address: str, *, folder: Path) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    sizes = ["--nworkers", "2", "--nthreads", "1", "--memory-limit", "1GiB", "--local-directory", str(folder)]
    command = ["distributed.cli.dask_worker", address, "--host", "127.0.0.1", "--no-dashboard"]
    return running(*command, *sizes, log=folder / "workers.log")


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    need("distributed")
    folder = tmp_path_factory.mktemp("dask")
    address = f"tcp://127.0.0.1:{(port := free_port())}"
    with scheduler(port, folder=folder), workers(address, folder=folder):
        backends._dask_client(address).wait_for_workers(2, timeout=60)
        yield Engine(kind="dask", address=address, num_workers=2)
        backends._dask_client(address).close()
        backends._dask_client.cache_clear()


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    need("ray")
    folder = tmp_path_factory.mktemp("ray")
    address = f"127.0.0.1:{(port := free_port())}"
    sizes = ["--num-cpus", "2", "--memory", str(2**30), "--object-store-memory", str(10**8)]
    here = ["--node-ip-address", "127.0.0.1", "--port", str(port), "--include-dashboard", "false"]
    command = ["ray.scripts.scripts", "start", "--head", "--block", *here, *sizes]
    quiet = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    with pytest.MonkeyPatch.context() as patch, short_folder() as sockets:
        for name, value in quiet.items():
            patch.setenv(name, value)
        with running(*command, "--temp-dir", sockets, log=folder / "log") as process:
            wait_for(port, process=process, log=folder / "log")
            yield Engine(kind="ray", address=address, num_workers=2)
            backends._ray(address).shutdown()
            backends._ray.cache_clear()


@pytest.fixture(params=["dask", "ray"])
def cluster(request: pytest.FixtureRequest) -> Engine:
    engine: Engine = request.getfixturevalue(request.param)
    return engine


def test_a_worker_killed_in_the_middle_costs_no_item_and_doubles_none(cluster, tmp_path):
    results = cluster.map(partial(square, log=tmp_path), range(NUM_ITEMS), total=NUM_ITEMS)
    found = [next(results) for _ in range(6)]
    os.kill(found[-1][1], signal.SIGKILL)
    found += results
    assert [value for value, _ in found] == [item * item for item in range(NUM_ITEMS)]
    assert found[5][1] not in {pid for _, pid in found[12:]}
    assert len({pid for _, pid in found}) >= 3
    assert {path.name for path in tmp_path.iterdir()} == {str(item) for item in range(NUM_ITEMS)}


def test_an_error_keeps_its_type_and_words(cluster):
    results = cluster.map(refuse_three, range(NUM_ITEMS))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match=r"^label 'x' is unknown$"):
        next(results)


def test_an_item_that_kills_every_worker_is_named(cluster):
    results = cluster.map(kill_at_three, range(8), total=8)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(StageError, match=r"item 4 of 8 \(3\) is not tried again"):
        next(results)


def test_an_item_is_computed_on_one_thread(cluster):
    assert {count for counts in cluster.map(num_threads, range(4)) for count in counts} == {1}


def test_stages_write_the_bytes_of_a_local_run_though_a_worker_dies_in_each(cluster, tmp_path, monkeypatch):
    worth = {(module, "WORTH_BYTES"): 0 for module in (exchanged, extracting, packing)}
    for (module, name), value in {**SMALL, **worth, (packing, "DECODED_BYTES"): 2000}.items():
        monkeypatch.setattr(module, name, value)
    history = History(PackedImages(), tmp_path / "source", random.Random(3))
    history.begin(num_files=2, num_rows=100)
    for root in (tmp_path / "here", tmp_path / "there"):
        source = history.source.params(history.folder)
        write_params(root, source=source, changes={"split.strategy": "hash", "augment.copies_per_sample": 1})
    here = run(tmp_path / "here")
    plain, deaths = Engine.map, []

    def deadly(self, function, items, **how):
        results = plain(self, function, items, **how)
        yield next(results)
        deaths.append(function.func.__name__)
        os.kill(list(plain(self, worker_id, range(4)))[-1], signal.SIGKILL)
        yield from results

    monkeypatch.setattr(Engine, "map", deadly)
    engine = {"engine": cluster.kind, "engine_address": cluster.address, "num_workers": 2}
    there = run(tmp_path / "there", settings=Settings(tracking="off", device="cpu", num_threads=1, **engine))
    assert deaths == ["check_payloads", "look", "copies_of", "make_arrays"]
    assert (there.difference(here), here.error) == ("", "")


def test_a_server_that_says_nothing_is_no_cluster(monkeypatch):
    need("distributed")
    monkeypatch.setattr(backends, "SILENCE_S", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        engine = Engine(kind="dask", address=f"tcp://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(StageError, match=r"no dask cluster answers .*it listens, but has said nothing for 2 s"):
            list(engine.map(refuse_three, range(3)))


def test_a_scheduler_that_is_gone_is_named_before_and_during_work(tmp_path):
    need("distributed")
    address = f"tcp://127.0.0.1:{(port := free_port())}"
    engine = Engine(kind="dask", address=address, num_workers=2)
    with scheduler(port, folder=tmp_path) as process, workers(address, folder=tmp_path):
        results = engine.map(partial(square, log=tmp_path), range(NUM_ITEMS))
        next(results)
        process.kill()
        with pytest.raises(StageError, match=r"was dropped: the cluster's scheduler is gone; start it"):
            list(results)
    with pytest.raises(StageError, match=f"no dask cluster answers at '{address}'"):
        list(engine.map(refuse_three, range(2)))
    backends._dask_client(address).close()
    backends._dask_client.cache_clear()


# storage


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    need("moto", "s3fs")
    import s3fs

    port = free_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    with running("moto.server", "-H", "127.0.0.1", "-p", str(port), log=tmp_path / "log") as process:
        wait_for(port, process=process, log=tmp_path / "log")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("datamill-test")
        yield "s3://datamill-test/some/prefix"
        s3fs.S3FileSystem.clear_instance_cache()


def test_files_travel_through_s3_and_are_stored_once(bucket, tmp_path):
    import s3fs

    engine = Engine(num_workers=2, storage=bucket)
    contents = [bytes([number]) * 1000 for number in range(3)]
    for number, content in enumerate(contents):
        (tmp_path / f"part-{number}").write_bytes(content)
    urls = [engine.share(tmp_path / f"part-{number}") for number in range(3)]
    assert urls == [engine.share(tmp_path / f"part-{number}") for number in range(3)]
    assert list(engine.map(partial(read_file, folder=tmp_path / "worker"), urls)) == contents
    s3fs.S3FileSystem.clear_instance_cache()
    assert [f"s3://{key}" for key in s3fs.S3FileSystem().find("datamill-test")] == sorted(urls)


def test_an_object_that_was_changed_in_s3_is_refused(bucket, tmp_path):
    import s3fs

    (tmp_path / "part").write_bytes(b"content")
    url = Engine(storage=bucket).share(tmp_path / "part")
    s3fs.S3FileSystem().pipe_file(url, b"c0ntent")
    with pytest.raises(DataError, match="holds other bytes than its name says"):
        fetch(url, tmp_path / "worker")


def test_a_bucket_that_is_not_there_is_named(bucket, tmp_path):
    (tmp_path / "part").write_bytes(b"content")
    with pytest.raises(StageError, match=r"s3://elsewhere: .*check DATAMILL_STORAGE and its access"):
        Engine(storage="s3://elsewhere").share(tmp_path / "part")
