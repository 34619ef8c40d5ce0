import resource

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamill import parts
from tests.builders import image_table, tabular_table, write_parts
from tests.datamill.parts.conftest import only_part


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
    monkeypatch.setattr(parts.parquet, "READ_ROWS", 20)
    monkeypatch.setattr(parts.parquet, "GROUP_BYTES", 100_000)
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


def write_groups(path, table, *, count):
    with parts.RowGroups(path, rows=table.num_rows) as stream:
        for _ in range(count):
            stream.write(table)


@pytest.mark.parametrize("count", [1, 3])
def test_a_group_that_cannot_be_written_is_told_and_what_was_there_stays(tmp_path, count):
    path = tmp_path / "ledger.parquet"
    path.write_bytes(b"before")
    rng = np.random.default_rng(0)
    table = pa.table({"sample_id": [rng.bytes(16).hex() for _ in range(1_000)]})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_groups(path, table, count=count)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.parquet"]
