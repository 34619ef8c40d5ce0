import pyarrow as pa
import pytest

from datamill import ledger
from datamill.errors import StageError
from tests.builders import tabular_table, write_parts


def write(path, ids, fates):
    reasons = ["" if fate == "kept" else "because" for fate in fates]
    ledger.write(path, sample_ids=ids, fates=fates, reasons=reasons, details=[""] * len(ids))
    return path


def test_counts_add_up_by_fate_and_reason(tmp_path):
    path = write(tmp_path / "l.parquet", ["a", "b", "c"], ["kept", "dropped", "repaired"])
    assert ledger.count(path) == {
        "in": 3, "kept": 1, "repaired": 1, "dropped": 1, "quarantined": 0, "reasons": {"because": 2},
    }  # fmt: skip


def test_survivors_are_the_kept_and_the_repaired_in_order(tmp_path):
    assert ledger.survivors(write(tmp_path / "l.parquet", ["c", "b", "a"], ["kept", "dropped", "repaired"])) == [
        "c",
        "a",
    ]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a"], r"without a fate: 1 \(b\)"),
        (["a", "b", "b"], r"with a fate too many: 1 \(b\)"),
        (["a", "b", "x"], r"with a fate too many: 1 \(x\)"),
    ],
)
def test_a_ledger_that_does_not_add_up_is_refused(tmp_path, ids, message):
    path = write(tmp_path / "l.parquet", ids, ["kept"] * len(ids))
    with pytest.raises(StageError, match=message):
        ledger.check(path, population=[pa.array(["a"]), pa.array(["b"])], stage="clean")


def test_a_ledger_that_answers_in_another_order_is_refused(tmp_path):
    path = write(tmp_path / "l.parquet", ["b", "a"], ["kept", "dropped"])
    with pytest.raises(StageError, match="not in sample order"):
        ledger.check(path, population=[pa.array(["a", "b"])], stage="clean")


@pytest.mark.parametrize("sizes", [[5], [1, 0, 4], [2, 3]])
def test_a_ledger_adds_up_however_the_population_is_batched(tmp_path, sizes):
    ids = list("abcde")
    path = write(tmp_path / "l.parquet", ids, ["kept"] * 5)
    rest = iter(ids)
    batches = [pa.array([next(rest) for _ in range(size)], pa.string()) for size in sizes]
    ledger.check(path, population=batches, stage="clean")


def test_the_bytes_of_a_ledger_do_not_depend_on_how_it_was_batched(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "READ_ROWS", 4)
    ids = [f"{number:032x}" for number in range(10)]
    for name, step in (("a", 10), ("b", 3), ("c", 1)):
        with ledger.Writer(tmp_path / name) as writer:
            for start in range(0, 10, step):
                writer.write(sample_ids=ids[start : start + step])
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1
    assert ledger.survivors(tmp_path / "a") == ids


def test_incoming_joins_parts_and_ledgers(tmp_path):
    folder = write_parts(tmp_path / "samples", *tabular_table(num_samples=3))
    path = write(tmp_path / "l.parquet", ["a", "b"], ["kept", "dropped"])
    assert [key for ids in ledger.incoming([folder, path]) for key in ids.to_pylist()][3:] == ["a"]


def test_an_unknown_fate_is_our_own_mistake(tmp_path):
    with pytest.raises(AssertionError):
        write(tmp_path / "l.parquet", ["a"], ["lost"])


def test_rejects_keep_source_reason_and_message(tmp_path):
    ledger.write_rejects(tmp_path / "r.parquet", [("a.png", "truncated", "ends early")])
    assert ledger.read(tmp_path / "r.parquet").to_pylist() == [
        {"source": "a.png", "reason": "truncated", "message": "ends early"}
    ]


def test_columns_that_were_read_as_dictionaries_are_written_as_text(tmp_path):
    ledger.write(
        tmp_path / "first.parquet",
        sample_ids=["a", "b", "c"],
        fates=["kept", "dropped", "kept"],
        reasons="",
        details="",
        extra={"split": pa.array(["train", "test", "train"])},
    )
    read = pa.concat_tables(ledger.iter_survivors(tmp_path / "first.parquet", columns=["sample_id", "split"]))
    with ledger.Writer(tmp_path / "second.parquet") as writer:
        writer.write(sample_ids=read["sample_id"], extra={"split": read["split"]})
    assert pa.types.is_dictionary(read["split"].type)
    written = ledger.read(tmp_path / "second.parquet", columns=["sample_id", "split"])
    assert written["split"].type == pa.string()
    assert written.to_pydict() == {"sample_id": ["a", "c"], "split": ["train", "train"]}
