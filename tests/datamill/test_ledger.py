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
        ledger.check(path, population=["a", "b"], stage="clean")


def test_a_ledger_may_answer_in_another_order(tmp_path):
    ledger.check(write(tmp_path / "l.parquet", ["b", "a"], ["kept", "dropped"]), population=["a", "b"], stage="clean")


def test_incoming_joins_parts_and_ledgers(tmp_path):
    folder = write_parts(tmp_path / "samples", *tabular_table(num_samples=3))
    path = write(tmp_path / "l.parquet", ["a", "b"], ["kept", "dropped"])
    assert ledger.incoming([folder, path])[3:] == ["a"]


def test_an_unknown_fate_is_our_own_mistake(tmp_path):
    with pytest.raises(AssertionError):
        write(tmp_path / "l.parquet", ["a"], ["lost"])


def test_rejects_keep_source_reason_and_message(tmp_path):
    ledger.write_rejects(tmp_path / "r.parquet", [("a.png", "truncated", "ends early")])
    assert ledger.read(tmp_path / "r.parquet").to_pylist() == [
        {"source": "a.png", "reason": "truncated", "message": "ends early"}
    ]
