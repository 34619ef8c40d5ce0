"""Every kind of source as a feed of new items: packed files, databases, stores."""

import gzip
import sqlite3
import struct
from datetime import datetime, timedelta
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from datamill import config
from datamill.errors import DataError, ParamsError
from datamill.modalities import image
from datamill.monitoring.config import load_watch
from datamill.monitoring.feeds.queries import as_place, behind
from datamill.shards.exchange.webdataset import open_file
from datamill.sources.query import as_array
from tests.builders import image_table
from tests.watched import change_watch, drop_images, look, new_rows, rejects_of, sources_of


def give(root: Path, **data: object) -> None:
    """Another source in ``watch.yaml``."""
    path = root / "watch.yaml"
    sections = config.parse_yaml(path.read_text())
    sections["source"]["data"] = data
    path.write_text(yaml.safe_dump(sections, sort_keys=False))


def write_idx(path: Path, content: np.ndarray) -> None:
    """An IDX file of bytes."""
    head = bytes([0, 0, 8, content.ndim]) + struct.pack(f">{content.ndim}I", *content.shape)
    path.write_bytes(gzip.compress(head + content.astype(np.uint8).tobytes()))


def bars(count: int, *, seed: int = 1) -> tuple[np.ndarray, list[str]]:
    """Pixels and classes of the builders' images."""
    _, table = image_table(num_samples=count, seed=seed)
    return np.stack([image.decode(one["bytes"])[..., 0] for one in table["image"].to_pylist()]), table[
        "label"
    ].to_pylist()


def test_idx_files_are_read_with_the_labels_beside_them_or_without(images: Path) -> None:
    give(images, kind="idx", path="incoming", class_names=None)
    pixels, labels = bars(9)
    write_idx(images / "incoming/day1-images-idx3-ubyte.gz", pixels)
    write_idx(images / "incoming/day1-labels-idx1-ubyte.gz", np.array(labels, int))
    write_idx(images / "incoming/day2-images-idx3-ubyte.gz", bars(4, seed=2)[0])
    found = look(images)
    assert found.judged is not None
    assert found.judged.verdict.num_samples == 13
    assert sources_of(images)[0] == "day1-images-idx3-ubyte#0"
    table = (images / "reports/windows/000001/observations.parquet").read_bytes()
    assert look(images, minutes=1).judged is None
    assert pq.read_table(pa.BufferReader(table))["label"].to_pylist() == [*labels, *[""] * 4]


def test_a_truncated_idx_file_waits_and_then_is_one_reject(images: Path) -> None:
    give(images, kind="idx", path="incoming", class_names=None)
    write_idx(images / "incoming/a-images", bars(9)[0])
    content = gzip.decompress((images / "incoming/a-images").read_bytes())
    (images / "incoming/a-images").write_bytes(content[:-30])
    assert look(images).num_waiting == 1
    look(images, minutes=1)
    assert rejects_of(images) == [("a-images", "damaged_file")]


def test_a_tar_file_that_grows_gives_its_new_images_only(images: Path) -> None:
    give(images, kind="exchanged", format="webdataset", path="incoming", image=None, label=None, class_names=None)
    dataset, table = image_table(num_samples=8, seed=4)
    for count in (5, 8):
        with (images / "incoming/a.tar").open("wb") as stream:
            writer = open_file(stream, dataset=dataset)
            for row in table.slice(0, count).to_pylist():
                writer.write(row["sample_id"], row["image"]["bytes"], int(row["label"]))
            writer.close()
        look(images, minutes=count)
    assert len(sources_of(images)) == len(set(sources_of(images))) == 8
    assert rejects_of(images) == []


def test_an_object_stores_prefix_is_read_as_a_folder(images: Path) -> None:
    store = fsspec.filesystem("memory")
    give(images, kind="image_folder", path="memory://watched/incoming", labels="none")
    drop_images(images / "local", count=3)
    for file in sorted((images / "local").iterdir()):
        store.pipe(f"/watched/incoming/{file.name}", file.read_bytes())
    try:
        look(images)  # a store that tells nothing of contents: files must be found twice
        look(images, minutes=1)
        assert len(sources_of(images)) == 3
        assert look(images, minutes=2).judged is None
    finally:
        store.rm("/watched", recursive=True)


def insert(path: Path, rows: pa.Table, *, start: int, times: list[str] | None = None) -> None:
    """Rows in the table ``requests`` of a SQLite database, numbered from ``start``."""
    frame = rows.to_pandas()
    frame.insert(0, "number", range(start, start + len(frame)))
    frame.insert(1, "at", times or [f"2030-01-01 00:{start + place:02d}:00" for place in range(len(frame))])
    with sqlite3.connect(path) as connection:
        frame.to_sql("requests", connection, if_exists="append", index=False)
    connection.close()


def query(root: Path, **changes: object) -> None:
    """Watch the table ``requests`` of ``requests.db``."""
    data = {
        "kind": "query", "url": "sqlite:///requests.db", "query": "requests", "cursor": "number", "overlap": 0,
        "target": None, "target_kind": "category", "time": "at", "id": None, "exclude": [],
    }  # fmt: skip
    give(root, **(data | changes))


def test_a_table_of_a_database_is_read_on_from_its_cursor(tables: Path) -> None:
    query(tables)
    insert(tables / "requests.db", new_rows(count=6), start=0)
    look(tables)
    assert look(tables, minutes=1).judged is None
    insert(tables / "requests.db", new_rows(count=4, seed=9), start=6)
    found = look(tables, minutes=2)
    assert found.judged is not None
    assert found.judged.verdict.num_samples == 4
    assert len(set(sources_of(tables))) == 10
    times = pq.read_table(tables / "reports/windows/000001/observations.parquet")["time"].to_pylist()
    assert times[0].isoformat() == "2030-01-01T00:00:00+00:00"


def test_equal_rows_of_a_database_are_as_many_items(tables: Path) -> None:
    query(tables)
    same = new_rows(count=1)
    for start in range(4):
        insert(tables / "requests.db", same, start=start, times=["2030-01-01 00:00:00"])
    look(tables)
    assert len(sources_of(tables)) == 4


def test_rows_that_share_the_last_cursor_are_found_and_rows_that_come_late_within_the_overlap(tables: Path) -> None:
    query(tables, query="SELECT * FROM requests WHERE height IS NOT NULL", cursor="at", overlap=3600)
    insert(tables / "requests.db", new_rows(count=2), start=0, times=["2030-01-01 12:00:00", "2030-01-01 12:30:00"])
    look(tables)
    insert(tables / "requests.db", new_rows(count=1, seed=2), start=2, times=["2030-01-01 12:30:00"])
    insert(tables / "requests.db", new_rows(count=1, seed=3), start=3, times=["2030-01-01 11:45:00"])
    found = look(tables, minutes=1)
    assert found.judged is not None
    assert found.judged.verdict.num_samples == 2


def test_a_query_that_is_cut_by_the_windows_limit_goes_on_where_it_stopped(tables: Path) -> None:
    query(tables)
    change_watch(tables, source__max_items=4)
    insert(tables / "requests.db", new_rows(count=10), start=0)
    sizes = [getattr(look(tables, minutes=one).judged, "verdict", None) for one in range(4)]
    assert [None if one is None else one.num_samples for one in sizes] == [4, 4, 2, None]
    assert len(set(sources_of(tables))) == 10


def test_a_query_that_fails_advances_nothing_and_shows_no_password(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query(tables, query="nothing_there")
    with pytest.raises(DataError, match=r"the query of source\.data failed: no such table: nothing_there; correct it"):
        look(tables)
    query(tables, url="REQUESTS_URL")
    with pytest.raises(DataError, match="names the environment variable REQUESTS_URL, which is not set"):
        look(tables)
    monkeypatch.setenv("REQUESTS_URL", "nosuchdatabase://user:secret@host/db")
    with pytest.raises(DataError, match="is no address that works here") as caught:
        look(tables)
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("REQUESTS_URL", "sqlite:///requests.db")
    insert(tables / "requests.db", new_rows(count=3), start=0)
    query(tables, url="REQUESTS_URL")
    assert look(tables).judged is not None


def test_a_password_in_watch_yaml_is_refused_and_not_repeated(tables: Path) -> None:
    for password in ("secret", "sec/ret"):
        query(tables, url=f"postgresql://watch:{password}@db/requests")
        with pytest.raises(ParamsError, match=r"it holds a password; .* an environment variable") as caught:
            load_watch(tables)
        assert password not in str(caught.value)


def test_places_survive_as_json_and_go_back_by_the_overlap() -> None:
    assert behind(as_place(10), overlap=3) == 7
    assert behind(as_place(10), overlap=0) == 10
    noon = datetime(2030, 1, 1, 12)
    assert behind(as_place(noon), overlap=60) == noon - timedelta(minutes=1)
    assert behind(as_place("2030-01-01 12:00:00"), overlap=60) == "2030-01-01 11:59:00"
    assert behind(as_place("row-0007"), overlap=60) == "row-0007"


@given(
    st.lists(
        st.one_of(st.none(), st.integers(-5, 5), st.text(max_size=3), st.booleans(), st.decimals(-9, 9)), max_size=8
    )
)
def test_any_mixture_of_a_databases_values_becomes_a_column(values: list[object]) -> None:
    column = as_array(values)
    assert len(column) == len(values)
    assert column.null_count >= sum(value is None for value in values)
