"""Native shards to foreign files, and back."""

import io
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from datamill.errors import DataError
from datamill.modalities import image
from datamill.samples import Dataset
from datamill.shards import exchange
from datamill.shards.entries import Field
from datamill.shards.exchange import conversion, npy
from datamill.shards.fields import BytesField
from datamill.shards.native import Shard, open_shard
from datamill.shards.writing import ShardWriter
from datamill.sources.params import ExchangedSource
from tests.datamill.shards.exchange.made import DATASET, IDS, IMAGES, LABELS, ROWS, export

FORMATS = list(exchange.FORMATS)
IDENTITIES = np.array([list(bytes.fromhex(one)) for one in IDS], np.uint8)


def shard(folder: Path, name: str, field: Field, rows: Any, *, dataset: Dataset | None = DATASET) -> Path:
    """A native shard with this payload."""
    fields = {name: field, "label": Field.array("int32"), "sample_id": Field.array("uint8", (16,))}
    with ShardWriter(folder, split="train", dataset=dataset, fields=fields) as out:
        out.write({name: rows, "label": np.array(LABELS, np.int32), "sample_id": IDENTITIES})
    return folder


def round_trip(folder: Path, name: str, **options: Any) -> Shard:
    """The shard in ``native`` after a detour over another format."""
    assert exchange.export_shard(folder / "native", folder / "out", format=name, max_samples=2) == 3
    exchange.import_shard(folder / "out", folder / "back", format=name, **options)
    return open_shard(folder / "back", verify=True)


@pytest.mark.parametrize("name", FORMATS)
def test_encoded_images_survive_the_detour(tmp_path: Path, name: str) -> None:
    shard(tmp_path / "native", "image", Field.bytes(), IMAGES)
    back = round_trip(tmp_path, name, split="train")
    images = back.fields["image"]
    assert isinstance(images, BytesField)
    assert [bytes(images.view(row)) for row in range(5)] == IMAGES
    assert (back.label.tolist(), back.ids(), back.classes) == (LABELS, IDS, DATASET.classes)
    assert (back.split, back.dataset.modality) == ("train", "image")


@pytest.mark.parametrize("name", FORMATS)
def test_rows_survive_the_detour(tmp_path: Path, name: str) -> None:
    table = DATASET.model_copy(update={"modality": "tabular"})
    shard(tmp_path / "native", "x", Field.array("float32", (3,)), np.stack(ROWS), dataset=table)
    back = round_trip(tmp_path, name)
    np.testing.assert_array_equal(back.x[:], np.stack(ROWS))
    assert (back.x.dtype, back.label.tolist(), back.ids()) == (np.float32, LABELS, IDS)
    assert back.dataset.modality == "tabular"


@pytest.mark.parametrize("name", FORMATS)
def test_pixels_become_images_of_the_same_pixels(tmp_path: Path, name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    shard(tmp_path / "native", "x", Field.array("uint8", (4, 6, 3)), pixels)
    images = round_trip(tmp_path, name).fields["image"]
    assert isinstance(images, BytesField)
    assert np.array_equal([image.decode(bytes(images.view(row))) for row in range(5)], pixels)


def test_a_shard_that_describes_no_data_set_has_numbers_for_classes(tmp_path: Path) -> None:
    shard(tmp_path / "native", "image", Field.bytes(), IMAGES, dataset=None)
    back = round_trip(tmp_path, "tfrecord")
    assert (back.classes, back.label.tolist()) == (("0", "1", "2"), LABELS)


def test_bounded_memory_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(tmp_path / "out", "webdataset")
    exchange.import_shard(tmp_path / "out", tmp_path / "once", format="webdataset")
    monkeypatch.setattr(conversion, "BATCH_BYTES", 1)
    exchange.import_shard(tmp_path / "out", tmp_path / "one_by_one", format="webdataset")
    first, second = (open_shard(tmp_path / name).fingerprint for name in ("once", "one_by_one"))
    assert first == second


def put(folder: Path, **members: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "a.tar", "w") as out:
        for key, content in members.items():
            member = tarfile.TarInfo(key.replace("_", "."))
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return folder


def test_samples_without_identity_get_one_of_their_place_and_content(tmp_path: Path) -> None:
    for name in ("one", "two"):
        exchange.import_shard(put(tmp_path, a_png=IMAGES[0], a_cls=b"0"), tmp_path / name, format="webdataset")
    (first,), (second,) = open_shard(tmp_path / "one").ids(), open_shard(tmp_path / "two").ids()
    assert first == second
    assert len(first) == 32


def test_names_of_classes_are_numbered_in_order(tmp_path: Path) -> None:
    source = put(tmp_path / "in", a_png=IMAGES[0], a_cls=b"dog", b_png=IMAGES[1], b_cls=b"cat")
    exchange.import_shard(source, tmp_path / "out", format="webdataset")
    back = open_shard(tmp_path / "out")
    assert (back.classes, back.label.tolist()) == (("cat", "dog"), [1, 0])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a_png": IMAGES[0]}, r"a\.tar#a: no_label, no member ends with \.cls"),
        ({"a_png": IMAGES[0], "a_cls": b"5"}, r"a\.tar#a: class 5 is none of those that are named"),
        ({"a_png": IMAGES[0][:-9], "a_cls": b"0"}, r"a\.tar#a: truncated"),
        ({"a_npy": npy.encode(np.zeros((0, 2))), "a_cls": b"0"}, r"a\.tar#a: unreadable, no row"),
        (
            {"a_png": IMAGES[0], "a_cls": b"0", "b_npy": npy.encode(ROWS[0]), "b_cls": b"0"},
            r"a\.tar#b holds \('<f4', \(3,\)\), and the first sample an image",
        ),
        ({"README": b"once upon a time"}, "no_image"),
    ],
)
def test_the_first_bad_sample_stops_an_import(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    put(tmp_path / "in", **members)
    with pytest.raises(DataError, match=message):
        exchange.import_shard(tmp_path / "in", tmp_path / "out", format="webdataset", class_names=("cat", "dog"))
    assert not (tmp_path / "out" / "index.json").exists()


def test_nothing_to_import_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "in")
    with pytest.raises(DataError, match="holds no sample; a shard needs one at least"):
        exchange.import_shard(tmp_path / "in", tmp_path / "out", format="webdataset")


def test_a_shard_without_payload_cannot_be_exported(tmp_path: Path) -> None:
    shard(tmp_path / "native", "tokens", Field.ragged("int32"), [np.arange(2)] * 5)
    with pytest.raises(DataError, match=r"has no field image or x but \['label', 'sample_id', 'tokens'\]"):
        exchange.export_shard(tmp_path / "native", tmp_path / "out", format="parquet")


def test_a_damaged_shard_is_not_exported(tmp_path: Path) -> None:
    shard(tmp_path / "native", "x", Field.array("float32", (3,)), np.stack(ROWS))
    (data,) = (tmp_path / "native").glob("x-*.bin")
    content = bytearray(data.read_bytes())
    content[7] ^= 1
    data.write_bytes(content)
    with pytest.raises(DataError):
        exchange.export_shard(tmp_path / "native", tmp_path / "out", format="tfrecord")
    assert list((tmp_path / "out").glob("*.tfrecord")) == []


def test_the_readme_s_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard(tmp_path / "data/shard/shards/train", "image", Field.bytes(), IMAGES)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"samples": zip(IDS, ROWS, [0, 1, 0, 1, 0], strict=True)}
    text = Path(exchange.__file__).with_name("README.md").read_text(encoding="utf-8")
    for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(code, names)  # noqa: S102 - the README's own examples
    assert open_shard(tmp_path / "imported").ids() == IDS
    assert (tmp_path / "streamed/train-000000.parquet").exists()


def test_the_readme_s_source_is_one() -> None:
    text = Path(exchange.__file__).with_name("README.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    source = yaml.safe_load(section)["ingest"]["source"]
    assert ExchangedSource.model_validate(source).format in FORMATS
