"""Copies differ from their parents, name them, and keep the rest."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from datamill import parts
from datamill.augmentation import copies
from datamill.augmentation.copies import Recipe, copies_of, write_copies
from datamill.augmentation.policy import Policy, Transform
from datamill.modalities import image as images
from datamill.samples import Dataset
from tests.builders import image_table, tabular_table
from tests.fakes import InlineEngine

JITTER = Policy(kind="tabular", seed=7, transforms=(Transform(name="jitter", probability=1, arguments={"share": 0.1}),))
FLIP = Policy(kind="image", seed=7, transforms=(Transform(name="VerticalFlip", probability=1, arguments={}),))
SHIFT = Policy(
    kind="image",
    seed=7,
    transforms=(Transform(name="Affine", probability=1, arguments={"translate_percent": [-0.4, 0.4]}),),
)


def recipe_of(dataset: Dataset, *, policy: Policy = SHIFT, num_copies: int = 2) -> Recipe:
    scales = (1.0, 2.0, 3.0) if dataset.modality == "tabular" else ()
    return Recipe(policy=policy, scales=scales, num_copies=num_copies, dataset=dataset)


def labelled(table: pa.Table, label: str) -> pa.Table:
    return table.set_column(table.column_names.index("label"), "label", pa.array([label] * table.num_rows))


def test_copies_of_rows_change_numbers_by_their_spread_and_nothing_else() -> None:
    dataset, table = tabular_table()
    copied = copies_of(labelled(table, "2"), recipe=recipe_of(dataset, policy=JITTER))
    one, two = (copied.take(pa.array(np.arange(start, 128, 2))) for start in range(2))
    assert set(one["sample_id"].to_pylist()).isdisjoint(two["sample_id"].to_pylist())
    assert one["parents"].to_pylist() == two["parents"].to_pylist() == [[key] for key in table["sample_id"].to_pylist()]
    assert set(one["label"].to_pylist()) == {"2"}
    for column in ("group", "time", "feature:colour"):
        assert one[column].to_pylist() == table[column].to_pylist()
    assert one["feature:noise"].null_count == table["feature:noise"].null_count
    change = one["feature:width"].to_numpy() - table["feature:width"].to_numpy()
    assert 0.1 < change.std() < 0.3
    assert copied.schema.equals(dataset.arrow_schema())


def test_a_copy_equal_to_its_parent_or_to_an_earlier_copy_is_left_out() -> None:
    dataset, table = image_table(num_samples=6)
    assert copies_of(table, recipe=recipe_of(dataset, policy=FLIP, num_copies=3)).num_rows == 6


def test_images_of_different_sizes_are_copied_each_in_its_own() -> None:
    dataset, small = image_table(num_samples=3, size=9)
    _, large = image_table(num_samples=3, size=12, seed=1)
    table = pa.concat_tables([small, large])
    augmenter = recipe_of(dataset, policy=FLIP).augmenter()
    payload = copies.augmented_payload(table, augmenter=augmenter, dataset=dataset, epoch=0)
    restored = images.decode_column(pa.table(payload))
    assert [image.shape for image in restored] == [(9, 9, 1)] * 3 + [(12, 12, 1)] * 3
    assert np.array_equal(restored[0], images.decode_column(small)[0][::-1])


def test_the_order_of_copies_does_not_depend_on_how_parents_were_read() -> None:
    dataset, table = image_table(num_samples=12)
    whole = copies_of(table, recipe=recipe_of(dataset))
    halves = [copies_of(piece, recipe=recipe_of(dataset)) for piece in (table.slice(0, 5), table.slice(5))]
    assert pa.concat_tables(halves).equals(whole)


def write(folder: Path, table: pa.Table, *, recipe: Recipe, former: Path | None = None) -> parts.Manifest:
    pieces = [table.slice(start, 7) for start in range(0, table.num_rows, 7)]
    count = write_copies(pieces, folder=folder, recipe=recipe, engine=InlineEngine(), former=former)
    manifest = parts.verify(folder)
    assert manifest.num_rows == count
    return manifest


def count_made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of parents whenever copies are made."""
    made: list[int] = []
    make = copies.copies_of

    def counted(table: pa.Table, *, recipe: Recipe) -> pa.Table:
        made.append(table.num_rows)
        return make(table, recipe=recipe)

    monkeypatch.setattr(copies, "copies_of", counted)
    return made


def test_only_copies_of_new_parents_are_made_and_the_bytes_are_those_of_a_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, table = image_table(num_samples=40)
    recipe = recipe_of(dataset, policy=FLIP, num_copies=1)
    write(tmp_path / "before", table.slice(0, 30), recipe=recipe)
    changed = labelled(pa.concat_tables([table.slice(0, 4), table.slice(5), table.slice(4, 1)]), "2")
    first = write(tmp_path / "fresh", changed, recipe=recipe)
    made = count_made(monkeypatch)
    again = write(tmp_path / "again", changed, recipe=recipe, former=tmp_path / "before")
    assert sum(made) == 10
    assert again == first


@pytest.mark.parametrize("change", ["policy", "copies", "code", "damage"])
def test_nothing_is_taken_over_from_another_recipe_or_a_damaged_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    dataset, table = image_table(num_samples=9)
    manifest = write(tmp_path / "before", table, recipe=recipe_of(dataset))
    recipe = recipe_of(dataset, num_copies=1 if change == "copies" else 2, policy=FLIP if change == "policy" else SHIFT)
    if change == "code":
        monkeypatch.setattr("datamill.imports.digest", lambda _: "another")
    if change == "damage":
        path = tmp_path / "before" / manifest.parts[0].name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    made = count_made(monkeypatch)
    write(tmp_path / "again", table, recipe=recipe, former=tmp_path / "before")
    assert sum(made) == 9


def test_a_sample_whose_copies_were_left_out_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, table = image_table(num_samples=6)
    recipe = recipe_of(dataset, policy=FLIP, num_copies=2)
    before = write(tmp_path / "before", table, recipe=recipe)
    made = count_made(monkeypatch)
    after = write(tmp_path / "after", table, recipe=recipe, former=tmp_path / "before")
    assert (sum(made), before) == (6, after)
