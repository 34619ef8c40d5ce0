"""Whatever happens to a shard's files: one clear error, and never another row than the one that was written."""

import contextlib
import json
import os
import shutil
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamill import files
from datamill.errors import DataError
from datamill.samples import Dataset
from datamill.shards import writing
from datamill.shards.entries import Field, File
from datamill.shards.index import Index, read_index
from datamill.shards.integrity import Guard, Guarded, opened, probe_ranges, stamp
from datamill.shards.loader import ShardLoader
from datamill.shards.native import Shard, open_shard
from datamill.shards.writing import ShardWriter

DATASET = Dataset(name="bars", modality="image", classes=("0", "1", "2"))
FIELDS = {
    "x": Field.array("uint8", (32, 32)),
    "label": Field.array("int32"),
    "image": Field.bytes(),
    "tokens": Field.ragged("int32"),
}
NUM_ROWS = 60
UNPROBED = 5100  # a byte of x-a1.bin that opening does not read


def rows(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.integers(0, 256, (NUM_ROWS, 32, 32), dtype=np.uint8),
        "label": rng.integers(0, 3, NUM_ROWS).astype(np.int32),
        "image": [rng.bytes(rng.integers(0, 2000)) for _ in range(NUM_ROWS)],
        "tokens": [rng.integers(0, 999, rng.integers(0, 9)).astype(np.int32) for _ in range(NUM_ROWS)],
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shard of small blocks, some of which no probe reads."""
    monkeypatch.setattr(writing, "BLOCK_BYTES", 1000)
    return write(tmp_path / "train")


def write(folder: Path, *, seed: int = 0) -> Path:
    batch = rows(seed)
    with ShardWriter(folder, split="train", dataset=DATASET, fields=FIELDS) as writer:
        for number, (start, stop) in enumerate(((0, 25), (25, NUM_ROWS))):
            writer.next_segment("x", key=f"a{number}")
            writer.next_segment("image", key=f"b{number}")
            writer.write({name: some[start:stop] for name, some in batch.items()})
    return folder


def read(folder: Path) -> dict[str, list[bytes]]:
    """All rows of all fields in some order, each touched before it is read."""
    shard = open_shard(folder)
    found: dict[str, list[bytes]] = {name: [b""] * shard.num_rows for name in FIELDS}
    for row in np.random.default_rng(1).permutation(shard.num_rows).tolist():
        for name in FIELDS:
            shard.touch(name, [row])
            found[name][row] = _view(shard, name, row=row)
    assert np.asarray(shard.x).tobytes() == b"".join(found["x"])
    return found


def _view(shard: Shard, name: str, *, row: int) -> bytes:
    field: Any = shard.fields[name]
    if FIELDS[name].kind == "array":
        return bytes(field.numpy[field.slot_of(np.array([row]))[0]].tobytes())
    return bytes(field.view(row))


def written(seed: int = 0) -> dict[str, list[bytes]]:
    return {
        name: [row if isinstance(row, bytes) else row.tobytes() for row in some] for name, some in rows(seed).items()
    }


def edit(folder: Path, change: Callable[[Any], None]) -> None:
    """Change the index and give it the fingerprint of its new content."""
    content = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    change(content)
    with contextlib.suppress(ValueError):  # it may be no index any more: then its fingerprint cannot matter
        content = Index.read(content).sealed().plain() | {"version": content["version"]}
    files.write_json(folder / "index.json", content)


def flip(path: Path, *, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_an_intact_shard_reads_as_it_was_written(folder: Path) -> None:
    assert read(folder) == written()


def test_any_flipped_bit_is_found_before_a_wrong_row_is_used(folder: Path) -> None:
    """300 bits, spread over the files so that large ones do not take them all."""
    rng, paths = np.random.default_rng(7), sorted(folder.iterdir())
    messages = set()
    for number in range(300):
        path = paths[number % len(paths)]
        intact = path.read_bytes()
        flip(path, bit=int(rng.integers(8 * len(intact))))
        with pytest.raises(DataError, match=rf"{path.name}.*(altered|damaged|has version)") as caught:
            read(folder)
        messages.add(str(caught.value).partition(path.name)[2][:20])
        path.write_bytes(intact)
    assert len(messages) > 2  # probes and blocks and the index's own
    assert read(folder) == written()


def use(folder: Path, *, seed: int) -> None:
    """Load an epoch, and read what the loader would decode."""
    for _ in ShardLoader(folder, batch_size=7, fields=["x", "label", "tokens"], seed=seed):
        pass
    read(folder)


def test_any_cut_or_swap_is_found_before_a_wrong_batch_is_used(folder: Path, tmp_path: Path) -> None:
    """Ends cut off, blocks exchanged, lost or doubled, and files exchanged with another run's, 300 in all."""
    rng, paths = np.random.default_rng(8), sorted(folder.glob("*.bin"))
    other = write(tmp_path / "other", seed=1)

    def damaged(content: bytes, *, path: Path) -> bytes:
        kind = ("cut", "exchanged", "lost", "doubled", "another")[int(rng.integers(5))]
        blocks = [content[at : at + 1000] for at in range(0, len(content), 1000)]
        one, two = (int(place) for place in rng.integers(len(blocks), size=2))
        if kind == "cut":
            return content[: int(rng.integers(len(content)))]
        if kind == "another":
            return (other / path.name).read_bytes()
        if kind == "exchanged":
            blocks[one], blocks[two] = blocks[two], blocks[one]
        else:
            blocks[one] = bytes(len(blocks[one])) if kind == "lost" else blocks[two]
        return b"".join(blocks)

    num_found = 0
    while num_found < 300:
        path = paths[num_found % len(paths)]
        intact = path.read_bytes()
        wrong = damaged(intact, path=path)
        if wrong == intact:
            paths = paths[1:] + paths[:1]
            continue
        path.write_bytes(wrong)
        with pytest.raises(DataError, match=rf"{path.name}.*(altered|damaged|index says)"):
            use(folder, seed=num_found)
        path.write_bytes(intact)
        num_found += 1
    assert read(folder) == written()


def test_a_flipped_bit_that_no_probe_reads_is_located_by_touch_and_by_verify(folder: Path) -> None:
    flip(folder / "x-a1.bin", bit=8 * UNPROBED)
    assert not any(start <= UNPROBED < start + length for start, length in probe_ranges(35 * 1024))
    shard = open_shard(folder)
    shard.touch("x", range(29))  # type: ignore[arg-type]
    message = r"x-a1\.bin was altered: the block from byte 5000 to 6000 has CRC-32 [0-9a-f]{8}, the index says"
    with pytest.raises(DataError, match=message):
        shard.touch("x", [30])
    with pytest.raises(DataError, match=message):
        shard.x[29:]
    with pytest.raises(DataError, match=message):
        open_shard(folder, verify=True)


@pytest.mark.parametrize("length", [0, 1, 7, 4096, -1])
def test_a_file_that_was_cut_or_grew_is_named_with_both_sizes(folder: Path, length: int) -> None:
    for path in sorted(folder.glob("*.bin")):
        intact = path.read_bytes()
        path.write_bytes(intact[:length] if 0 <= length < len(intact) else intact + b"x")
        wrong = path.stat().st_size
        with pytest.raises(DataError, match=rf"{path.name} has {wrong} bytes, the index says {len(intact)}; the file"):
            open_shard(folder)
        path.write_bytes(intact)


@pytest.mark.parametrize("cut", [0, 1, 100, -2, -1])
def test_an_index_that_was_cut_is_damaged(folder: Path, cut: int) -> None:
    path = folder / "index.json"
    path.write_bytes(path.read_bytes().rstrip()[:cut])
    with pytest.raises(DataError, match=r"index\.json is damaged: .*; run shard again"):
        open_shard(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    for path in sorted(folder.glob("*.bin")):
        path.rename(folder / "elsewhere")
        with pytest.raises(DataError, match=rf"{path.name} is missing; run shard again"):
            open_shard(folder)
        (folder / "elsewhere").rename(path)
    (folder / "index.json").unlink()
    with pytest.raises(
        DataError, match=r"index\.json is missing: the shard was not finished, or is elsewhere; run shard again"
    ):
        open_shard(folder)


def test_a_file_of_another_run_is_refused(folder: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", seed=1)
    for name in ("x-a0.bin", "label-000000.bin"):  # equally large in both
        intact = (folder / name).read_bytes()
        shutil.copyfile(other / name, folder / name)
        with pytest.raises(DataError, match=rf"{name} was altered or replaced: a probe of it has CRC-32"):
            open_shard(folder)
        (folder / name).write_bytes(intact)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda o: o[[0, 2, 1, *range(3, len(o))]], "must rise"),
        (lambda o: np.concatenate([o[:-1], o[-1:] + np.uint64(10**6)]), "must rise"),
        (lambda o: o + np.uint64(1), "must rise"),
        (lambda o: np.concatenate([o[:3], [2**64 - 1], o[4:]]).astype("<u8"), "must rise"),
    ],
)
def test_offsets_that_fall_or_lead_outside_are_refused_even_with_right_checksums(
    folder: Path, values: Callable[[Any], Any], message: str
) -> None:
    path = folder / "image-b0.offsets.bin"
    offsets = np.fromfile(path, "<u8")
    assert offsets[1] < offsets[2]
    content = np.asarray(values(offsets), "<u8").tobytes()
    path.write_bytes(content)

    def reseal(index: Any) -> None:
        entry = index["segments"]["image"][0]["offsets"]
        entry["crc32"] = [zlib.crc32(content[at : at + 1000]) for at in range(0, len(content), 1000)]
        entry["probe"] = zlib.crc32(content)

    edit(folder, reseal)
    for use in (
        lambda shard: shard.touch("image", [0]),
        lambda shard: shard.fields["image"].view(0),
        lambda shard: shard.fields["image"].lengths,
        lambda shard: shard.verify(),
    ):
        with pytest.raises(DataError, match=rf"image-b0\.offsets\.bin is damaged: .*{message}"):
            use(open_shard(folder))


@pytest.mark.parametrize("version", [1, 3, "2", None, 2.5])
def test_another_version_is_refused(folder: Path, version: object) -> None:
    edit(folder, lambda index: index.update(version=version))
    with pytest.raises(DataError, match=rf"has version {version!r}, this datamill reads 2; run shard again"):
        open_shard(folder)


HOSTILE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a path upwards": (lambda i: _data(i).update(name="../x"), "has files"),
    "an absolute path": (lambda i: _data(i).update(name="/etc/passwd"), "has files"),
    "a key that is a path": (lambda i: i["segments"]["x"][0].update(key="../a"), "does not match"),
    "a field that is a path": (lambda i: i["fields"].update({"../x": i["fields"]["x"]}), "does not match"),
    "a field without segments": (lambda i: i["segments"].pop("x"), "but segments of"),
    "segments without a field": (lambda i: i["fields"].pop("x"), "but segments of"),
    "a negative dimension": (lambda i: i["fields"]["x"].update(shape=[-32, -32]), "where a whole number from 1"),
    "no dimension": (lambda i: i["fields"]["x"].update(shape=[0]), "where a whole number from 1"),
    "an absurd dimension": (lambda i: i["fields"]["x"].update(shape=[2**40, 2**40]), "has elements of"),
    "too many dimensions": (lambda i: i["fields"]["x"].update(shape=[1] * 64), "a list of at most 8 belongs"),
    "another shape": (lambda i: i["fields"]["x"].update(shape=[32, 33]), "has files"),
    "objects": (lambda i: i["fields"]["x"].update(dtype="|O8"), "is none of"),
    "the other byte order": (lambda i: i["fields"]["label"].update(dtype=">i4"), "is none of"),
    "a structured type": (lambda i: i["fields"]["x"].update(dtype="u1,O"), "is none of"),
    "another type": (lambda i: i["fields"]["label"].update(dtype="<i8"), "has files"),
    "byte strings of floats": (lambda i: i["fields"]["image"].update(dtype="<f4"), "of bytes has dtype <f4"),
    "an unknown kind": (lambda i: i["fields"]["x"].update(kind="pickle"), "is none of"),
    "another kind": (lambda i: i["fields"]["image"].update(kind="array"), "rows and"),
    "more rows": (lambda i: i.update(num_rows=61), "has 60 rows, the shard 61"),
    "negative rows": (lambda i: i["segments"]["x"][0].update(num_rows=-1), "where a whole number from 1"),
    "other rows": (lambda i: i["segments"]["x"][0].update(num_rows=24), "has 24 rows and 25 elements"),
    "other elements": (lambda i: i["segments"]["image"][0].update(num_elements=3), "has files"),
    "a lost segment": (lambda i: i["segments"]["x"].pop(), "field x has 25 rows, the shard 60"),
    "a doubled segment": (lambda i: i["segments"]["x"].append(i["segments"]["x"][0]), "share a key"),
    "lost offsets": (lambda i: i["segments"]["image"][0].update(offsets=None), "has files"),
    "a lost checksum": (lambda i: _data(i)["crc32"].pop(), "has 25 checksums for 25600 bytes"),
    "a checksum that is none": (lambda i: _data(i)["crc32"].__setitem__(0, -1), "no number of 32 bits"),
    "no blocks": (lambda i: i.update(block_bytes=0), "where a whole number from 1"),
    "an unknown word": (lambda i: i.update(loader="os.system"), "members .*loader"),
    "numbers in words": (lambda i: i.update(num_rows="60"), "where a whole number"),
    "a huge number": (lambda i: _data(i).update(size_bytes=10**400), "where a whole number"),
}


def _data(index: Any) -> Any:
    return index["segments"]["x"][0]["data"]


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_index_is_refused(folder: Path, case: str) -> None:
    change, message = HOSTILE[case]
    edit(folder, change)
    with pytest.raises(DataError, match=rf"index\.json is damaged: .*{message}.*; run shard again"):
        open_shard(folder)


@pytest.mark.parametrize("content", ["[]", "null", '"2"', '{"version": 2}', "[" * 100_000, "NaN"])
def test_json_that_is_no_index_is_refused(folder: Path, content: str) -> None:
    (folder / "index.json").write_text(content)
    with pytest.raises(DataError, match=r"index\.json is damaged"):
        open_shard(folder)


def test_an_edited_index_is_refused(folder: Path) -> None:
    path = folder / "index.json"
    path.write_text(path.read_text().replace('"bars"', '"cars"'))
    with pytest.raises(DataError, match=r"index\.json was altered: its content has fingerprint [0-9a-f]{32}, it says"):
        open_shard(folder)


def test_an_index_of_absurd_size_is_not_read(folder: Path) -> None:
    os.truncate(folder / "index.json", 2**30)
    with pytest.raises(DataError, match=r"index\.json has more than 268435456 bytes"):
        open_shard(folder)


def test_labels_that_no_class_has_are_refused(folder: Path) -> None:
    edit(folder, lambda index: index["dataset"].update(classes=["0", "1"]))
    with pytest.raises(DataError, match=r"labels 0 to 2 for 2 classes"):
        _ = open_shard(folder).label


def test_a_link_to_a_file_is_that_file(folder: Path, tmp_path: Path) -> None:
    expected = open_shard(folder).x[:].copy()
    path = folder / "x-a0.bin"
    path.rename(tmp_path / "cached")
    path.symlink_to(tmp_path / "cached")
    shard = open_shard(folder, verify=True)
    np.testing.assert_array_equal(shard.x[:], expected)
    os.utime(tmp_path / "cached", ns=(1, 1))
    with pytest.raises(DataError, match=r"x-a0\.bin changed while the shard was open"):
        shard.check_unchanged()


def test_a_link_to_another_file_is_refused(folder: Path, tmp_path: Path) -> None:
    path = folder / "x-a0.bin"
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    (tmp_path / "secret").write_bytes(content)
    path.unlink()
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match=r"x-a0\.bin was altered or replaced"):
        open_shard(folder)
    (tmp_path / "secret").unlink()
    with pytest.raises(DataError, match=r"x-a0\.bin is missing; run shard again"):
        open_shard(folder)


@pytest.mark.parametrize("is_linked", [False, True])
def test_pipes_are_refused(folder: Path, tmp_path: Path, is_linked: bool) -> None:
    path = folder / "x-a0.bin"
    path.unlink()
    os.mkfifo(tmp_path / "pipe" if is_linked else path)
    if is_linked:
        path.symlink_to(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"x-a0\.bin is no file, nor a link to one"):
        open_shard(folder)


def test_a_change_while_the_shard_is_open_is_told(folder: Path) -> None:
    def cut(path: Path) -> None:
        os.truncate(path, 100)

    def replace(path: Path) -> None:
        shutil.copyfile(path, path.with_suffix(".new"))
        path.with_suffix(".new").rename(path)

    def alter(path: Path) -> None:
        os.utime(path, ns=(0, 0))

    for damage in (cut, replace, alter, Path.unlink):
        shutil.rmtree(folder)
        shard = open_shard(write(folder))
        shard.check_unchanged()
        damage(folder / "x-a1.bin")  # type: ignore[operator]
        for use in (shard.check_unchanged, lambda: shard.touch("x", [59]), lambda: shard.x[50:]):  # noqa: B023
            with pytest.raises(DataError, match=r"x-a1\.bin (changed|disappeared) while the shard was open"):
                use()


def test_a_shard_that_was_replaced_keeps_its_own_verified_rows(folder: Path, tmp_path: Path) -> None:
    shard = open_shard(folder, verify=True)
    shutil.rmtree(folder)
    write(folder, seed=1)
    np.testing.assert_array_equal(shard.x[:], rows()["x"])
    with pytest.raises(DataError, match="while the shard was open"):
        shard.check_unchanged()


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs /proc")
def test_opening_reads_a_twentieth_of_the_shard_at_most(tmp_path: Path) -> None:
    size = 8 * 2**20
    with ShardWriter(tmp_path / "train", split="train", fields={"x": Field.array("uint8", (1024,))}) as writer:
        writer.write({"x": np.zeros((size // 1024, 1024), np.uint8)})

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text(encoding="utf-8").split()[1])

    before = bytes_read()
    open_shard(tmp_path / "train")
    assert 0 < bytes_read() - before < size / 20


def test_every_block_is_verified_once_whatever_the_number_of_threads(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, verified = open_shard(folder), []
    plain = zlib.crc32

    def counting(data: Any, *start: int) -> int:
        verified.append(len(data))
        return plain(data, *start)

    monkeypatch.setattr("datamill.shards.integrity.zlib.crc32", counting)
    errors: list[BaseException] = []

    def read_all(seed: int) -> None:
        try:
            for row in np.random.default_rng(seed).permutation(NUM_ROWS):
                shard.touch("x", np.array([row]))
        except BaseException as error:  # noqa: BLE001 - told below, in the thread that asserts
            errors.append(error)

    threads = [threading.Thread(target=read_all, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (errors, sum(verified)) == ([], NUM_ROWS * 1024)


def test_a_thread_that_waited_for_a_damaged_block_is_told_as_well(folder: Path) -> None:
    flip(folder / "x-a1.bin", bit=8 * UNPROBED)
    shard, told = open_shard(folder), []

    def touch() -> None:
        try:
            shard.touch("x")
        except DataError as error:
            told.append(str(error))

    threads = [threading.Thread(target=touch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 4


def test_a_row_over_many_blocks_is_verified_whole(tmp_path: Path) -> None:
    content = np.arange(100, dtype=np.uint8)
    path = tmp_path / "x-0.bin"
    content.tofile(path)
    crc = tuple(zlib.crc32(content[at : at + 10].tobytes()) for at in range(0, 100, 10))
    index = File(name=path.name, size_bytes=100, crc32=(*crc[:7], 0, *crc[8:]), probe=zlib.crc32(content.data))
    with opened(path, entry=index):
        guard = Guard([Guarded(path, index, stamp(path.stat()), content)], block_bytes=10)
    zero = np.zeros(2, np.int64)
    guard.touch(zero, starts=np.array([5, 80]), stops=np.array([70, 80]))
    with pytest.raises(DataError, match="the block from byte 70 to 80"):
        guard.touch(zero[:1], starts=np.array([5]), stops=np.array([71]))


def test_the_index_read_alone_is_checked_as_well(folder: Path) -> None:
    assert read_index(folder).num_rows == NUM_ROWS
    edit(folder, HOSTILE["more rows"][0])
    with pytest.raises(DataError, match="the shard 61"):
        read_index(folder)
