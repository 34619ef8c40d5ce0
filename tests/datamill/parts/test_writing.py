import pyarrow as pa
import pytest

from datamill import parts
from datamill.errors import DataError
from tests.builders import image_table, tabular_table, write_parts
from tests.datamill.parts.conftest import keys


def test_a_part_ends_within_its_bounds_and_the_order_is_kept(tmp_path, small_parts):
    folder = write_parts(tmp_path / "samples", *image_table(num_samples=400))
    sizes = [part.num_rows for part in parts.read_manifest(folder).parts]
    assert sum(sizes) == 400
    assert all(5 <= size <= 40 for size in sizes[:-1])
    assert parts.read_table(folder, columns=["source"])["source"].to_pylist() == [f"item-{i:04d}" for i in range(400)]


@pytest.mark.parametrize("batch", [1, 7, 400])
def test_parts_do_not_depend_on_how_they_were_written(tmp_path, small_parts, batch):
    dataset, table = image_table(num_samples=400)
    whole = write_parts(tmp_path / "whole", dataset, table)
    with parts.PartsWriter(tmp_path / "pieces", dataset=dataset) as writer:
        for start in range(0, 400, batch):
            writer.write(table.slice(start, batch))
    assert (whole / "manifest.json").read_bytes() == (tmp_path / "pieces" / "manifest.json").read_bytes()


@pytest.mark.parametrize("place", [0, 137, 399])
def test_a_removed_sample_changes_its_own_part_and_leaves_the_others(tmp_path, small_parts, place):
    dataset, table = image_table(num_samples=400)
    before = keys(write_parts(tmp_path / "before", dataset, table))
    rest = pa.concat_tables([table.slice(0, place), table.slice(place + 1)])
    after = keys(write_parts(tmp_path / "after", dataset, rest))
    assert len(before) > 12
    assert len(set(before) - set(after)) <= 3


def test_appended_samples_leave_all_parts_but_the_last(tmp_path, small_parts):
    dataset, table = image_table(num_samples=400)
    before = keys(write_parts(tmp_path / "before", dataset, table.slice(0, 390)))
    assert keys(write_parts(tmp_path / "after", dataset, table))[: len(before) - 1] == before[:-1]


def test_parts_that_come_out_the_same_are_linked_unless_they_were_damaged(tmp_path, small_parts):
    dataset, table = image_table(num_samples=400)
    before = write_parts(tmp_path / "before", dataset, table)
    first, second = parts.read_manifest(before).parts[:2]
    damaged = bytearray((before / first.name).read_bytes())
    damaged[50] ^= 1
    (before / first.name).write_bytes(damaged)
    with parts.PartsWriter(tmp_path / "after", dataset=dataset, previous=before) as writer:
        writer.write(table)
    assert parts.verify(tmp_path / "after").num_rows == 400
    assert (tmp_path / "after" / second.name).samefile(before / second.name)
    assert not (tmp_path / "after" / first.name).samefile(before / first.name)


def test_missing_nullable_columns_become_null_and_others_are_refused(tmp_path):
    dataset, table = tabular_table()
    written = write_parts(tmp_path / "a", dataset, table.drop_columns(["group"]))
    assert parts.read_table(written, columns=["group"])["group"].null_count == 64
    with pytest.raises(DataError, match="column 'label' is missing"):
        write_parts(tmp_path / "b", dataset, table.drop_columns(["label"]))
    with pytest.raises(DataError, match=r"columns \['extra'\] are not in the schema"):
        write_parts(tmp_path / "c", dataset, table.append_column("extra", table["label"]))


def test_nulls_are_refused_where_none_may_be(tmp_path):
    dataset, table = tabular_table()
    labels = pa.array([None, *table["label"].to_pylist()[1:]])
    with pytest.raises(DataError, match="column 'label' holds 1 nulls"):
        write_parts(tmp_path / "a", dataset, table.set_column(table.column_names.index("label"), "label", labels))
