"""WebDataset tar files, ours and hostile ones."""

import gc
import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from datamill.errors import DataError
from datamill.shards.exchange import npy
from datamill.shards.exchange.records import Record
from tests.datamill.shards.exchange.made import IDS, IMAGES, ROWS, export, faults, read

PNG = IMAGES[0]
OURS = "4b334b3e169f25b645e8a686e1772cb87c1678d9dd9b6781d633e3ff6e062a86"  # as the first version wrote them
Entry = tuple[str, bytes] | tarfile.TarInfo


def tar(entries: Sequence[Entry], *, form: int = tarfile.USTAR_FORMAT) -> io.BytesIO:
    """A tar file of these members; one without content has none."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as out:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                out.addfile(entry)
                continue
            member = tarfile.TarInfo(entry[0])
            member.size = len(entry[1])
            out.addfile(member, io.BytesIO(entry[1]))
    return io.BytesIO(stream.getvalue())


def special(name: str, kind: bytes, *, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def keys(entries: Sequence[object]) -> list[str]:
    return [entry.place for entry in entries if isinstance(entry, Record)]


def test_files_hold_at_most_max_samples(tmp_path: Path) -> None:
    names = [path.name for path in sorted(export(tmp_path, "webdataset", ROWS, max_samples=2).glob("*.tar"))]
    assert names == ["train-000000.tar", "train-000001.tar", "train-000002.tar"]
    with tarfile.open(tmp_path / names[2]) as last:
        assert last.getnames() == [f"{IDS[4]}.npy", f"{IDS[4]}.cls"]


def test_bytes_depend_on_the_samples_alone_and_stay_what_they_were(tmp_path: Path) -> None:
    export(tmp_path, "webdataset", ROWS)
    assert hashlib.sha256((tmp_path / "train-000000.tar").read_bytes()).hexdigest() == OURS
    with tarfile.open(tmp_path / "train-000000.tar") as members:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}


def test_foreign_files_may_have_folders_long_names_other_members_and_names_for_classes() -> None:
    long = "x" * 150
    entries: list[Entry] = [
        special("./train", tarfile.DIRTYPE),
        ("./train/a.seg.png", b"?"),
        ("./train/a.JPG", PNG),
        ("./train/a.cls", b" 2\n"),
        ("./train/a.json", b"{}"),
        ("._hidden.png", b"?"),
        (f"{long}/b.jpeg", PNG),
        (f"{long}/b.cls", "Bärenspinner".encode()),
    ]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        some = read(tar(entries, form=form), "webdataset")
        assert some == [Record("f#train/a", PNG, 2, None), Record(f"f#{long}/b", PNG, "Bärenspinner", None)]


def test_other_endings_can_be_chosen() -> None:
    some = read(
        tar([("a.seg.png", PNG), ("a.png", b"?"), ("a.y", b"1"), ("a.cls", b"7")]),
        "webdataset",
        image="seg.png",
        label="y",
    )
    assert some == [Record("f#a", PNG, 1, None)]


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([("/etc/a.png", PNG), ("/etc/a.cls", b"0")], "unsafe_name"),
        ([("../a.png", PNG), ("../a.cls", b"0")], "unsafe_name"),
        ([("x/../../a.png", PNG), ("x/../../a.cls", b"0")], "unsafe_name"),
        ([("c:\\a.png", PNG), ("c:\\a.cls", b"0")], "unsafe_name"),
        ([special("a.png", tarfile.SYMTYPE, target="/etc/passwd"), ("a.cls", b"0")], "not_a_file"),
        ([special("a.png", tarfile.LNKTYPE, target="b.png"), ("a.cls", b"0")], "not_a_file"),
        ([special("a.png", tarfile.CHRTYPE), ("a.cls", b"0")], "not_a_file"),
        ([special("a.png", tarfile.FIFOTYPE), ("a.cls", b"0")], "not_a_file"),
        ([special("a.png", b"!"), ("a.cls", b"0")], "not_a_file"),
        ([("a.png", PNG), ("a.jpg", PNG), ("a.cls", b"0")], "two_images"),
        ([("a.cls", b"0")], "no_image"),
        ([("a.txt", b"once upon a time")], "no_image"),
        ([("a.png", PNG)], "no_label"),
        ([("a.png", PNG), ("a.cls", b"0"), ("a.cls", b"1")], "no_label"),
        ([("a.png", PNG), ("a.cls", b"")], "no_label"),
        ([("a.png", PNG), ("a.cls", b"\xff")], "no_label"),
        ([("a.png", PNG), ("a.cls", b"0" * 2000)], "no_label"),
        ([("a.png", PNG), ("a.cls", b"cat\0")], "no_label"),
        ([("a.png", PNG), ("a.cls", b"cat\ndog")], "no_label"),
        ([("a.png", bytes(1001)), ("a.cls", b"0")], "too_large"),
        ([("a.npy", npy.encode(ROWS[0])[:-1]), ("a.cls", b"0")], "unreadable"),
        ([("a.npy", npy.encode(ROWS[0]).replace(b"(3,)", b"(9,)")), ("a.cls", b"0")], "unreadable"),
        (
            [
                ("a.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"),
                ("a.cls", b"0"),
            ],
            "unreadable",
        ),
    ],
)
def test_a_bad_sample_is_one_fault_and_the_next_one_is_read(entries: list[Entry], reason: str) -> None:
    some = read(tar([*entries, ("good.png", PNG), ("good.cls", b"1")]), "webdataset", max_bytes=1000)
    assert [found for _, found in faults(some)] == [reason]
    assert keys(some) == ["f#good"]


def test_a_key_that_comes_again_is_a_fault() -> None:
    some = read(
        tar([(f"{key}.{end}", PNG if end == "png" else b"0") for key in "aba" for end in ("png", "cls")]), "webdataset"
    )
    assert keys(some) == ["f#a", "f#b"]
    assert faults(some) == [("f#a", "duplicate_key")]


def test_a_name_that_is_not_printable_is_spelt_out() -> None:
    (some,) = read(tar([("a\nb.png", PNG), ("a\nb.cls", b"0")]), "webdataset")
    assert some.place == "f#a\\nb"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the library leaves files open
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_webdataset_library_reads_it(tmp_path: Path) -> None:
    import webdataset

    for kind, payloads in {"npy": ROWS, "png": IMAGES}.items():
        tars = sorted(export(tmp_path / kind, "webdataset", payloads, max_samples=2).glob("*.tar"))
        some = list(webdataset.WebDataset([str(path) for path in tars], shardshuffle=False).decode())
        assert [sample["__key__"] for sample in some] == IDS
        assert [sample["cls"] for sample in some] == [0, 1, 2, 1, 0]
    plain = list(webdataset.WebDataset([str(path) for path in tars], shardshuffle=False))
    assert [sample["png"] for sample in plain] == IMAGES
    gc.collect()  # so that the files it left open are closed here, where that may be


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_the_webdataset_library_writes_is_read(tmp_path: Path) -> None:
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "x.tar")) as out:
        for number, payload in enumerate(IMAGES):
            out.write({"__key__": f"sample{number:06d}", "png": payload, "cls": number % 3, "json": {"note": 1}})
    with (tmp_path / "x.tar").open("rb") as stream:
        some = read(stream, "webdataset")
    assert [(entry.payload, entry.label) for entry in some if isinstance(entry, Record)] == [
        (payload, number % 3) for number, payload in enumerate(IMAGES)
    ]
    gc.collect()


def test_a_file_that_is_no_tar_is_refused() -> None:
    with pytest.raises(DataError, match="f is truncated"):
        read(io.BytesIO(PNG), "webdataset")
    with pytest.raises(DataError, match="the header at byte 0 "):
        read(io.BytesIO(b"once upon a time" * 64), "webdataset")


def test_rows_of_other_layouts_keep_their_numbers() -> None:
    row = np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3))
    np.testing.assert_array_equal(npy.decode(npy.encode(row)), row)
