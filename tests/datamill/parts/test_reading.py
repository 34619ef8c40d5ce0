import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamill import parts
from tests.builders import image_table, tabular_table, write_parts
from tests.datamill.parts.conftest import keys, only_part


def test_what_is_written_is_read_back_in_order(folder):
    _, table = image_table()
    assert parts.read_table(folder).equals(
        table.select(parts.read_table(folder).column_names).cast(parts.read_table(folder).schema)
    )


def test_an_empty_folder_reads_as_an_empty_table(tmp_path):
    dataset, table = tabular_table()
    folder = write_parts(tmp_path / "a", dataset, table.slice(0, 0))
    assert parts.read_table(folder, columns=["sample_id"]).num_rows == 0


@pytest.mark.parametrize("scan_rows", [1, 4, 100])
@pytest.mark.parametrize("rows", [[0], [0, 17, 18, 63], [], list(range(64)), None])
def test_some_rows_are_read_from_their_row_groups_alone(tmp_path, monkeypatch, rows, scan_rows):
    monkeypatch.setattr(parts.parquet, "READ_ROWS", 10)
    monkeypatch.setattr(parts.reading, "SCAN_ROWS", scan_rows)
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
    monkeypatch.setattr(parts.parquet, "READ_ROWS", 10)
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
