"""Rows of CSV and Parquet files."""

import gzip
import math
import tracemalloc
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from datamill.errors import DataError
from datamill.sources.batches import Batch
from tests.datamill.sources.drain import TABLE_FIELDS, drain_table, make_params, opened

CSV = "size,colour,class\n1,red,a\n2.5,blue,b\n,NA,a\ninf,red,b\n"


def put(path: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def test_columns_get_a_kind_and_missing_cells_are_null(tmp_path: Path) -> None:
    dataset, table, rejects = drain_table(put(tmp_path / "cars.csv", CSV))
    assert (dataset.name, dataset.classes, rejects) == ("cars", ("a", "b"), [])
    assert [(feature.name, feature.kind) for feature in dataset.features] == [
        ("size", "number"),
        ("colour", "category"),
    ]
    assert table["feature:size"].to_pylist() == [1.0, 2.5, None, math.inf]
    assert table["feature:colour"].to_pylist() == ["red", "blue", None, "red"]
    assert table["label"].to_pylist() == ["a", "b", "a", "b"]


def test_roles_are_taken_out_of_the_features(tmp_path: Path) -> None:
    path = put(tmp_path / "x.csv", "pid,when,key,junk,size,class\np1,2024-01-31,k1,x,1,a\np2,2024-02-01,k2,y,2,b\n")
    dataset, table, _ = drain_table(path, group="pid", time="when", id="key", exclude=["junk"])
    assert [feature.name for feature in dataset.features] == ["size"]
    assert table["group"].to_pylist() == ["p1", "p2"]
    assert [str(time.date()) for time in table["time"].to_pylist()] == ["2024-01-31", "2024-02-01"]
    assert table["source"].to_pylist() == ["k1", "k2"]


def test_csv_and_parquet_of_one_table_give_equal_samples(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "count": [1, 2, 3, 4],
            "ratio": [0.1, None, 1e-30, math.inf],
            "is_new": [True, False, True, True],
            "colour": ["red", 'é, "x"', None, "red\nblue"],
            "class": ["a", "b", "a", "b"],
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    first, second = drain_table(tmp_path / "t.csv"), drain_table(tmp_path / "t.parquet", format="parquet")
    assert first[0] == second[0]
    assert [feature.kind for feature in first[0].features] == ["number", "number", "category", "category"]
    assert first[1]["content_hash"].to_pylist() == second[1]["content_hash"].to_pylist()
    payload = [feature.column for feature in first[0].features]
    assert first[1].select(payload).equals(second[1].select(payload))


@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab")), min_size=1, max_size=12),
    extra=st.tuples(st.integers(0, 3), st.sampled_from("ab")),
    place=st.integers(0, 12),
)
@settings(max_examples=25, deadline=None)
def test_an_inserted_row_changes_no_other_identity(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str]], extra: tuple[int, str], place: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")

    def identities(content: list[tuple[int, str]]) -> set[str]:
        path = put(folder / "t.csv", "size,class\n" + "".join(f"{size},{label}\n" for size, label in content))
        return set(drain_table(path)[1]["sample_id"].to_pylist())

    before = identities(rows)
    after = identities([*rows[:place], extra, *rows[place:]])
    assert before < after
    assert len(after) == len(rows) + 1


def test_bad_rows_become_rejects_with_their_line(tmp_path: Path) -> None:
    numbers = "".join(f"{number},x,a\n" for number in range(300))
    text = 'size,note,class\n1,"two\nlines",a\n2,x\n3,x,b,7\n\n4,x,\n5,"x"y,b\nhuge,x,b\n7,x,b\n' + numbers
    _, table, rejects = drain_table(put(tmp_path / "t.csv", text))
    assert sorted((reject.source, reject.reason) for reject in rejects) == [
        ("t.csv:4", "ragged_row"),
        ("t.csv:5", "ragged_row"),
        ("t.csv:7", "target_missing"),
        ("t.csv:8", "malformed_row"),
        ("t.csv:9", "not_a_number"),
    ]
    messages = {reject.source: reject.message for reject in rejects}
    assert messages["t.csv:4"] == "2 cells, and the header has 3"
    assert messages["t.csv:9"] == "column 'size' holds 'huge', which is not a number"
    assert table.num_rows == 302


def test_a_target_that_should_be_a_number_and_is_not_is_rejected(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", "size,class\n1,0\n2,1.0\n3,yes\n4,inf\n5,1\n6,\n")
    dataset, table, rejects = drain_table(path, target_kind="number")
    assert dataset.classes == ("0", "1")
    assert table["label"].to_pylist() == ["0", "1", "1"]
    reasons = [(reject.source, reject.reason) for reject in rejects]
    assert reasons == [
        ("t.csv:4", "target_not_numeric"),
        ("t.csv:5", "target_not_numeric"),
        ("t.csv:7", "target_missing"),
    ]


def test_ids_must_be_there_and_unique_over_all_files(tmp_path: Path) -> None:
    put(tmp_path / "t" / "1.csv", "key,size,class\nk1,1,a\n,2,a\nk1,3,a\n")
    put(tmp_path / "t" / "2.csv", "key,size,class\nk2,1,b\nk1,2,b\n")
    _, table, rejects = drain_table(tmp_path / "t", id="key")
    assert table["source"].to_pylist() == ["k1", "k2"]
    assert [(reject.source, reject.reason) for reject in rejects] == [
        ("1.csv:3", "id_missing"),
        ("1.csv:4", "duplicate_id"),
        ("2.csv:3", "duplicate_id"),
    ]


def test_a_time_that_is_none_is_rejected(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", "when,size,class\n2024-01-31,1,a\nsoon,2,b\n,3,b\n")
    _, table, rejects = drain_table(path, time="when")
    assert [reject.reason for reject in rejects] == ["time_unreadable"]
    assert table["time"][1].as_py() is None


def test_declared_kinds_win_over_inferred_ones(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", "zip,size,class\n01234,1,a\n99999,big,b\n")
    dataset, table, rejects = drain_table(path, kinds={"zip": "category", "size": "number"})
    assert [feature.kind for feature in dataset.features] == ["category", "number"]
    assert table["feature:zip"].to_pylist() == ["01234"]
    assert [reject.reason for reject in rejects] == ["not_a_number"]


def test_files_of_a_folder_a_glob_a_store_and_gzip_read_alike(tmp_path: Path) -> None:
    put(tmp_path / "t" / "1.csv", CSV)
    put(tmp_path / "t" / "sub" / "2.csv", "class,colour,size\na,red,9\n")
    put(tmp_path / "t" / "README.md", "not rows")
    put(tmp_path / "t" / ".hidden.csv", "junk")
    expected = drain_table(tmp_path / "t")[1]
    assert expected.num_rows == 5
    assert expected["source"][4].as_py().startswith("sub/2.csv#")
    assert drain_table(tmp_path / "t" / "**" / "*.csv")[1].equals(expected)
    memory = fsspec.filesystem("memory")
    for name in ("1.csv", "sub/2.csv"):
        memory.pipe(f"/tables/{name}", gzip.compress((tmp_path / "t" / name).read_bytes()))
    assert drain_table("memory://tables")[1].equals(expected)
    assert drain_table("memory://tables/*.csv")[1].num_rows == 4


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_other_encodings_read_alike(tmp_path: Path, encoding: str) -> None:
    path = put(tmp_path / "t.csv", "größe,class\nklein,a\nüber,b\n", encoding=encoding)
    dataset, table, _ = drain_table(path, encoding="utf-8" if encoding == "utf-8-sig" else encoding)
    assert dataset.features[0].name == "größe"
    assert table["feature:größe"].to_pylist() == ["klein", "über"]


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("", {}, "is empty; a CSV file starts with a row of column names"),
        ("size,class\n", {}, "holds column names and no rows"),
        ("size,class,size\n1,a,2\n", {}, r"column names \['size'\] occur twice"),
        (
            "size;class\n1;a\n",
            {},
            r"no column 'class' \(target\); its columns are \['size;class'\]; is .*delimiter right",
        ),
        ("size,class\n1,a\n", {"group": "pid"}, r"no column 'pid' \(group\)"),
        ("size,class\n1,a\n", {"exclude": ["junk"]}, r"no column 'junk' \(exclude\)"),
        (",size,class\n0,1,a\n", {}, "column 1 has no name; name it, or list '' under exclude"),
        ("class\na\n", {}, "has no feature"),
        ('size,class\n1,"a\n2,b\n3,c\n', {}, "a quote opened in line 2 is not closed"),
    ],
)
def test_a_wrong_file_stops_the_run_and_says_why(
    tmp_path: Path, text: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        drain_table(put(tmp_path / "t.csv", text), **fields)


def test_a_wrong_encoding_names_itself_and_the_byte(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", "x,class\n" + f"{'1' * 97},a\n" * 20_000 + "é,b\n", encoding="latin-1")
    with pytest.raises(DataError, match=r"t\.csv: byte 2000008 \(0xe9\) is not utf-8; set ingest\.source\.encoding"):
        drain_table(path)


def test_an_index_column_without_a_name_can_be_excluded(tmp_path: Path) -> None:
    dataset, _, _ = drain_table(put(tmp_path / "t.csv", ",size,class\n0,1,a\n"), exclude=[""])
    assert [feature.name for feature in dataset.features] == ["size"]


def test_files_with_other_columns_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "t" / "1.csv", CSV)
    put(tmp_path / "t" / "2.csv", "size,shade,class\n1,red,a\n")
    with pytest.raises(DataError, match=r"2\.csv and 1\.csv differ in columns \['colour', 'shade'\]"):
        drain_table(tmp_path / "t")


def test_damaged_parquet_and_gzip_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no whole Parquet file"):
        drain_table(put(tmp_path / "t.parquet", "PAR1 not really"), format="parquet")
    (tmp_path / "t.csv").write_bytes(gzip.compress(CSV.encode())[:-12])
    with pytest.raises(DataError, match="damaged or truncated gzip file"):
        drain_table(tmp_path / "t.csv")


def test_columns_that_are_no_values_must_be_excluded(tmp_path: Path) -> None:
    pd.DataFrame({"points": [[1, 2]], "class": ["a"]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"column 'points' holds list<.*> values"):
        drain_table(tmp_path / "t.parquet", format="parquet")


def test_a_missing_table_says_where_paths_start(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; relative paths start at the workspace"):
        drain_table(tmp_path / "nowhere.csv")
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match=r"holds no file that ends with \.csv"):
        drain_table(tmp_path / "bare")


def test_a_table_that_changes_while_read_stops_the_run(tmp_path: Path) -> None:
    path = put(tmp_path / "t" / "1.csv", CSV)
    params = make_params({**TABLE_FIELDS, "path": str(path.parent)})
    with opened(params) as reading:
        put(tmp_path / "t" / "2.csv", CSV)
        with pytest.raises(DataError, match=r"1 of its files came, changed or went while it was read, first 2\.csv"):
            list(reading.batches)


def test_a_table_that_vanishes_or_gets_other_columns_stops_the_run(tmp_path: Path) -> None:
    path = put(tmp_path / "t.csv", CSV)
    params = make_params({**TABLE_FIELDS, "path": str(path)})
    with opened(params) as reading:
        put(path, "length,class\n1,a\n")
        with pytest.raises(DataError, match="changed or went while it was read"):
            list(reading.batches)
    put(path, CSV)
    with opened(params) as reading:
        path.unlink()
        with pytest.raises(DataError, match="does not exist"):
            list(reading.batches)


def write_parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, store_schema=False)
    return path


def test_a_column_of_nulls_in_one_file_has_the_type_of_the_others(tmp_path: Path) -> None:
    write_parquet(tmp_path / "t" / "1.parquet", colour=["red", "blue"], **{"class": ["a", "b"]})
    write_parquet(tmp_path / "t" / "2.parquet", colour=pa.nulls(1), **{"class": ["a"]})
    dataset, table, rejects = drain_table(tmp_path / "t", format="parquet")
    assert [(feature.name, feature.kind) for feature in dataset.features] == [("colour", "category")]
    assert (table["feature:colour"].to_pylist(), rejects) == (["red", "blue", None], [])


@pytest.mark.parametrize("is_swapped", [False, True])
def test_a_column_that_changes_its_type_between_files_is_refused_unless_its_kind_is_named(
    tmp_path: Path, is_swapped: bool
) -> None:
    texts, numbers = ("2", "1") if is_swapped else ("1", "2")
    write_parquet(tmp_path / "t" / f"{texts}.parquet", size=["7", "x"], **{"class": ["a", "b"]})
    write_parquet(tmp_path / "t" / f"{numbers}.parquet", size=[8, 9], **{"class": ["a", "b"]})
    with pytest.raises(DataError, match=r"2\.parquet: column 'size' is of type .* in a file before it; give all files"):
        drain_table(tmp_path / "t", format="parquet")
    _, table, rejects = drain_table(tmp_path / "t", format="parquet", kinds={"size": "number"})
    assert sorted(table["feature:size"].to_pylist()) == [7.0, 8.0, 9.0]
    assert [(reject.source, reject.reason) for reject in rejects] == [(f"{texts}.parquet:2", "not_a_number")]


@pytest.mark.parametrize(
    "role", [{}, {"time": "note"}, {"group": "note"}, {"id": "note"}, {"kinds": {"note": "number"}}]
)
def test_parquet_with_text_or_names_that_are_not_utf_8_is_refused(tmp_path: Path, role: dict[str, Any]) -> None:
    wrong = pa.array([b"fine", b"\xff\xfe"], pa.binary()).view(pa.string())
    path = write_parquet(tmp_path / "t.parquet", note=wrong, size=[1, 2], **{"class": ["a", "b"]})
    with pytest.raises(
        DataError, match=r"t\.parquet is no whole Parquet file: Invalid UTF8 sequence at string index 1;"
    ):
        drain_table(path, format="parquet", **role)
    path.write_bytes(write_parquet(path, note=[1], **{"class": ["a"]}).read_bytes().replace(b"note", b"n\xffte"))
    with pytest.raises(DataError, match=r"t\.parquet is no whole Parquet file: 'utf-8' codec can't decode byte 0xff"):
        drain_table(path, format="parquet")


def test_a_class_that_cannot_be_text_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", size=[1, 2], **{"class": [b"a", b"\xff"]})
    with pytest.raises(DataError, match="a column of binary cannot be read as text: Invalid UTF8 payload; convert it"):
        drain_table(path, format="parquet")


def test_a_time_outside_the_calendar_is_rejected_and_never_another(tmp_path: Path) -> None:
    when = pa.array([2**62, 0, -(2**62)], pa.timestamp("ms"))
    path = write_parquet(tmp_path / "t.parquet", when=when, size=[1, 2, 3], **{"class": ["a", "b", "a"]})
    _, table, rejects = drain_table(path, format="parquet", time="when")
    assert [str(time) for time in table["time"].to_pylist()] == ["1970-01-01 00:00:00+00:00"]
    message = "column 'when' holds '<value out of range: 4611686018427387904', which is not a time"
    assert [(reject.source, reject.reason) for reject in rejects] == [
        ("t.parquet:1", "time_unreadable"),
        ("t.parquet:3", "time_unreadable"),
    ]
    assert rejects[0].message == message
    write_parquet(path, when=pa.array([2**31 - 1, 1], pa.date32()), size=[1, 2], **{"class": ["a", "b"]})
    _, table, rejects = drain_table(path, format="parquet", time="when")
    assert [str(time) for time in table["time"].to_pylist()] == ["1970-01-02 00:00:00+00:00"]
    assert "holds '<value out of range: 2147483647>'" in rejects[0].message


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_of_very_many_columns_is_refused(tmp_path: Path, form: str) -> None:
    names = [f"c{number}" for number in range(10_001)]
    path = tmp_path / f"t.{form}"
    if form == "csv":
        put(path, ",".join(names))
    else:
        write_parquet(path, **{name: [1] for name in names})
    with pytest.raises(DataError, match=rf"t\.{form} has 10001 columns, more than 10000"):
        drain_table(path, format=form)


@pytest.mark.parametrize("row", [",", "x", '"a\nb",'])
@pytest.mark.parametrize("header", ["", "size,class\n1,a\n"])
def test_a_row_without_end_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str, row: str
) -> None:
    monkeypatch.setattr("datamill.sources.chunks.MAX_ROW", 1000)
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write(header + row * 1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"t\.csv\.gz has a row of more than 1000 characters; is it a CSV file\?"):
            drain_table(tmp_path / "t.csv.gz")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_large_cells_are_read_few_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "t.csv", CSV)
    whole = drain_table(path)[1].combine_chunks()
    monkeypatch.setattr("datamill.sources.chunks.BATCH_CHARACTERS", 8)  # each of the rows but one has as many
    with opened(make_params({**TABLE_FIELDS, "path": str(path)})) as reading:
        tables = [batch.table for batch in reading.batches if isinstance(batch, Batch)]
    assert [table.num_rows for table in tables] == [0, 1, 1, 2]
    assert pa.concat_tables(tables).combine_chunks().equals(whole)


def test_no_byte_mark_line_end_or_zero_is_taken_for_content(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfsize,class\r\n1,a\n2,b\r3,a\r\n\r\n4,b\0")
    _, table, rejects = drain_table(path)
    assert (table["feature:size"].to_pylist(), table["label"].to_pylist()) == ([1, 2, 3, 4], ["a", "b", "a", "b\0"])
    assert rejects == []


@pytest.mark.parametrize("encoding", ["hex", "rot13", "zlib", "nonsense"])
def test_an_encoding_that_is_none_of_text_is_refused(encoding: str) -> None:
    with pytest.raises(
        ValidationError, match=rf"encoding '{encoding}' is unknown, or not one of text; common ones are"
    ):
        make_params({**TABLE_FIELDS, "path": "t.csv", "encoding": encoding})


def test_a_codec_that_names_no_byte_is_told_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: byte 0 \(or one after it\) is not punycode; set"):
        drain_table(put(tmp_path / "t.csv", CSV), encoding="punycode")
