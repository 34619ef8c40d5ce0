"""Samples made by the pipeline: identity, parents, and copies that differ from their parents."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from datamill import derived, ledger, parts
from datamill.policy import Policy, Transform
from tests.builders import image_table, tabular_table, write_parts

JITTER = Policy(kind="tabular", seed=7, transforms=(Transform(name="jitter", probability=1, arguments={"share": 0.1}),))
FLIP = Policy(kind="image", seed=7, transforms=(Transform(name="VerticalFlip", probability=1, arguments={}),))


def test_only_surviving_training_samples_have_a_training_label(tmp_path: Path) -> None:
    ledger.write(
        tmp_path / "audited.parquet",
        sample_ids=["a", "b", "c", "d"],
        fates=["kept", "dropped", "kept", "repaired"],
        reasons=[""] * 4,
        details=[""] * 4,
        extra={"split": pa.array(["train", "train", "test", "train"]), "label": pa.array(["0", "1", "2", "3"])},
    )
    assert derived.train_labels(tmp_path / "audited.parquet") == {"a": "0", "d": "3"}


def test_equal_payloads_share_a_content_hash() -> None:
    rows = {"feature:x": pa.array([1.0, 1.0, None]), "feature:c": pa.array(["a", "a", "a"])}
    first, second, third = derived.payload_hashes(rows)
    assert first == second != third


def test_copies_of_rows_change_numbers_by_their_spread_and_nothing_else() -> None:
    dataset, table = tabular_table()
    augmenter = derived.source_augmenter(JITTER, train=table, dataset=dataset)
    labels = dict.fromkeys(table["sample_id"].to_pylist(), "2")
    one, two = derived.copies_of(table, augmenter=augmenter, dataset=dataset, labels=labels, num_copies=2)
    assert set(one["sample_id"].to_pylist()).isdisjoint(two["sample_id"].to_pylist())
    assert one["parents"].to_pylist() == [[key] for key in table["sample_id"].to_pylist()]
    assert set(one["label"].to_pylist()) == {"2"}
    for column in ("group", "time", "feature:colour"):
        assert one[column].to_pylist() == table[column].to_pylist()
    assert one["feature:noise"].null_count == table["feature:noise"].null_count
    change = one["feature:height"].to_numpy() - table["feature:height"].to_numpy()
    assert 0.05 < change.std() / table["feature:height"].to_numpy().std() < 0.15
    assert parts.conform(one, schema=dataset.arrow_schema()).num_rows == 64


def test_a_copy_equal_to_its_parent_or_to_an_earlier_copy_is_left_out() -> None:
    dataset, table = image_table(num_samples=6)
    augmenter = derived.source_augmenter(FLIP, train=table, dataset=dataset)
    labels = dict.fromkeys(table["sample_id"].to_pylist(), "0")
    rounds = derived.copies_of(table, augmenter=augmenter, dataset=dataset, labels=labels, num_copies=3)
    assert [copied.num_rows for copied in rounds] == [6, 0, 0]


def test_images_of_different_sizes_are_copied_each_in_its_own() -> None:
    dataset, small = image_table(num_samples=3, size=9)
    _, large = image_table(num_samples=3, size=12, seed=1)
    table = pa.concat_tables([small, large])
    augmenter = derived.source_augmenter(FLIP, train=table, dataset=dataset)
    payload = derived.augmented_payload(table, augmenter=augmenter, dataset=dataset, epoch=0)
    restored = derived.images.decode_column(pa.table(payload))
    assert [image.shape for image in restored] == [(9, 9, 1)] * 3 + [(12, 12, 1)] * 3
    assert np.array_equal(restored[0], derived.images.decode_column(small)[0][::-1])


def test_moments_leave_missing_values_out() -> None:
    mean, std = derived.moments(np.array([[1.0, np.nan, np.inf], [3.0, np.nan, 5.0]]))
    assert (mean.tolist(), std.tolist()) == ([2, 0, 5], [1, 0, 0])


def test_ids_become_bytes() -> None:
    assert derived.id_bytes(["00ff" + "00" * 14])[0, :3].tolist() == [0, 255, 0]
    assert derived.id_bytes([]).shape == (0, 16)


def test_written_copies_are_parts(tmp_path: Path) -> None:
    dataset, table = image_table(num_samples=6)
    augmenter = derived.source_augmenter(FLIP, train=table, dataset=dataset)
    labels = dict.fromkeys(table["sample_id"].to_pylist(), "1")
    (copied,) = derived.copies_of(table, augmenter=augmenter, dataset=dataset, labels=labels, num_copies=1)
    write_parts(tmp_path / "copies", dataset, copied)
    assert set(parts.read_table(tmp_path / "copies")["origin"].to_pylist()) == {"augmented"}
