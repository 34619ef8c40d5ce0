"""What happened to every sample at a stage, and why: one Parquet file, one row per sample, in sample order."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datamill import parts
from datamill.errors import StageError

Fate = Literal["kept", "repaired", "dropped", "quarantined"]
FATES: tuple[Fate, ...] = get_args(Fate)
SURVIVING = ("kept", "repaired")

FIELDS = (
    pa.field("sample_id", pa.string(), nullable=False),
    pa.field("fate", pa.string(), nullable=False),
    pa.field(
        "reason", pa.string(), nullable=False
    ),  # "" where nothing happened; else a short code, e.g. near_duplicate
    pa.field("detail", pa.string(), nullable=False),  # "" or the particulars, e.g. the sample it duplicates
)

REJECT_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),  # key of the item: relative path, or file and row
        pa.field("reason", pa.string(), nullable=False),  # short code, e.g. truncated
        pa.field("message", pa.string(), nullable=False),  # one sentence: what was wrong, with which value
    ]
)


def write(
    path: Path,
    *,
    sample_ids: Sequence[str] | pa.ChunkedArray | pa.Array,
    fates: Sequence[str],
    reasons: Sequence[str],
    details: Sequence[str],
    extra: Mapping[str, pa.Array] | None = None,
) -> None:
    """Write a ledger; ``extra`` holds the stage's own columns (split, weight, quality), in order."""
    columns = dict(zip([field.name for field in FIELDS], (sample_ids, fates, reasons, details), strict=True))
    table = pa.table(columns, schema=pa.schema(FIELDS))
    for name, values in (extra or {}).items():
        table = table.append_column(name, values)
    unknown = set(pc.unique(table["fate"]).to_pylist()) - set(FATES)
    assert not unknown, f"fates {unknown} are not in {FATES}"
    parts.write_parquet(table, path)


def read(path: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    """A ledger, or some of its columns."""
    return pq.read_table(path, columns=list(columns) if columns is not None else None)


def survivors(path: Path) -> list[str]:
    """Ids of the samples that were kept or repaired, in order."""
    table = read(path, columns=["sample_id", "fate"])
    ids: list[str] = table.filter(pc.is_in(table["fate"], pa.array(SURVIVING)))["sample_id"].to_pylist()
    return ids


def count(path: Path) -> dict[str, Any]:
    """Samples by fate, and by reason where something happened: ``{"in": 10, "kept": 9, ..., "reasons": {...}}``."""
    table = read(path, columns=["fate", "reason"])
    fates = Counter(table["fate"].to_pylist())
    reasons = Counter(reason for reason in table["reason"].to_pylist() if reason)
    return {
        "in": table.num_rows,
        **{fate: fates.get(fate, 0) for fate in FATES},
        "reasons": dict(sorted(reasons.items())),
    }


def write_rejects(path: Path, rejects: Iterable[tuple[str, str, str]]) -> None:
    """Write what could not become a sample: (source, reason, message) each."""
    rows = list(rejects)
    columns = [[row[index] for row in rows] for index in range(len(REJECT_SCHEMA))]
    parts.write_parquet(pa.table(columns, schema=REJECT_SCHEMA), path)


def incoming(paths: Iterable[Path]) -> list[str]:
    """Ids that come into a stage: all samples of each parts folder, the survivors of each ledger."""
    ids: list[str] = []
    for path in paths:
        ids += (
            parts.read_table(path, columns=["sample_id"])["sample_id"].to_pylist() if path.is_dir() else survivors(path)
        )
    return ids


def check(path: Path, *, population: Sequence[str], stage: str) -> None:
    """Refuse a ledger that does not say exactly one thing about every sample that came in.

    Raises:
        StageError: A sample came in and has no fate, has two, or has one without having come in.
    """
    table = read(path, columns=["sample_id", "fate"])
    answered = Counter(table["sample_id"].to_pylist())
    expected = Counter(population)
    lost = expected - answered
    invented = answered - expected
    if lost or invented:
        raise StageError(
            f"{stage}: {len(population)} samples came in and the ledger answers for {table.num_rows}; "
            f"without a fate: {_some(lost)}; with a fate too many: {_some(invented)}"
        )


def _some(ids: Counter[str]) -> str:
    names = sorted(ids)
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else "none"
