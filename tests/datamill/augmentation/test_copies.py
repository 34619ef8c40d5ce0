"""Copies differ from their parents, name them, and keep the rest."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from datamill import parts
from datamill.augmentation import copies
from datamill.augmentation.policy import Policy, Transform
from tests.builders import image_table, tabular_table, write_parts

JITTER = Policy(kind="tabular", seed=7, transforms=(Transform(name="jitter", probability=1, arguments={"share": 0.1}),))
FLIP = Policy(kind="image", seed=7, transforms=(Transform(name="VerticalFlip", probability=1, arguments={}),))


def test_copies_of_rows_change_numbers_by_their_spread_and_nothing_else() -> None:
    dataset, table = tabular_table()
    augmenter = copies.source_augmenter(JITTER, train=table, dataset=dataset)
    labels = dict.fromkeys(table["sample_id"].to_pylist(), "2")
    one, two = copies.copies_of(table, augmenter=augmenter, dataset=dataset, labels=labels, num_copies=2)
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
    augmenter = copies.source_augmenter(FLIP, train=table, dataset=dataset)
    labels = dict.fromkeys(table["sample_id"].to_pylist(), "0")
    rounds = copies.copies_of(table, augmenter=augmenter, dataset=dataset, labels=labels, num_copies=3)
    assert [copied.num_rows for copied in rounds] == [6, 0, 0]


def test_images_of_different_sizes_are_copied_each_in_its_own() -> None:
    dataset, small = image_table(num_samples=3, size=9)
    _, large = image_table(num_samples=3, size=12, seed=1)
    table = pa.concat_tables([small, large])
    augmenter = copies.source_augmenter(FLIP, train=table, dataset=dataset)
    payload = copies.augmented_payload(table, augmenter=augmenter, dataset=dataset, epoch=0)
    restored = copies.images.decode_column(pa.table(payload))
    assert [image.shape for image in restored] == [(9, 9, 1)] * 3 + [(12, 12, 1)] * 3
    assert np.array_equal(restored[0], copies.images.decode_column(small)[0][::-1])


def test_moments_leave_missing_values_out() -> None:
    mean, std = copies.moments(np.array([[1.0, np.nan, np.inf], [3.0, np.nan, 5.0]]))
    assert (mean.tolist(), std.tolist()) == ([2, 0, 5], [1, 0, 0])


def test_written_copies_are_parts(tmp_path: Path) -> None:
    dataset, table = image_table(num_samples=6)
    augmenter = copies.source_augmenter(FLIP, train=table, dataset=dataset)
    labels = dict.fromkeys(table["sample_id"].to_pylist(), "1")
    (copied,) = copies.copies_of(table, augmenter=augmenter, dataset=dataset, labels=labels, num_copies=1)
    write_parts(tmp_path / "copies", dataset, copied)
    assert set(parts.read_table(tmp_path / "copies")["origin"].to_pylist()) == {"augmented"}
