"""MDS, ours, MosaicML's and damaged ones."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamill.errors import DataError
from datamill.shards.exchange import mds
from datamill.shards.exchange.records import Record
from tests.datamill.shards.exchange.made import IDS, IMAGES, LABELS, ROWS, entries, export, faults, opened, read

PNG = IMAGES[0]
LABEL = struct.pack("<q", 1)


def file(*samples: bytes, columns: dict[str, tuple[str, int | None]] | None = None, **changes: Any) -> bytes:
    """A file of these samples; columns are encodings and fixed sizes by name."""
    columns = columns or {"image": ("bytes", None), "label": ("int", 8)}
    config = {"version": 2, "format": "mds", "column_names": list(columns)}
    config |= {
        "column_encodings": [one for one, _ in columns.values()],
        "column_sizes": [n for _, n in columns.values()],
    }
    text = json.dumps(config | changes).encode()
    offsets = np.cumsum([4 * (len(samples) + 2) + len(text), *map(len, samples)]).astype("<u4")
    return struct.pack("<I", len(samples)) + offsets.tobytes() + text + b"".join(samples)


def sample(payload: bytes, label: bytes = LABEL) -> bytes:
    return struct.pack("<I", len(payload)) + payload + label


def test_a_sound_file_is_read() -> None:
    assert read(io.BytesIO(file(sample(PNG))), "mds") == [Record("f#0", PNG, 1, None)]


def test_a_file_without_samples_is_sound() -> None:
    assert read(io.BytesIO(file()), "mds") == []  # MosaicML's writer makes one before a sample above its limit


@pytest.mark.parametrize(
    ("encoding", "label", "found"),
    [
        ("uint8", b"\xff", 255),
        ("int16", b"\xff\xff", -1),
        ("str", b"\x04\0\0\0B\xc3\xa4r", "Bär"),
        ("str_int", b"\x01\0\0\x007", 7),
    ],
)
def test_classes_may_be_any_integer_or_text(encoding: str, label: bytes, found: int | str) -> None:
    fixed = mds.INTEGERS.get(encoding)
    head, body = (b"", label) if fixed else (label[:4], label[4:])
    content = struct.pack("<I", len(PNG)) + head + PNG + body
    columns = {"image": ("jpeg", None), "label": (encoding, fixed)}
    assert read(io.BytesIO(file(content, columns=columns)), "mds") == [Record("f#0", PNG, found, None)]


@pytest.mark.parametrize(
    ("bad", "columns", "reason"),
    [
        (sample(PNG)[:-1], None, "unreadable"),
        (struct.pack("<I", 2**32 - 1) + PNG + LABEL, None, "unreadable"),
        (b"ab", None, "unreadable"),
        (sample(bytes(1001)), None, "too_large"),
        (sample(PNG), {"image": ("pkl", None), "label": ("int", 8)}, "no_image"),
        (sample(PNG), {"image": ("bytes", None), "label": ("float64", 8)}, "no_label"),
        (bytes(16), {"image": ("ndarray:float32:3", 8), "label": ("int", 8)}, "no_image"),
        (bytes(16), {"image": ("ndarray:object:1", 8), "label": ("int", 8)}, "no_image"),
    ],
)
def test_a_bad_sample_is_one_fault(bad: bytes, columns: Any, reason: str) -> None:
    assert faults(read(io.BytesIO(file(bad, columns=columns)), "mds", max_bytes=1000)) == [("f#0", reason)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "its header is cut or damaged"),
        (struct.pack("<I", 2**32 - 1), "its header is cut or damaged"),
        (struct.pack("<III", 1, 2**31, 2**31), "its header is cut or damaged"),
        (file(sample(PNG), column_names=["image", "image"]), "its header is cut or damaged"),
        (file(sample(PNG), column_sizes=[None, -8]), "its header is cut or damaged"),
        (file(sample(PNG), version=3), "its header is cut or damaged"),
        (
            file(sample(PNG), columns={"label": ("int", 8)}),
            r"f has no column image or img or x; its columns are \['label'\]",
        ),
        (file(sample(PNG))[:-1], "f is truncated: it ends within sample 0 of 1"),
        (file(sample(PNG)) + b"x", "f goes on after its 1 samples"),
    ],
)
def test_what_cannot_be_trusted_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(io.BytesIO(content), "mds")


def test_offsets_that_fall_are_refused() -> None:
    content = bytearray(file(sample(PNG), sample(PNG)))
    content[8:12] = struct.pack("<I", 10)
    with pytest.raises(DataError, match="its header is cut or damaged"):
        read(io.BytesIO(content), "mds")


def test_a_flipped_bit_is_found_by_the_index(tmp_path: Path) -> None:
    path = export(tmp_path, "mds") / "train/shard.00000.mds"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train/shard\.00000\.mds does not match its sha256 in the index"):
        opened(tmp_path, "mds")


def test_a_file_that_is_missing_or_too_many_is_found_by_the_index(tmp_path: Path) -> None:
    export(tmp_path, "mds", max_samples=2)
    extra = tmp_path / "train/shard.00003.mds"
    extra.write_bytes(file(sample(PNG)))
    with pytest.raises(DataError, match=r"train/index\.json lists shard\.00003\.mds with None bytes, there are"):
        opened(tmp_path, "mds")
    extra.unlink()
    (tmp_path / "train/shard.00001.mds").unlink()
    with pytest.raises(DataError, match=r"lists shard\.00001\.mds with \d+ bytes, there are None"):
        opened(tmp_path, "mds")


def test_a_hostile_index_is_refused(tmp_path: Path) -> None:
    index = export(tmp_path, "mds") / "train/index.json"
    whole = json.loads(index.read_text())
    index.write_text('{"shards": [{"raw_data": {}}]}')
    with pytest.raises(DataError, match=r"train/index\.json is damaged \(2 faults\)"):
        opened(tmp_path, "mds")
    whole["shards"][0]["zip_data"] = {"basename": "shard.00000.mds.zstd", "bytes": 9}
    index.write_text(json.dumps(whole))
    with pytest.raises(DataError, match=r"shard\.00000\.mds\.zstd is compressed, which is not read"):
        opened(tmp_path, "mds")


def test_rows_without_dimension_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows of one dimension or more that hold something, not of shape \(\)"):
        export(tmp_path, "mds", [np.array(1.0)] * 5)


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_the_streaming_library_reads_it(tmp_path: Path) -> None:
    streaming = pytest.importorskip("streaming", reason="mosaicml-streaming is not installed", exc_type=ImportError)
    for kind, payloads in {"image": IMAGES, "x": ROWS}.items():
        folder = export(tmp_path / kind, "mds", payloads, max_samples=2)
        some = streaming.LocalDataset(local=str(folder), split="train")
        assert len(some) == 5
        assert [some[row]["label"] for row in range(5)] == LABELS
        assert [some[row]["sample_id"] for row in range(5)] == IDS
        for row, payload in enumerate(payloads):
            np.testing.assert_array_equal(some[row][kind], payload)
        reader = streaming.StreamingDataset(
            local=str(folder), split="train", shuffle=False, batch_size=1, validate_hash="sha256"
        )
        assert [one["sample_id"] for one in reader] == IDS


@pytest.mark.filterwarnings("ignore")
def test_what_the_streaming_library_writes_is_read(tmp_path: Path) -> None:
    streaming = pytest.importorskip("streaming", reason="mosaicml-streaming is not installed", exc_type=ImportError)
    columns = {"image": "bytes", "label": "int", "note": "str"}
    with streaming.MDSWriter(out=str(tmp_path / "out"), columns=columns, hashes=["sha1"], size_limit=300) as out:
        for payload, label in zip(IMAGES, LABELS, strict=True):
            out.write({"image": payload, "label": label, "note": "once upon a time"})
    assert len(list((tmp_path / "out").glob("*.mds"))) > 1
    some = entries(tmp_path / "out", "mds")
    assert [(one.payload, one.label) for one in some if isinstance(one, Record)] == list(
        zip(IMAGES, LABELS, strict=True)
    )
