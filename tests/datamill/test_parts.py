import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamill import parts, reading
from datamill.errors import DataError
from tests.builders import image_table, tabular_table, write_parts


@pytest.fixture
def folder(tmp_path):
    return write_parts(tmp_path / "samples", *image_table())


def only_part(folder):
    (part,) = parts.read_manifest(folder).parts
    return folder / part.name


def test_what_is_written_is_read_back_in_order(folder):
    _, table = image_table()
    assert parts.read_table(folder).equals(
        table.select(parts.read_table(folder).column_names).cast(parts.read_table(folder).schema)
    )


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of 5 to 40 samples of 100 bytes."""
    monkeypatch.setattr(parts, "LEAST_ROW_BYTES", 1_000)
    monkeypatch.setattr(parts, "TARGET_BYTES", 20_000)
    monkeypatch.setattr(parts, "MIN_BYTES", 5_000)
    monkeypatch.setattr(parts, "MAX_BYTES", 40_000)


def keys(folder):
    return [part.key for part in parts.read_manifest(folder).parts]


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


def with_payloads(table, payloads):
    images = pa.array([{"bytes": one, "path": None} for one in payloads], table["image"].type)
    return table.set_column(table.column_names.index("image"), "image", images)


@pytest.mark.parametrize(("payload", "codec"), [(b"white" * 200, "ZSTD"), (None, "UNCOMPRESSED")])
def test_images_are_compressed_where_that_saves_something(tmp_path, payload, codec):
    dataset, table = image_table()
    noise = np.random.default_rng(0)
    payloads = [payload or noise.bytes(1000) for _ in range(table.num_rows)]
    part = only_part(write_parts(tmp_path / "samples", dataset, with_payloads(table, payloads)))
    group = pq.read_metadata(part).row_group(0)
    codecs = {group.column(place).path_in_schema: group.column(place).compression for place in range(group.num_columns)}
    assert codecs.pop("image.bytes") == codec
    assert {codecs.pop(name) for name in ("sample_id", "content_hash")} == {"UNCOMPRESSED"}
    assert set(codecs.values()) == {"ZSTD"}
    assert {"label", "parents.list.element", "image.path"} < set(codecs)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_row_groups_end_where_they_are_full(tmp_path, monkeypatch, batch):
    monkeypatch.setattr(parts, "READ_ROWS", 20)
    monkeypatch.setattr(parts, "GROUP_BYTES", 100_000)
    dataset, table = image_table()
    sizes = [20_000] * 12 + [0] * 40 + [200_000] * 2 + [1] * 10
    table = with_payloads(table, [bytes(size) for size in sizes])
    with parts.PartsWriter(tmp_path / "samples", dataset=dataset) as writer:
        for start in range(0, 64, batch):
            writer.write(table.slice(start, batch))
    metadata = pq.read_metadata(only_part(tmp_path / "samples"))
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert groups == [5, 5, 20, 20, 3, 1, 10]


def test_equal_samples_give_equal_bytes(tmp_path):
    folders = [write_parts(tmp_path / name, *tabular_table()) for name in "ab"]
    assert len({only_part(folder).read_bytes() for folder in folders}) == 1


def test_a_folder_without_manifest_is_not_finished(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="was not finished"):
        parts.read_manifest(folder)


def test_a_truncated_part_is_named_with_both_sizes(folder):
    part = only_part(folder)
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"parquet has \d+ bytes, the manifest says \d+"):
        parts.read_table(folder)


def test_one_flipped_bit_is_found_by_verify(folder):
    part = only_part(folder)
    content = bytearray(part.read_bytes())
    content[100] ^= 1
    part.write_bytes(content)
    with pytest.raises(DataError, match="has SHA-256"):
        parts.verify(folder)


@pytest.mark.parametrize(("text", "message"), [("{", "is damaged"), (None, "has version 99")])
def test_a_damaged_or_foreign_manifest_is_refused(folder, text, message):
    path = folder / "manifest.json"
    path.write_text(text if text is not None else json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(DataError, match=message):
        parts.read_manifest(folder)


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


def test_an_empty_folder_reads_as_an_empty_table(tmp_path):
    dataset, table = tabular_table()
    folder = write_parts(tmp_path / "a", dataset, table.slice(0, 0))
    assert parts.read_table(folder, columns=["sample_id"]).num_rows == 0


def test_repaired_rows_take_the_place_of_the_originals_and_unwanted_rows_stay_out(tmp_path):
    dataset, table = tabular_table()
    folder = write_parts(tmp_path / "samples", dataset, table)
    row = table.slice(5, 1)
    repaired = row.set_column(row.column_names.index("feature:height"), "feature:height", pa.array([99.0]))
    repairs = write_parts(tmp_path / "repairs", dataset, repaired)
    wanted = set(table["sample_id"].to_pylist()[4:7])
    read = reading.read_samples([folder], wanted=wanted, repairs=repairs, columns=["sample_id", "feature:height"])
    expected = table["feature:height"].to_pylist()
    assert read["feature:height"].to_pylist() == [expected[4], 99.0, expected[6]]


@pytest.mark.parametrize("scan_rows", [1, 4, 100])
@pytest.mark.parametrize("rows", [[0], [0, 17, 18, 63], [], list(range(64)), None])
def test_some_rows_are_read_from_their_row_groups_alone(tmp_path, monkeypatch, rows, scan_rows):
    monkeypatch.setattr(parts, "READ_ROWS", 10)
    monkeypatch.setattr(parts, "SCAN_ROWS", scan_rows)
    _, table = image_table()
    folder = write_parts(tmp_path / "samples", *image_table())
    wanted = None if rows is None else np.array(rows, np.int64)
    read = list(parts.iter_rows(str(only_part(folder)), wanted, columns=["source", "image"]))
    places = [place for some, piece in read for place in range(some.start, some.start + piece.num_rows)]
    assert places == list(range(64 if rows is None else len(rows)))
    found = [one for _, piece in read for one in piece.select(["source", "image"]).to_pylist()]
    assert (
        found
        == table.select(["source", "image"]).take(pa.array(range(64) if rows is None else rows, pa.int64())).to_pylist()
    )
    assert max((piece.num_rows for _, piece in read), default=0) <= min(scan_rows, 10)


def test_row_groups_without_a_wanted_row_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "READ_ROWS", 10)
    path = only_part(write_parts(tmp_path / "samples", *image_table()))
    content = bytearray(path.read_bytes())
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(2).column(file.schema_arrow.names.index("source"))
    start = min(column.data_page_offset, column.dictionary_page_offset or column.data_page_offset)
    content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(content)
    read = list(parts.iter_rows(str(path), np.array([3, 19, 30, 63]), columns=["source"]))
    found = [one for _, piece in read for one in piece["source"].to_pylist()]
    assert found == ["item-0003", "item-0019", "item-0030", "item-0063"]
    with pytest.raises(OSError, match=r"deserialize|decompress|page|thrift"):
        list(parts.iter_rows(str(path), np.array([25]), columns=["source"]))


def test_rows_are_read_from_where_an_engine_keeps_them(tmp_path):
    path = only_part(write_parts(tmp_path / "samples", *image_table()))
    ((some, piece),) = parts.iter_rows(path.as_uri(), np.array([2, 40]), columns=["source"])
    assert (some, piece["source"].to_pylist()) == (slice(0, 2), ["item-0002", "item-0040"])


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
def test_blocks_have_the_length_that_was_asked_for(tmp_path, small_parts, rows):
    folder = write_parts(tmp_path / "samples", *image_table(num_samples=100))
    assert len(keys(folder)) > 1
    blocks = list(parts.iter_blocks(folder, columns=["source"], rows=rows))
    assert {block.num_rows for block in blocks[:-1]} <= {rows}
    assert [one for block in blocks for one in block["source"].to_pylist()] == [f"item-{i:04d}" for i in range(100)]
