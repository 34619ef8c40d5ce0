"""What happened to every sample at a stage, and why: one Parquet file, one row per sample, in sample order.

Because every ledger keeps the order of the samples, ledgers and parts are joined and compared as streams: memory does
not grow with the number of samples.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, get_args

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


READ_ROWS = 16 * parts.READ_ROWS  # light rows decoded at a time; bounds memory, not results
FEW_ROWS = 4 * parts.READ_ROWS  # of ledgers that are read beside others
ALIKE = frozenset({"fate", "reason", "split", "label", "suggestion"})  # few values; dictionaries are faster by a third

Strings: TypeAlias = Sequence[str] | Any  # a list, or an Arrow array, of text


class Writer:
    """Streams decisions into a ledger; leaving the block without an error puts the file in its place."""

    def __init__(self, path: Path) -> None:
        """Start the ledger ``path``."""
        self._stream = parts.RowGroups(path, rows=READ_ROWS)

    def write(
        self,
        *,
        sample_ids: Strings,
        fates: Strings | str = "kept",
        reasons: Strings | str = "",
        details: Strings | str = "",
        extra: Mapping[str, pa.Array | pa.ChunkedArray] | None = None,
    ) -> None:
        """Append decisions; a single text holds for all of them.

        Args:
            sample_ids: Samples in sample order.
            fates: Fate of each.
            reasons: Short code, "" where nothing happened.
            details: Particulars, or "".
            extra: The stage's own columns (split, weight, quality), in the same order at every call; dictionaries as
                ``iter_tables`` gives them become text again.
        """
        count = len(sample_ids)
        columns = [sample_ids, *(_repeated(one, count=count) for one in (fates, reasons, details))]
        table = pa.table(dict(zip([field.name for field in FIELDS], columns, strict=True)), schema=pa.schema(FIELDS))
        for name, values in (extra or {}).items():
            table = table.append_column(name, values)
        table = as_text(table)
        unknown = set(pc.unique(table["fate"]).to_pylist()) - set(FATES)
        assert not unknown, f"fates {unknown} are not in {FATES}"
        self._stream.write(table)

    def __enter__(self) -> Self:
        """Start writing."""
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Finish the file, unless an error is on its way."""
        self._stream.__exit__(error, value, tb)


def write(
    path: Path,
    *,
    sample_ids: Strings,
    fates: Strings | str,
    reasons: Strings | str,
    details: Strings | str,
    extra: Mapping[str, pa.Array | pa.ChunkedArray] | None = None,
) -> None:
    """Write a ledger at once; see ``Writer``."""
    with Writer(path) as writer:
        writer.write(sample_ids=sample_ids, fates=fates, reasons=reasons, details=details, extra=extra)


def read(path: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    """A ledger, or some of its columns, at once: for small ones, and for numbers that everything must be held of."""
    return pq.read_table(path, columns=list(columns) if columns is not None else None)


def iter_tables(path: Path, *, columns: Sequence[str] | None = None, rows: int = READ_ROWS) -> Iterator[pa.Table]:
    """A ledger, or some of its columns, at most ``rows`` rows at a time; at least one table, which may be empty.

    Columns of few values (``ALIKE``) come as dictionaries.
    """
    alike = [name for name in pq.read_metadata(path).schema.names if name in ALIKE]
    with pq.ParquetFile(path, pre_buffer=False, read_dictionary=alike) as file:  # buffered, all of it is in memory
        names = list(columns) if columns is not None else file.schema_arrow.names
        yield pa.schema([file.schema_arrow.field(name) for name in names]).empty_table()
        for batch in file.iter_batches(rows, columns=names, use_threads=False):  # each thread keeps memory of its own
            yield pa.Table.from_batches([batch])


def as_text(table: pa.Table) -> pa.Table:
    """The same rows, dictionaries as the text they stand for."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table[field.name].cast(field.type.value_type))
    return table


def is_surviving(table: pa.Table) -> pa.ChunkedArray:
    """Which rows of a ledger are still samples."""
    return pc.is_in(table["fate"], pa.array(SURVIVING))


def chosen(table: pa.Table, where: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Rows of a table; where they are all of them, nothing is copied."""
    return table if pc.all(where).as_py() else table.filter(where)


def survivors(path: Path) -> list[str]:
    """Ids of the samples that were kept or repaired, in order, as a list: for small data."""
    return [key for table in iter_survivors(path) for key in table["sample_id"].to_pylist()]


def iter_survivors(path: Path, *, columns: Sequence[str] = ("sample_id",)) -> Iterator[pa.Table]:
    """Some columns of the samples that were kept or repaired, in order."""
    for table in iter_tables(path, columns=[*dict.fromkeys([*columns, "fate"])], rows=FEW_ROWS):
        yield chosen(table, is_surviving(table)).select(list(columns))


def count(path: Path) -> dict[str, Any]:
    """Samples by fate, and by reason where something happened: ``{"in": 10, "kept": 9, ..., "reasons": {...}}``."""
    fates: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for table in iter_tables(path, columns=["fate", "reason"]):
        fates.update(count_values(table["fate"]))
        reasons.update(count_values(table["reason"]))
    reasons.pop("", None)
    return {
        "in": fates.total(),
        **{fate: fates.get(fate, 0) for fate in FATES},
        "reasons": dict(sorted(reasons.items())),
    }


def count_values(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs."""
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(column).to_pylist()}


def write_rejects(path: Path, rejects: Iterable[tuple[str, str, str]]) -> None:
    """Write what could not become a sample: (source, reason, message) each."""
    rows = iter(rejects)
    with parts.RowGroups(path) as stream:
        stream.write(reject_table([]))
        while some := list(itertools.islice(rows, READ_ROWS)):
            stream.write(reject_table(some))


def reject_table(rejects: Sequence[tuple[str, str, str]]) -> pa.Table:
    """Rejects as a table."""
    columns = [[reject[place] for reject in rejects] for place in range(len(REJECT_SCHEMA))]
    return pa.table(columns, schema=REJECT_SCHEMA)


def incoming(paths: Iterable[Path]) -> Iterator[pa.Array]:
    """Ids that come into a stage, in order: all samples of each parts folder, the survivors of each ledger."""
    for path in paths:
        tables = parts.iter_tables(path, columns=["sample_id"]) if path.is_dir() else iter_survivors(path)
        for table in tables:
            yield table["sample_id"].combine_chunks()


def check(path: Path, *, population: Iterable[pa.Array], stage: str) -> None:
    """Refuse a ledger that does not say exactly one thing about every sample that came in, in sample order.

    Args:
        path: The ledger.
        population: Ids that came in, in order; read once.
        stage: Whose ledger it is.

    Raises:
        StageError: A sample came in and has no fate, has two, or one has a fate without having come in; or the order
            is another one.
    """
    expected = iter(population)
    tables = iter_tables(path, columns=["sample_id"], rows=FEW_ROWS)
    found = (table["sample_id"].combine_chunks() for table in tables)
    came_in, answered = _NOBODY, _NOBODY
    matched = 0
    while came_in is not None or answered is not None:
        came_in, answered = _more(came_in, expected), _more(answered, found)
        if came_in is None or answered is None:
            break
        length = min(len(came_in), len(answered))
        if not came_in.slice(0, length).equals(answered.slice(0, length)):
            break
        came_in, answered = came_in.slice(length), answered.slice(length)
        matched += length
    left = [
        pa.concat_arrays([one if one is not None else _NOBODY, *rest])
        for one, rest in ((came_in, expected), (answered, found))
    ]
    if len(left[0]) or len(left[1]):
        raise StageError(
            f"{stage}: {matched + len(left[0])} samples came in and the ledger answers for {matched + len(left[1])}; "
            f"{_difference(*left)}"
        )


_NOBODY = pa.array([], pa.string())


def _more(ids: pa.Array | None, rest: Iterator[pa.Array]) -> pa.Array | None:
    """``ids`` if any is left, else the next that has some; ``None`` at the end."""
    return ids if ids is not None and len(ids) else next((some for some in rest if len(some)), None)


def _difference(came_in: pa.Array, answered: pa.Array) -> str:
    expected, found = Counter(came_in.to_pylist()), Counter(answered.to_pylist())
    if expected == found:
        return "the same ones, but not in sample order"
    lost, invented = expected - found, found - expected
    return f"without a fate: {_some(lost)}; with a fate too many: {_some(invented)}"


def _repeated(values: Strings | str, *, count: int) -> Strings:
    return pa.repeat(values, count) if isinstance(values, str) else values


def _some(ids: Counter[str]) -> str:
    names = sorted(ids)
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else "none"
