import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamill import files
from datamill.errors import DataError
from datamill.samples import Dataset
from datamill.shards import native
from datamill.shards.native import ShardWriter, open_shard

DATASET = Dataset(name="bars", modality="image", classes=("0", "1", "2"))
README = Path(native.__file__).with_name("README.md")


def rows(count: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.integers(0, 256, (count, 4, 3, 1), dtype=np.uint8),
        "label": rng.integers(0, 3, count).astype(np.int32),
        "weight": rng.random(count).astype(np.float32),
        "draw": rng.random(count).astype(np.float32),
        "sample_id": rng.integers(0, 256, (count, 16), dtype=np.uint8),
    }


def write(folder: Path, *batches: dict[str, np.ndarray]) -> Path:
    with ShardWriter(folder, split="train", dataset=DATASET, shape=(4, 3, 1), dtype="uint8") as writer:
        for batch in batches:
            writer.write(batch)
    return folder


def edit_index(folder: Path, **changes: object) -> None:
    content = json.loads((folder / "index.json").read_text())
    files.write_json(folder / "index.json", content | changes)


def test_a_shard_gives_back_what_was_written(tmp_path: Path) -> None:
    written = rows(5)
    shard = open_shard(write(tmp_path / "train", written), verify=True)
    assert (shard.num_rows, shard.shape, shard.classes, shard.split) == (5, (4, 3, 1), ("0", "1", "2"), "train")
    for name, array in written.items():
        np.testing.assert_array_equal(getattr(shard, name), array)


def test_ids_are_hexadecimal(tmp_path: Path) -> None:
    batch = rows(2)
    batch["sample_id"][1] = np.arange(16)
    shard = open_shard(write(tmp_path / "train", batch))
    assert shard.ids([1]) == ["000102030405060708090a0b0c0d0e0f"]
    assert len(shard.ids()) == 2


def test_an_empty_split_is_a_shard(tmp_path: Path) -> None:
    shard = open_shard(write(tmp_path / "train"), verify=True)
    assert (shard.num_rows, shard.x.shape, shard.ids()) == (0, (0, 4, 3, 1), [])


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 9), max_size=4), block=st.integers(1, 40))
def test_bytes_do_not_depend_on_how_rows_were_batched(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], block: int
) -> None:
    folder, all_rows = tmp_path_factory.mktemp("shards"), rows(9)
    edges = [0, *sorted(cuts), 9]
    pieces = [{k: v[a:b] for k, v in all_rows.items()} for a, b in pairwise(edges)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "BLOCK_BYTES", block)
        write(folder / "whole", all_rows)
        write(folder / "pieces", *pieces)
    for name in ("x.bin", "label.bin", "sample_id.bin", "index.json"):
        assert (folder / "whole" / name).read_bytes() == (folder / "pieces" / name).read_bytes()


def test_an_error_while_writing_leaves_no_index(tmp_path: Path) -> None:
    bad = rows(2) | {"label": np.array([0, 3], np.int32)}
    with pytest.raises(DataError, match="labels 0 to 3 for 3 classes"):
        write(tmp_path / "train", rows(2), bad)
    with pytest.raises(DataError, match=r"index\.json is missing: the shard was not finished; run shard again"):
        open_shard(tmp_path / "train")


def test_a_truncated_file_is_named_with_both_sizes(tmp_path: Path) -> None:
    folder = write(tmp_path / "train", rows(5))
    (folder / "x.bin").write_bytes((folder / "x.bin").read_bytes()[:-1])
    with pytest.raises(DataError, match=r"x\.bin has 59 bytes, the index says 60 for shape \(5, 4, 3, 1\) of \|u1"):
        open_shard(folder)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "train", rows(5))
    (folder / "weight.bin").unlink()
    with pytest.raises(DataError, match=r"weight\.bin is missing; run shard again"):
        open_shard(folder)


def test_one_altered_byte_is_found_by_verify_alone_and_located(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "BLOCK_BYTES", 16)
    with ShardWriter(tmp_path / "train", split="train", dataset=DATASET, shape=(4, 3, 1), dtype="uint8") as writer:
        writer.write(rows(5))
    edit_index(tmp_path / "train", block_bytes=16)
    damaged = bytearray((tmp_path / "train" / "x.bin").read_bytes())
    damaged[20] ^= 1
    (tmp_path / "train" / "x.bin").write_bytes(damaged)
    assert open_shard(tmp_path / "train").num_rows == 5
    with pytest.raises(DataError, match=r"x\.bin was altered: the block from byte 16 to 32 has CRC-32"):
        open_shard(tmp_path / "train", verify=True)


def test_another_version_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "train", rows(1))
    edit_index(folder, version=2)
    with pytest.raises(DataError, match=r"has version 2, this datamill reads 1; run shard again"):
        open_shard(folder)


def test_an_index_that_does_not_fit_the_layout_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "train", rows(2))
    edit_index(folder, num_rows=3)
    with pytest.raises(DataError, match="do not make 3 samples"):
        open_shard(folder)
    (folder / "index.json").write_text("{")
    with pytest.raises(DataError, match=r"index\.json is damaged"):
        open_shard(folder)


def test_the_readme_reads_a_shard_with_numpy_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = rows(3)
    write(tmp_path / "data/shard/shards/train", batch)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102 - the README's own example
    assert names["first"] == (str(batch["label"][0]), batch["x"][0].mean())
