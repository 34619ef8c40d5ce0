import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamill.errors import DataError
from datamill.samples import Dataset
from datamill.shards import native
from datamill.shards.entries import Field
from datamill.shards.fields import ArrayField, BytesField, RaggedField
from datamill.shards.native import Shard, memory_shard, open_shard
from datamill.shards.writing import ShardWriter

DATASET = Dataset(name="bars", modality="image", classes=("0", "1", "2"))
README = Path(native.__file__).with_name("README.md")
FIELDS = {
    "x": Field.array("uint8", (4, 3, 1)),
    "label": Field.array("int32"),
    "sample_id": Field.array("uint8", (16,)),
    "image": Field.bytes(),
    "tokens": Field.ragged("int32"),
    "audio": Field.ragged("int16", (2,)),
}
WORDS = [b"one", b"", b"three", b"4", b"fifth"]
TOKENS = [[1, 2, 3], [], [4], [5, 6], [7]]


def rows(count: int = 5) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.integers(0, 256, (count, 4, 3, 1), dtype=np.uint8),
        "label": (np.arange(count) % 3).astype(np.int32),
        "sample_id": np.arange(16 * count, dtype=np.uint8).reshape(count, 16),
        "image": WORDS[:count],
        "tokens": [np.array(row, np.int32) for row in TOKENS[:count]],
        "audio": [np.full((len(row), 2), len(row), np.int16) for row in TOKENS[:count]],
    }


def write(folder: Path, *batches: dict[str, Any]) -> Path:
    """A shard in which every batch is a segment of the heavy fields."""
    with ShardWriter(folder, split="train", dataset=DATASET, fields=FIELDS, meta={"made": 1}) as writer:
        for number, batch in enumerate(batches):
            for name in ("x", "image", "tokens", "audio"):
                writer.next_segment(name, key=f"{number:x}")
            writer.write(batch)
    return folder


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return open_shard(write(tmp_path / "train", rows()), verify=True)


@pytest.fixture
def divided(tmp_path: Path) -> Shard:
    whole = rows()
    parts = [{name: some[a:b] for name, some in whole.items()} for a, b in ((0, 2), (2, 3), (3, 5))]
    return open_shard(write(tmp_path / "divided", *parts))


def array(shard: Shard, name: str) -> ArrayField:
    field = shard.fields[name]
    assert isinstance(field, ArrayField)
    return field


def ragged(shard: Shard, name: str) -> RaggedField:
    field = shard.fields[name]
    assert isinstance(field, RaggedField)
    return field


def test_a_shard_gives_back_what_was_written(shard: Shard) -> None:
    assert (shard.num_rows, shard.shape, shard.classes, shard.split) == (5, (4, 3, 1), ("0", "1", "2"), "train")
    assert shard.meta == {"made": 1}
    for name in ("x", "label", "sample_id"):
        np.testing.assert_array_equal(getattr(shard, name), rows()[name])


def test_byte_strings_come_back_without_a_copy(shard: Shard) -> None:
    image = ragged(shard, "image")
    assert isinstance(image, BytesField)
    assert [bytes(image.view(row)) for row in range(5)] == WORDS
    assert [bytes(one) for one in image.views(np.array([4, 0, 2, 2]))] == [WORDS[row] for row in (4, 0, 2, 2)]
    assert image.offsets.tolist() == [0, 3, 3, 8, 9, 14]
    assert image.view(2).readonly
    assert image.view(2).obj is not None


def test_ragged_rows_come_back_without_a_copy(shard: Shard) -> None:
    tokens, audio = ragged(shard, "tokens"), ragged(shard, "audio")
    assert [tokens.view(row).tolist() for row in range(5)] == TOKENS
    assert tokens.lengths.tolist() == [3, 0, 1, 2, 1]
    assert np.shares_memory(tokens.view(0), tokens.data)
    assert audio.view(3).tolist() == [[2, 2], [2, 2]]


def test_segments_read_as_one_field(divided: Shard) -> None:
    whole = rows()
    np.testing.assert_array_equal(divided.x[[4, 0, 2]], np.asarray(whole["x"])[[4, 0, 2]])
    image, tokens = ragged(divided, "image"), ragged(divided, "tokens")
    assert [bytes(image.view(row)) for row in range(5)] == WORDS
    assert [bytes(one) for one in image.views(np.array([4, 0, 2, 2]))] == [WORDS[row] for row in (4, 0, 2, 2)]
    assert image.offsets.tolist() == [0, 3, 3, 8, 9, 14]
    assert [tokens.view(row).tolist() for row in range(5)] == TOKENS
    starts = tokens.starts(np.arange(5))
    assert [tokens.data[s : s + n].tolist() for s, n in zip(starts, tokens.lengths, strict=True)] == TOKENS


def test_one_gather_reads_from_all_segments(divided: Shard) -> None:
    x = array(divided, "x")
    wanted = np.array([4, 2, 0, 3])
    gathered = x.tensor.index_select(0, torch.from_numpy(x.slot_of(wanted)))
    np.testing.assert_array_equal(gathered.numpy(), np.asarray(rows()["x"])[wanted])
    assert not x.is_dense


def test_rows_behave_as_an_array(shard: Shard, divided: Shard) -> None:
    written = np.asarray(rows()["x"])
    for x in (shard.x, divided.x):
        assert (len(x), x.shape, str(x.dtype)) == (5, (5, 4, 3, 1), "uint8")
        for key in (3, -1, slice(1, 4), slice(None, None, -2), [0, -2], np.array([], int), np.arange(5) > 2):
            np.testing.assert_array_equal(x[key], written[key])
        np.testing.assert_array_equal(x[1, 2], written[1, 2])
        np.testing.assert_array_equal(x[1:3, 0, 1], written[1:3, 0, 1])
        assert (x.mean(), x.sum()) == (written.mean(), written.sum())
        for wrong in (5, -6, [0, 5], [True, False], [0.5], None):
            with pytest.raises(IndexError):
                x[wrong]  # type: ignore[index]


def test_nothing_can_be_written_through_a_view(shard: Shard) -> None:
    with pytest.raises(ValueError, match="read-only"):
        array(shard, "x").numpy[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        ragged(shard, "tokens").view(0)[0] = 1


def test_ids_are_hexadecimal(shard: Shard) -> None:
    assert shard.ids([0]) == ["000102030405060708090a0b0c0d0e0f"]
    assert len(shard.ids()) == 5


def test_an_empty_split_is_a_shard(tmp_path: Path) -> None:
    shard = open_shard(write(tmp_path / "train"), verify=True)
    assert (shard.num_rows, shard.x.shape, shard.ids()) == (0, (0, 4, 3, 1), [])
    assert ragged(shard, "image").offsets.tolist() == [0]
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["index.json"]
    shard.touch("x")
    shard.touch("tokens", [])


def test_rows_that_are_all_empty_are_rows(tmp_path: Path) -> None:
    fields = {"image": Field.bytes()}
    with ShardWriter(tmp_path / "train", split="train", fields=fields) as writer:
        writer.write({"image": [b"", b""]})
    shard = open_shard(tmp_path / "train", verify=True)
    assert (shard.num_rows, bytes(ragged(shard, "image").view(1))) == (2, b"")


def test_a_row_outside_is_an_index_error(shard: Shard, divided: Shard) -> None:
    with pytest.raises(IndexError, match="row 5 of 5"):
        ragged(shard, "image").view(5)
    with pytest.raises(IndexError, match="rows 0 to 5 of 5"):
        divided.touch("x", [0, 5])


def test_equal_data_have_equal_fingerprints_and_others_do_not(tmp_path: Path) -> None:
    first, second = (open_shard(write(tmp_path / name, rows())) for name in "ab")
    changed = rows()
    changed["label"] = np.asarray(changed["label"])[::-1].copy()
    third = open_shard(write(tmp_path / "c", changed))
    assert first.fingerprint == second.fingerprint
    assert len({first.fingerprint, third.fingerprint}) == 2


def test_arrays_in_memory_make_a_shard() -> None:
    shard = memory_shard({"x": np.ones((2, 3), np.float32), "label": np.array([0, 1])}, split="test", dataset=DATASET)
    assert (shard.num_rows, shard.shape, shard.label.tolist()) == (2, (3,), [0, 1])
    shard.touch("x", [1])
    shard.check_unchanged()


def test_a_shard_without_the_wanted_array_says_what_it_has(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "train", split="train", fields={"tokens": Field.ragged("int32")}) as writer:
        writer.write({"tokens": [np.array([1])]})
    shard = open_shard(tmp_path / "train")
    with pytest.raises(DataError, match=r"train has no array 'x' but \['tokens'\]"):
        _ = shard.x
    with pytest.raises(DataError, match="train describes no data set"):
        _ = shard.classes


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, datamill.shards; print(sorted({'numpy', 'torch', 'pyarrow'} & sys.modules.keys()))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_reading_loads_neither_pandas_nor_the_pipelines_tools() -> None:
    code = (
        "import sys; from datamill.shards import open_shard, ShardWriter; "
        "print(sorted({'torch', 'pandas', 'sklearn', 'cv2', 'mlflow', 'prefect', 'dvc'} & sys.modules.keys()))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_the_readme_reads_a_shard_with_numpy_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data/shard/shards/train", rows(3), rows(2))
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert "datamill" not in code
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102 - the README's own example
    read = names["read"]
    assert callable(read)
    np.testing.assert_array_equal(read("x"), np.concatenate([rows(3)["x"], rows(2)["x"]]))  # type: ignore[arg-type]
    assert [row.tobytes() for row in read("image")] == [b"one", b"", b"three", b"one", b""]
    assert [row.tolist() for row in read("tokens")] == [*TOKENS[:3], *TOKENS[:2]]


def test_arrays_in_memory_have_equally_many_rows() -> None:
    with pytest.raises(DataError, match=r"fields differ in their number of rows: {'x': 2, 'label': 3}; give equally"):
        memory_shard({"x": np.zeros((2, 1)), "label": np.zeros(3, np.int32)}, split="train")
