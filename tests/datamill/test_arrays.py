import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamill import arrays

MIXED = np.array([(1, -2, True), (3, 4, False)], [("a", np.uint64), ("b", np.int32), ("c", np.bool_)])


@pytest.mark.parametrize(
    "array", [MIXED, MIXED[::-1], np.arange(6.0).reshape(2, 3).T, np.empty(0, np.int8), np.frombuffer(b"ab", np.uint8)]
)
def test_what_is_written_is_what_numpy_writes(tmp_path: Path, array: Any) -> None:
    with (tmp_path / "ours").open("wb") as file:
        arrays.append(file, array)
        arrays.append(file, array)
    assert (tmp_path / "ours").read_bytes() == 2 * array.tobytes()
    with (tmp_path / "ours.npy").open("wb") as file:
        arrays.save(file, array)
    np.testing.assert_array_equal(np.load(tmp_path / "ours.npy"), array)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("write", [arrays.append, arrays.save])
@pytest.mark.parametrize("count", [1, 100, 100_000])
def test_a_full_disk_is_told_however_little_was_to_be_written(write: Callable[..., None], count: int) -> None:
    with pytest.raises(OSError, match="No space left") as caught, Path("/dev/full").open("wb") as file:
        write(file, np.arange(count))
    assert caught.value.errno == errno.ENOSPC


def test_nothing_else_in_the_project_writes_arrays(repository: Path) -> None:
    others = [
        path.name
        for folder in ("datamill", "tasks", "flows")
        for path in (repository / folder).rglob("*.py")
        if path.name != "arrays.py" and ".tofile(" in path.read_text(encoding="utf-8")
    ]
    assert others == []
