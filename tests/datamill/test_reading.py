import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamill import ledger, parts, reading
from datamill.errors import StageError
from tests.builders import tabular_table, write_parts


def stream(ids, sizes):
    """A table of ``ids`` in pieces of these sizes, and then the rest."""
    start = 0
    for size in [0, *sizes, len(ids)]:
        piece = ids[start : start + size]
        yield pa.table(
            {"sample_id": pa.array(piece, pa.string()), "row": pa.array([int(key) for key in piece], pa.int64())}
        )
        start += size


sizes = st.lists(st.integers(0, 9), max_size=6)


@given(chosen=st.lists(st.booleans(), max_size=30), left=sizes, right=sizes)
def test_streams_join_however_they_are_cut(chosen, left, right):
    ids = [str(number) for number in range(len(chosen))]
    wanted = [key for key, is_wanted in zip(ids, chosen, strict=True) if is_wanted]
    joined = list(reading.join_in_order(stream(ids, left), stream(wanted, right), name="ledger"))
    assert [key for table, _ in joined for key in table["sample_id"].to_pylist()] == wanted
    assert all(table["row"].equals(other["row"]) for table, other in joined)


@pytest.mark.parametrize("wanted", [["0", "9"], ["2", "1"], ["1", "1"]])
def test_a_stranger_or_another_order_is_refused(wanted):
    with pytest.raises(StageError, match="order"):
        list(reading.join_in_order(stream(["0", "1", "2"], [1]), stream(wanted, []), name="ledger"))


@pytest.fixture
def samples(tmp_path):
    return write_parts(tmp_path / "samples", *tabular_table(num_samples=12))


@pytest.fixture
def ids(samples):
    return parts.read_table(samples, columns=["sample_id"])["sample_id"].to_pylist()


def test_samples_come_with_what_was_decided_about_them(tmp_path, samples, ids):
    fates = ["dropped" if row % 3 == 0 else "kept" for row in range(12)]
    splits = pa.array(["train" if row % 2 else "test" for row in range(12)])
    path = tmp_path / "ledger.parquet"
    ledger.write(path, sample_ids=ids, fates=fates, reasons="", details="", extra={"split": splits})
    read = list(
        reading.iter_decided(
            [samples],
            decisions=path,
            columns=["sample_id"],
            decided=["sample_id", "split"],
            where=reading.in_split("train"),
        )
    )
    found = pa.concat_tables([table for table, _ in read])["sample_id"].to_pylist()
    assert found == [key for row, key in enumerate(ids) if row % 2 and row % 3]
    assert pc.all(pc.equal(pa.concat_tables([one for _, one in read])["split"], "train")).as_py()


def test_repairs_take_the_place_of_what_they_repair(tmp_path, samples, ids):
    dataset, table = tabular_table(num_samples=12)
    height = table.column_names.index("feature:height")
    repaired = table.take([2, 7]).set_column(height, "feature:height", pa.array([100.0, 200.0]))
    repairs = write_parts(tmp_path / "repairs", dataset, repaired)
    read = reading.read_samples([samples], repairs=repairs, columns=["sample_id", "feature:height"])
    assert read["sample_id"].to_pylist() == ids
    values = read["feature:height"].to_pylist()
    assert (values[2], values[7]) == (100.0, 200.0)
    assert values[3] == table["feature:height"][3].as_py()


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
