"""Samples made by the pipeline: their identity, their parents, and which training samples they are made from."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamill import derived, ledger, parts
from tests.builders import image_table, tabular_table, write_parts


def audited(folder: Path, table: pa.Table) -> Path:
    """Every third sample is not in train, every fifth was dropped."""
    count = table.num_rows
    ledger.write(
        folder / "audited.parquet",
        sample_ids=table["sample_id"],
        fates=["kept" if row % 5 else "dropped" for row in range(count)],
        reasons="",
        details="",
        extra={"split": pa.array(["train" if row % 3 else "test" for row in range(count)]), "label": table["label"]},
    )
    return folder / "audited.parquet"


def test_only_surviving_training_samples_are_chosen_and_counted(tmp_path: Path) -> None:
    _, table = image_table(num_samples=60)
    chosen = derived.choose_by_class(audited(tmp_path, table), classes=("0", "1", "2", "3"), size=100, key="k")
    ids = table["sample_id"].to_pylist()
    for label, its in chosen.items():
        rows = [row for row in range(60) if row % 3 and row % 5 and str(row % 3) == label]
        assert set(its.ids) == {ids[row] for row in rows}
        assert its.size == len(its.ids)


def test_no_more_than_asked_for_are_chosen_and_all_are_counted(tmp_path: Path) -> None:
    _, table = image_table(num_samples=60)
    path = audited(tmp_path, table)
    some, all_of_them = (
        derived.choose_by_class(path, classes=("0", "1", "2"), size=size, key="k")["1"] for size in (3, 100)
    )
    assert (some.size, some.ids) == (16, all_of_them.ids[:3])


def test_chosen_samples_are_read_with_repairs_in_the_asked_order(tmp_path: Path) -> None:
    dataset, table = tabular_table(num_samples=20)
    repaired = table.slice(4, 2).set_column(
        table.column_names.index("feature:height"), "feature:height", pa.array([77.0, 78.0])
    )
    write_parts(tmp_path / "samples", dataset, table)
    write_parts(tmp_path / "repairs", dataset, repaired)
    wanted = [table["sample_id"][row].as_py() for row in (9, 5, 2)]
    read = derived.read_in_order(tmp_path / "samples", wanted=wanted, repairs=tmp_path / "repairs")
    assert read["sample_id"].to_pylist() == wanted
    assert read["feature:height"][1].as_py() == 78.0
    assert read["feature:height"][2] == table["feature:height"][2]
    assert derived.read_in_order(tmp_path / "samples", wanted=[], repairs=tmp_path / "repairs").num_rows == 0


def test_row_groups_without_a_chosen_sample_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, table = tabular_table(num_samples=40)
    monkeypatch.setattr(parts.parquet, "READ_ROWS", 10)
    write_parts(tmp_path / "samples", dataset, table)
    write_parts(tmp_path / "repairs", dataset, table.slice(0, 0))
    read: list[int] = []
    original = pq.ParquetFile.read_row_group

    def counted(file: pq.ParquetFile, group: int, **options: object) -> pa.Table:
        read.append(group)
        return original(file, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    wanted = [table["sample_id"][row].as_py() for row in (12, 19, 35)]
    tables = derived.iter_chosen(tmp_path / "samples", wanted=wanted, repairs=tmp_path / "repairs")
    assert [key for some in tables for key in some["sample_id"].to_pylist()] == wanted
    assert read == [1, 3]


def test_equal_payloads_share_a_content_hash() -> None:
    rows = {"feature:x": pa.array([1.0, 1.0, None]), "feature:c": pa.array(["a", "a", "a"])}
    first, second, third = derived.payload_hashes(rows)
    assert first == second != third
