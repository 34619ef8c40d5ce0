"""The way of the samples."""

from pathlib import Path

from datamill import ledger
from datamill.reporting.funnel import ledger_steps


def write(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    """A ledger of (id, fate, reason)."""
    ids, fates, reasons = zip(*rows, strict=True)
    ledger.write(path, sample_ids=ids, fates=fates, reasons=reasons, details=[""] * len(rows))
    return path


def test_every_stage_tells_what_went_on_what_was_lost_and_what_is_new(tmp_path: Path) -> None:
    first = write(tmp_path / "1", [("a", "kept", ""), ("b", "dropped", "copy"), ("c", "kept", "odd")])
    second = write(
        tmp_path / "2", [("a", "kept", ""), ("c", "quarantined", "bad"), ("n", "kept", ""), ("m", "dropped", "")]
    )
    one, two = ledger_steps({"clean": first, "balance": second})
    assert (one.survived, one.lost, one.added) == (2, 1, 0)
    assert one.losses == {("dropped", "copy"): 1}
    assert one.remarks == {("kept", "odd"): 1}
    assert (two.survived, two.lost, two.added) == (2, 2, 2)
