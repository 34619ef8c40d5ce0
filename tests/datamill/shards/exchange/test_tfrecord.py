"""TFRecords, ours, TensorFlow's and damaged ones."""

import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamill.errors import DataError
from datamill.shards.exchange import example
from datamill.shards.exchange.records import Fault, Record
from datamill.shards.exchange.tfrecord import masked_crc32c
from tests.datamill.shards.exchange.made import DATASET, IDS, IMAGES, LABELS, ROWS, export, faults, read

PNG = IMAGES[0]
SOUND: dict[str, Any] = {"image": [PNG], "label": np.array([1])}


def record(message: bytes) -> bytes:
    length = struct.pack("<Q", len(message))
    return b"".join(
        (length, struct.pack("<I", masked_crc32c(length)), message, struct.pack("<I", masked_crc32c(message)))
    )


def file(*samples: Mapping[str, Any] | bytes) -> io.BytesIO:
    """A file of records with these features, or these bytes."""
    messages = [one if isinstance(one, bytes) else example.encode(one) for one in samples]
    return io.BytesIO(b"".join(map(record, messages)))


def flipped(content: bytes, place: int) -> io.BytesIO:
    damaged = bytearray(content)
    damaged[place] ^= 4
    return io.BytesIO(damaged)


def test_the_checksum_is_the_format_s() -> None:
    # From TensorFlow's own tests of tsl/lib/hash/crc32c: 32 zero bytes, masked as the format does.
    crc = 0x8A9136AA
    assert masked_crc32c(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_a_known_file_keeps_its_bytes() -> None:
    # The tutorial's smallest message: feature "a" with the integer 1.
    assert example.encode({"a": np.array([1])}).hex() == "0a0c0a0a0a01611205" + "1a030a0101"


def test_negative_and_large_numbers_survive() -> None:
    values = np.array([0, 1, -1, 127, 128, 2**63 - 1, -(2**63)])
    found = example.decode(example.encode({"n": values, "f": np.array([1.5, -0.0], np.float32), "b": [b"", b"x"]}))
    np.testing.assert_array_equal(found["n"], values)
    np.testing.assert_array_equal(found["f"], np.array([1.5, -0.0], np.float32))
    assert found["b"] == [b"", b"x"]


def test_numbers_that_are_not_packed_are_read() -> None:
    ints = bytes([0x1A, 4, 0x08, 5, 0x08, 7])  # int64_list, one field for each value
    floats = bytes([0x12, 5, 0x0D]) + struct.pack("<f", 0.5)

    def message(feature: bytes) -> bytes:
        entry = b"\x0a\x01n\x12" + bytes([len(feature)]) + feature
        features = b"\x0a" + bytes([len(entry)]) + entry
        return b"\x0a" + bytes([len(features)]) + features

    assert np.asarray(example.decode(message(ints))["n"]).tolist() == [5, 7]
    assert np.asarray(example.decode(message(floats))["n"]).tolist() == [0.5]


@pytest.mark.parametrize("message", [b"\x0a", b"\x0a\xff", b"\xff" * 11, b"\x0b", b"\x0a\x03\x0a\x01\x0a", b"\x09abc"])
def test_no_message_is_an_error_and_never_another(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"at byte|no message|no list"):
        example.decode(message)


def test_damaged_messages_raise_value_errors_only() -> None:
    rng = np.random.default_rng(0)
    whole = example.encode({"x": np.array([1.5], np.float32), "n": np.arange(300), "b": [b"abc"]})
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] = int(rng.integers(256))
        try:
            example.decode(bytes(damaged))
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        ({"label": np.array([1])}, "no_image"),
        ({"image": np.array([1.0], np.float32), "label": np.array([1])}, "no_image"),
        ({"image": [PNG, PNG], "label": np.array([1])}, "two_images"),
        ({"image": [PNG]}, "no_label"),
        ({"image": [PNG], "label": np.array([1, 2])}, "no_label"),
        ({"image": [PNG], "label": np.array([1.0], np.float32)}, "no_label"),
        ({"image": [PNG], "label": [b""]}, "no_label"),
        ({"image": [bytes(1001)], "label": np.array([1])}, "too_large"),
        ({"image": [bytes(2**17)], "label": np.array([1])}, "too_large"),
        ({"x": [b"abc"], "x/dtype": [b"int16"], "label": np.array([1])}, "unreadable"),
        ({"x": [b"abcd"], "x/dtype": [b"object"], "label": np.array([1])}, "unreadable"),
        ({"x": np.ones(3, np.float32), "x/shape": np.array([2, 2]), "label": np.array([1])}, "unreadable"),
        ({"x": np.ones(3, np.float32), "x/shape": np.array([-3, -1]), "label": np.array([1])}, "unreadable"),
        (b"once upon a time", "unreadable"),
    ],
)
def test_a_bad_record_is_one_fault_and_the_next_one_is_read(features: Mapping[str, Any], reason: str) -> None:
    some = read(file(features, SOUND), "tfrecord", max_bytes=1000)
    assert faults(some) == [("f#0", reason)]
    assert some[1] == Record("f#1", PNG, 1, None)


def test_a_name_may_stand_for_the_class_and_features_can_be_chosen() -> None:
    features = {"a": [PNG], "b": ["Bär".encode()], "image": [b"?"], "label": np.array([1])}
    assert read(file(features), "tfrecord", image="a", label="b") == [Record("f#0", PNG, "Bär", None)]


def test_a_flipped_bit_in_a_record_is_a_fault_with_its_place() -> None:
    content = file(SOUND, SOUND).getvalue()
    for place in (12, 40, len(content) // 2 - 1):  # the first byte, one within, the last of the checksum
        some = read(flipped(content, place), "tfrecord")
        assert faults(some) == [("f#0", "checksum")]
        assert isinstance(some[0], Fault)
        assert "at byte 12 do not match theirs" in some[0].message
        assert isinstance(some[1], Record)


@pytest.mark.parametrize("place", [0, 7, 8])
def test_a_flipped_bit_in_a_length_or_its_checksum_stops_the_file(place: int) -> None:
    content = file(SOUND, SOUND).getvalue()
    half = len(content) // 2
    with pytest.raises(DataError, match=f"f: the length of the record at byte {half} does not match its checksum"):
        read(flipped(content, half + place), "tfrecord")


@pytest.mark.parametrize("kept", [1, 11, 12, 50, -1])
def test_a_cut_file_is_refused_with_the_place(kept: int) -> None:
    with pytest.raises(DataError, match="f is truncated: it ends within the record at byte 0"):
        read(io.BytesIO(file(SOUND).getvalue()[:kept]), "tfrecord")


def test_ten_gibibytes_that_are_claimed_are_not_believed() -> None:
    length = struct.pack("<Q", 10 * 2**30)
    content = length + struct.pack("<I", masked_crc32c(length)) + bytes(100)
    with pytest.raises(DataError, match="f is truncated"):
        read(io.BytesIO(content), "tfrecord")


def test_images_have_the_names_of_imagenet_s_records(tmp_path: Path) -> None:
    content = (export(tmp_path, "tfrecord") / "train-000000.tfrecord").read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    found = example.decode(content[12 : 12 + length])
    assert found["image/encoded"] == [PNG]
    assert found["image/format"] == [b"png"]
    assert found["image/class/text"] == [b"ant"]
    assert found["sample_id"] == [IDS[0].encode()]
    assert np.asarray(found["image/class/label"]).tolist() == [0]


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_tensorflow_reads_it(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed", exc_type=ImportError)
    images = [str(path) for path in sorted(export(tmp_path / "i", "tfrecord", max_samples=2).glob("*.tfrecord"))]
    wanted = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        "image/class/text": tf.io.FixedLenFeature([], tf.string),
    }
    some = [tf.io.parse_single_example(one, wanted) for one in tf.data.TFRecordDataset(images)]
    assert [one["image/encoded"].numpy() for one in some] == IMAGES
    assert [int(one["image/class/label"]) for one in some] == LABELS
    assert [one["image/class/text"].numpy().decode() for one in some] == [DATASET.classes[n] for n in LABELS]
    assert tf.io.decode_image(some[1]["image/encoded"]).numpy().max() == 40

    rows = str(export(tmp_path / "r", "tfrecord", ROWS) / "train-000000.tfrecord")
    numbers = {"x": tf.io.FixedLenFeature([3], tf.float32), "label": tf.io.FixedLenFeature([], tf.int64)}
    parsed = [tf.io.parse_single_example(one, numbers) for one in tf.data.TFRecordDataset(rows)]
    np.testing.assert_array_equal([one["x"].numpy() for one in parsed], ROWS)


@pytest.mark.filterwarnings("ignore")
def test_what_tensorflow_writes_is_read(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed", exc_type=ImportError)

    def feature(**value: Any) -> Any:
        lists = {"bytes_list": tf.train.BytesList, "int64_list": tf.train.Int64List, "float_list": tf.train.FloatList}
        return tf.train.Feature(**{key: lists[key](value=some) for key, some in value.items()})

    path = tmp_path / "x.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as out:
        for payload, label in zip(IMAGES, LABELS, strict=True):
            features = {
                "image/encoded": feature(bytes_list=[payload]),
                "image/class/label": feature(int64_list=[label]),
            }
            features["image/object/bbox"] = feature(float_list=[0.5, 0.25])
            message = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
            out.write(message)
    with path.open("rb") as stream:
        some = read(stream, "tfrecord")
    assert [(one.payload, one.label) for one in some if isinstance(one, Record)] == list(
        zip(IMAGES, LABELS, strict=True)
    )


@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize("kind", [1, 3])  # strings, integers
def test_more_values_than_a_feature_may_have_are_a_fault_where_they_matter(
    monkeypatch: pytest.MonkeyPatch, kind: int, is_packed: bool
) -> None:
    monkeypatch.setattr(example, "MAX_VALUES", 9)

    def message(name: bytes, count: int) -> bytes:
        packed = example._field(1, b"\1" * count)
        values = packed if is_packed and kind == 3 else (b"\x08\1" if kind == 3 else b"\x0a\0") * count
        feature = example._field(1, name) + example._field(2, example._field(kind, values))
        return example.encode(SOUND) + example._field(1, example._field(1, feature))

    assert len(example.decode(message(b"label", 9))["label"]) == 9
    with pytest.raises(ValueError, match="a feature has more than 9 values"):
        example.decode(message(b"label", 10), wanted=["label"])
    found = example.decode(message(b"else", 10), wanted=["label"])
    assert (found["else"], np.asarray(found["label"]).tolist()) == ([], [1])


def test_very_many_features_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "MAX_FEATURES", 9)
    with pytest.raises(ValueError, match="more than 9 features"):
        example.decode(example.encode({str(number): [b""] for number in range(10)}))


def test_a_message_of_many_features_names_the_first() -> None:
    features: dict[str, Any] = {f"{number:03d}\n": [b""] for number in range(300)}
    (fault,) = read(file(features | {"label": np.array([1])}), "tfrecord")
    assert isinstance(fault, Fault)
    assert fault.message.startswith(r"none of image/encoded, image among the features 000\n, 001\n,")
    assert fault.message.endswith(r"019\n and 281 more")
