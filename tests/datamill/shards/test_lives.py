"""Loaders used in any order of things: broken off, saved, moved, shared by threads, forked, interrupted."""

import gc
import json
import os
import pickle
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from datamill.errors import StageError
from datamill.shards import ShardLoader, integrity, loader
from datamill.shards.batching import Buckets
from datamill.shards.forking import OwnLock
from datamill.shards.native import open_shard
from tests.datamill.shards.test_loader import plain, workers, write

TIMEOUT_S = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("lives") / "train")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "BLOCK_BYTES", 256)
    monkeypatch.setattr(loader, "CHECK_BATCHES", 2)


class Life:
    """A loader, what it must give next, and what happens to it."""

    def __init__(self, folder: Path, *, rng: random.Random, arguments: dict[str, Any]) -> None:
        self.log: list[str] = []
        self._folder, self._rng, self._arguments = folder, rng, arguments
        self._known: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
        self._epoch = self._batch = 0
        self._shares = (0, 1)
        self._is_begun = False  # an iteration since the last state was loaded
        self._current: Iterator[Any] | None = None
        self._loader = self._make()

    def step(self) -> None:
        """Do one thing."""
        chosen = self._rng.choice([self._take, self._take, self._move, self._load, self._begin, self._break, self._end])
        self.log.append(chosen.__name__)
        chosen()

    def _make(self) -> ShardLoader:
        rank, world_size = self._shares
        rng = self._rng
        speed = {"num_workers": rng.choice([0, 1, 3]), "prefetch": rng.choice([1, 2, 5]), "ring": rng.choice([1, 4])}
        kind = {
            "cache_bytes": rng.choice([0, 1000]),
            "copy": rng.random() < 0.5,
            "verify": rng.choice(["touch", "open"]),
        }
        shares = {"rank": rank, "world_size": world_size}
        return ShardLoader(self._folder, batch_size=8, **speed, **kind, **shares, **self._arguments)

    def _expected(self) -> list[dict[str, Any]]:
        """Batches of the epoch on this rank, by a loader without a past."""
        key = (self._epoch, *self._shares)
        if key not in self._known:
            epoch, rank, world_size = key
            new = ShardLoader(
                self._folder, batch_size=8, epoch=epoch, rank=rank, world_size=world_size, **self._arguments
            )
            self._known[key] = [plain(batch) for batch in new]
        return self._known[key]

    def _begin(self) -> None:
        self._current = iter(self._loader)
        if self._is_begun or self._batch == len(self._expected()):
            self._epoch, self._batch = self._epoch + 1, 0
        self._is_begun = True

    def _take(self) -> None:
        if self._current is None:
            self._begin()
        for _ in range(self._rng.randrange(1, 9)):
            batch = next(self._current, None) if self._current is not None else None
            if batch is None:
                assert self._batch == len(self._expected()), self.log
                self._epoch, self._batch, self._is_begun, self._current = self._epoch + 1, 0, False, None
                return
            assert plain(batch) == self._expected()[self._batch], self.log
            self._batch += 1

    def _move(self) -> None:
        """The state goes to another loader, as text, of another number of workers and ranks."""
        state = json.loads(json.dumps(self._loader.state_dict()))
        self._shares = self._rng.choice([(0, 1), (0, 2), (1, 2)])
        old, self._loader = self._loader, self._make()
        self._loader.load_state_dict(state)
        self._current, self._is_begun = None, False
        if self._rng.random() < 0.5:
            next(iter(old), None)  # which has no say any more

    def _load(self) -> None:
        self._loader.load_state_dict(self._loader.state_dict())
        self._current, self._is_begun = None, False

    def _break(self) -> None:
        """The consumer fails; what it held is gone."""
        with pytest.raises(KeyError, match="the consumer"):
            self._take_and_fail()
        self._current = None

    def _take_and_fail(self) -> None:
        self._take()
        raise KeyError("the consumer")

    def _end(self) -> None:
        if self._current is not None:
            self._current.close()  # type: ignore[attr-defined]
            with pytest.raises(StageError, match="this one cannot go on"):
                next(self._current)
        self._current = None


def held() -> tuple[int, int, list[str], list[str]]:
    """Open files, mapped ones of these tests, threads and shared memory."""
    gc.collect()
    mapped = sum("lives" in line for line in Path("/proc/self/maps").read_text().splitlines())
    shared = sorted(path.name for path in Path("/dev/shm").iterdir() if str(os.getpid()) in path.name)
    return len(list(Path("/proc/self/fd").iterdir())), mapped, workers(), shared


CONTENTS: list[dict[str, Any]] = [
    {},
    {"order": "blocks", "even": True, "normalise": {"x": (0.5, 0.25)}},
    {"order": "random", "drop_last": True, "seed": 3},
    {"buckets": Buckets("tokens", max_tokens=90, pool_batches=3, multiple_of=4)},
]


def live(folder: Path, *, seed: int, num_steps: int) -> None:
    rng = random.Random(seed)
    life = Life(folder, rng=rng, arguments=CONTENTS[seed % len(CONTENTS)])
    for _ in range(num_steps):
        life.step()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_whatever_happens_to_a_loader_the_same_batches_follow_and_nothing_is_left(folder: Path) -> None:
    live(folder, seed=0, num_steps=10)  # after which torch and numpy hold what they hold
    before = held()
    for seed in range(8):
        live(folder, seed=seed, num_steps=30)
    assert held() == before


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(100, 108))
def test_it_does_so_in_long_lives(folder: Path, seed: int) -> None:
    for number in range(8):
        live(folder, seed=8 * seed + number, num_steps=120)


def in_threads(act: Callable[[], None], *, count: int) -> None:
    """Run on several threads and wait for them, not for ever."""
    threads = [threading.Thread(target=act, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_threads_that_share_an_iteration_get_each_batch_once(folder: Path, num_workers: int) -> None:
    batches = iter(ShardLoader(folder, batch_size=2, num_workers=num_workers, copy=True))
    got: list[dict[str, Any]] = []
    in_threads(lambda: got.extend(plain(batch) for batch in batches), count=4)
    expected = [plain(batch) for batch in ShardLoader(folder, batch_size=2)]
    assert sorted(got, key=lambda batch: batch["row"]) == sorted(expected, key=lambda batch: batch["row"])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_thread_that_begins_anew_ends_the_iteration_of_another_in_one_clear_error(
    folder: Path, num_workers: int
) -> None:
    shared = ShardLoader(folder, batch_size=2, num_workers=num_workers)
    written = {batch["row"][0]: batch for batch in map(plain, ShardLoader(folder, batch_size=1))}
    told, wrong = [], []

    def iterate() -> None:
        try:
            for batch in map(plain, shared):
                rows = zip(batch["row"], batch["label"], batch["note"], strict=True)
                wrong.extend(row for row, *held in rows if held != [written[row]["label"][0], written[row]["note"][0]])
        except StageError as error:
            told.append(str(error))

    in_threads(iterate, count=3)
    assert wrong == []
    assert set(told) <= {"the loader began another iteration, or loaded a state; this one cannot go on"}
    assert workers() == []


def forked(act: Callable[[], Any]) -> str:
    """What ``act`` gives, or the error it ends with, in a forked child that may not hang."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(TIMEOUT_S)
        try:
            text = repr(act())
        except BaseException as error:  # noqa: BLE001 - told by the parent
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(pid, 0)
    return text


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_forked_child_begins_anew_where_its_parent_is_and_takes_nothing_from_it(
    folder: Path, num_workers: int
) -> None:
    expected = [plain(batch)["row"] for batch in ShardLoader(folder, batch_size=8)]
    parent = ShardLoader(folder, batch_size=8, num_workers=num_workers)
    batches = iter(parent)
    assert plain(next(batches))["row"] == expected[0]

    def go_on() -> list[Any]:
        parent.load_state_dict(parent.state_dict())
        return [plain(batch)["row"] for batch in parent]

    assert forked(lambda: next(batches)) == (
        "StageError: this iteration began in another process, whose threads are not here; begin one here"
    )
    assert forked(go_on) == repr(expected[1:])
    assert [plain(batch)["row"] for batch in batches] == expected[1:]


def test_a_child_forked_while_threads_hold_things_waits_for_none_of_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = open_shard(folder)
    is_at_work, may_go_on, lock = threading.Event(), threading.Event(), OwnLock()
    plain_check = integrity.Guard._verify_block

    def slow(self: integrity.Guard, block: int) -> None:
        is_at_work.set()
        may_go_on.wait(TIMEOUT_S)
        plain_check(self, block)

    def hold() -> None:
        with lock:
            shard.touch("label")

    monkeypatch.setattr(integrity.Guard, "_verify_block", slow)
    thread = threading.Thread(target=hold)
    thread.start()
    assert is_at_work.wait(TIMEOUT_S)

    def touch() -> str:
        integrity.Guard._verify_block = plain_check  # type: ignore[method-assign]
        with lock:
            shard.touch("label")
        return "touched"

    assert forked(touch) == "'touched'"
    may_go_on.set()
    thread.join()


class Wrapped(torch.utils.data.IterableDataset[Any]):
    """A loader in the clothes of a data set, as one gives it to torch's own loader."""

    def __init__(self, source: ShardLoader) -> None:
        self._source = source

    def __iter__(self) -> Iterator[Any]:
        return iter(self._source)


@pytest.mark.filterwarnings("ignore")  # torch's own
def test_torch_s_loader_gets_the_same_batches_in_a_forked_process(folder: Path) -> None:
    expected = [plain(batch) for batch in ShardLoader(folder, batch_size=8)]
    source = ShardLoader(folder, batch_size=8, num_workers=1)
    next(iter(source))
    source.load_state_dict(ShardLoader(folder, batch_size=8).state_dict())
    torch_s: Any = torch.utils.data.DataLoader(
        Wrapped(source), batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=TIMEOUT_S
    )
    assert [plain(batch) for batch in torch_s] == expected


def test_a_loader_is_not_sent_to_another_process(folder: Path) -> None:
    message = f"a loader holds open files and threads, .* make one of {folder} there, with its state_dict"
    with pytest.raises(StageError, match=message):
        pickle.dumps(Wrapped(ShardLoader(folder)))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_interrupt_loses_no_batch_and_leaves_no_thread(folder: Path, num_workers: int) -> None:
    left = [3]

    def interrupted(batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return batch

    source = ShardLoader(folder, batch_size=8, num_workers=num_workers, transform=interrupted)
    got = []

    def consume() -> None:
        for batch in source:
            got.append(plain(batch))

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert workers() == []
    source.load_state_dict(source.state_dict())
    got.extend(map(plain, source))
    assert got == [plain(batch) for batch in ShardLoader(folder, batch_size=8)]
