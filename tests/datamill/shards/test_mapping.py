import contextlib
import gc
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill.shards import mapping
from datamill.shards.mapping import Mapped, map_files

PAGE = mmap.ALLOCATIONGRANULARITY


def map_contents(folder: Path, contents: Sequence[bytes], *, element_bytes: int = 1) -> Mapped:
    paths = [folder / f"{number}.bin" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(path.open("rb", buffering=0)) for path in paths]
        return map_files(opened, sizes=[len(content) for content in contents], element_bytes=element_bytes)


def num_maps(folder: Path) -> int:
    """Maps of this process over files in ``folder``."""
    return Path("/proc/self/maps").read_text(encoding="utf-8").count(str(folder))


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9000), min_size=1, max_size=8),
    element=st.sampled_from([1, 2, 3, 7, 12, 784, 4096, 4097, 12_289]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_gather_over_segments_is_a_gather_over_their_concatenation(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], element: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    counts = [max(1, count // element) for count in counts]
    pieces = [rng.integers(0, 256, (count, element), dtype=np.uint8) for count in counts]
    whole = np.concatenate(pieces)
    mapped = map_contents(tmp_path_factory.mktemp("maps"), [p.tobytes() for p in pieces], element_bytes=element)
    slots = np.concatenate(
        [position // element + np.arange(count) for position, count in zip(mapped.positions, counts, strict=True)]
    )
    wanted = rng.integers(0, len(whole), 50)
    rows = torch.from_numpy(mapped.flat.reshape(-1, element))
    np.testing.assert_array_equal(rows.index_select(0, torch.from_numpy(slots[wanted])).numpy(), whole[wanted])


def test_files_start_at_pages_that_are_whole_elements(tmp_path: Path) -> None:
    mapped = map_contents(tmp_path, [b"abc" * 5, b"d" * 3 * PAGE, b"efg"], element_bytes=3)
    assert mapped.positions == (0, 3 * PAGE, 6 * PAGE)
    assert len(mapped.flat) == 6 * PAGE + 3


def test_holes_read_as_zeros(tmp_path: Path) -> None:
    mapped = map_contents(tmp_path, [b"a", b"b"], element_bytes=3 * PAGE)
    assert mapped.flat.nonzero()[0].tolist() == [0, 3 * PAGE]


def test_empty_files_take_no_place(tmp_path: Path) -> None:
    assert map_contents(tmp_path, []).flat.size == 0
    assert map_contents(tmp_path, [b"", b""]).flat.size == 0
    assert map_contents(tmp_path, [b"a", b"", b"c"]).flat[[0, PAGE]].tobytes() == b"ac"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_memory_and_descriptors_are_given_back(tmp_path: Path) -> None:
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    mapped = map_contents(tmp_path, [b"a" * PAGE] * 3)
    tensor = torch.from_numpy(mapped.flat)[2:5]
    del mapped
    gc.collect()
    assert num_maps(tmp_path) == 3
    assert tensor.tolist() == [97] * 3
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    del tensor
    gc.collect()
    assert num_maps(tmp_path) == 0


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_mapped_files_cannot_be_written(tmp_path: Path) -> None:
    mapped = map_contents(tmp_path, [b"a" * PAGE])
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    assert [line.split()[1] for line in lines if str(tmp_path) in line] == ["r--s"]
    del mapped


@pytest.mark.parametrize("reason", ["no such call", "too far apart"])
def test_where_addresses_cannot_be_arranged_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    if reason == "no such call":
        monkeypatch.setattr(mapping, "_mapper", lambda: None)
    else:
        monkeypatch.setattr(mapping, "MAX_BYTES", 100)
    mapped = map_contents(tmp_path, [b"abc", b"", b"d" * 200])
    assert mapped.flat.tobytes() == b"abc" + b"d" * 200
    assert mapped.positions == (0, 3, 3)


def test_a_failing_call_is_an_error_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    with (tmp_path / "a.bin").open("rb", buffering=0) as file:
        descriptor = file.fileno()
    map_into = mapping._mapper()
    assert map_into is not None
    reserved = np.frombuffer(mmap.mmap(-1, PAGE), np.uint8)
    with pytest.raises(OSError, match="Bad file descriptor"):
        map_into(reserved.ctypes.data, 1, descriptor)


def test_what_was_let_go_is_out_of_memory_and_still_there_to_read(tmp_path: Path) -> None:
    content = bytes(range(256)) * 2**14  # 4 MiB
    mapped = map_contents(tmp_path, [content, content])
    view = mapped.flat[: len(content)].view()

    def resident_kib() -> int:
        status = Path("/proc/self/smaps").read_text(encoding="utf-8").split(str(tmp_path / "0.bin"))[1]
        return int(status.split("Rss:")[1].split()[0])

    assert view.tobytes() == content
    assert resident_kib() == 4096
    mapping.let_go(view)
    assert resident_kib() == 0
    assert view.tobytes() == content


def test_arrays_in_memory_are_left_alone() -> None:
    array = np.arange(5000)
    mapping.let_go(array[10:])
    assert array.sum() == 12_497_500
