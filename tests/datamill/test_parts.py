import json

import pyarrow as pa
import pytest

from datamill import parts, reading
from datamill.errors import DataError
from tests.builders import image_table, tabular_table, write_parts


@pytest.fixture
def folder(tmp_path):
    return write_parts(tmp_path / "samples", *image_table())


def test_what_is_written_is_read_back_in_order(folder):
    _, table = image_table()
    assert parts.read_table(folder).equals(
        table.select(parts.read_table(folder).column_names).cast(parts.read_table(folder).schema)
    )


def test_a_part_holds_at_most_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "MAX_ROWS", 20)
    monkeypatch.setattr(parts, "READ_ROWS", 10)
    folder = write_parts(tmp_path / "samples", *image_table(num_samples=64))
    assert [part.num_rows for part in parts.read_manifest(folder).parts] == [20, 20, 20, 4]
    assert parts.read_table(folder, columns=["source"])["source"][63].as_py() == "item-0063"


def test_equal_samples_give_equal_bytes(tmp_path):
    folders = [write_parts(tmp_path / name, *tabular_table()) for name in "ab"]
    assert len({(folder / "part-00000.parquet").read_bytes() for folder in folders}) == 1


def test_a_folder_without_manifest_is_not_finished(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="was not finished"):
        parts.read_manifest(folder)


def test_a_truncated_part_is_named_with_both_sizes(folder):
    part = folder / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"part-00000.parquet has \d+ bytes, the manifest says \d+"):
        parts.read_table(folder)


def test_one_flipped_bit_is_found_by_verify(folder):
    part = folder / "part-00000.parquet"
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
