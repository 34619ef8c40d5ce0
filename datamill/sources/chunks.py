"""CSV and Parquet files as chunks of columns, with the place of every row in its file."""

import codecs
import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Literal, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from datamill.errors import DataError
from datamill.sources.batches import BATCH_ROWS, Reject
from datamill.sources.columns import cells
from datamill.sources.listing import StoredFile
from datamill.sources.stores import Store, inflated

MAX_CELL = 2**20  # characters; a longer cell is most likely a quote that was never closed
MAX_ROW = 2**24  # characters
MAX_COLUMNS = 10_000
BATCH_CHARACTERS = 2**25  # of a file of text that make a chunk, however few rows they are; bounds memory, not results
DECODE_BYTES = 2**20


class Written(Protocol):
    """How the files of a table are written."""

    @property
    def format(self) -> Literal["csv", "parquet"]:
        """Which format; Parquet ignores the rest."""

    @property
    def delimiter(self) -> str:
        """What separates the cells of a row."""

    @property
    def encoding(self) -> str:
        """How characters are written."""


@dataclass(frozen=True)
class Chunk:
    """Rows of one file: its columns by name, where each row is, and the rows that are none.

    Attributes:
        columns: Strings for CSV, the declared types for Parquet.
        places: ``<file>:<line>`` of each row (CSV, where it starts) or ``<file>:<row>`` (Parquet), counted from 1.
        rejects: Rows that do not fit the header.
    """

    columns: dict[str, pa.Array]
    places: list[str]
    rejects: list[Reject]


class _Line(NamedTuple):
    """A row of a CSV file, the number of the line it starts in, and how many characters it takes."""

    number: int
    cells: list[str]
    size: int


class _Lines(Iterator[str]):
    """Lines of a file, of which those of one row must not be longer than rows may be.

    Attributes:
        num_characters: Read since it was last set.
    """

    def __init__(self, text: io.TextIOWrapper, *, name: str) -> None:
        """Lines of ``text``, which messages call ``name``."""
        self._text = text
        self._name = name
        self.num_characters = 0

    def __next__(self) -> str:
        line = self._text.readline(MAX_ROW)
        self.num_characters += len(line)
        if self.num_characters >= MAX_ROW:
            raise DataError(f"{self._name} has a row of more than {MAX_ROW} characters; is it a CSV file?")
        if not line:
            raise StopIteration
        return line


def read_chunks(store: Store, file: StoredFile, *, source: Written) -> Iterator[Chunk]:
    """The rows of a file in order, at most ``BATCH_ROWS`` at a time; an empty chunk if it has only a header.

    Raises:
        DataError: The file is gone, empty, damaged or in another encoding, or its column names are not unique.
    """
    with store.reading(file) as raw:
        if source.format == "parquet":
            yield from _parquet_chunks(raw, name=file.key)
            return
        try:
            yield from _csv_chunks(inflated(raw), name=file.key, delimiter=source.delimiter, encoding=source.encoding)
        except (UnicodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise _damage(error, store=store, file=file, encoding=source.encoding) from error


def _csv_chunks(stream: IO[bytes], *, name: str, delimiter: str, encoding: str) -> Iterator[Chunk]:
    csv.field_size_limit(MAX_CELL)
    with io.TextIOWrapper(stream, encoding=_with_bom(encoding), newline="") as text:
        rows = _rows(text, name=name, delimiter=delimiter)
        names = _column_names(next(rows, None), name=name)
        yield _csv_chunk([], names=names, name=name)
        for piece in _pieces(rows):
            yield _csv_chunk(piece, names=names, name=name)


def _pieces(rows: Iterator[_Line | Reject]) -> Iterator[list[_Line | Reject]]:
    """Runs of at most ``BATCH_ROWS`` rows, about ``BATCH_CHARACTERS``."""
    piece: list[_Line | Reject] = []
    size = 0
    for row in rows:
        piece.append(row)
        size += 0 if isinstance(row, Reject) else row.size
        if len(piece) == BATCH_ROWS or size >= BATCH_CHARACTERS:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _column_names(header: _Line | Reject | None, *, name: str) -> list[str]:
    if header is None:
        raise DataError(f"{name} is empty; a CSV file starts with a row of column names")
    if isinstance(header, Reject):
        raise DataError(f"{name}: the row of column names is {header.message}; correct it")
    names = [column.strip() for column in header.cells]
    _require_names(names, name=name)
    return names


def _rows(text: io.TextIOWrapper, *, name: str, delimiter: str) -> Iterator[_Line | Reject]:
    """Number of its first line and cells of each row that is not blank; a row with misplaced quotes is a reject."""
    lines = _Lines(text, name=name)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        lines.num_characters = 0
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # A quote that is never closed swallows rows without a trace, so it cannot be counted as one bad row.
            if reader.line_num > line or "end of data" in str(error):
                raise DataError(
                    f"{name}: a quote opened in line {line} is not closed ({error}); correct that line"
                ) from error
            yield Reject(f"{name}:{line}", "malformed_row", f"not CSV: {error}")
            continue
        if row:
            yield _Line(line, row, lines.num_characters)


def _csv_chunk(rows: Sequence[_Line | Reject], *, names: Sequence[str], name: str) -> Chunk:
    good = [row for row in rows if isinstance(row, _Line) and len(row.cells) == len(names)]
    columns = zip(*(row.cells for row in good), strict=True) if good else [()] * len(names)
    return Chunk(
        columns={column: cells(texts) for column, texts in zip(names, columns, strict=True)},
        places=[f"{name}:{row.number}" for row in good],
        rejects=[
            row if isinstance(row, Reject) else _ragged(row, num_columns=len(names), name=name)
            for row in rows
            if isinstance(row, Reject) or len(row.cells) != len(names)
        ],
    )


def _ragged(row: _Line, *, num_columns: int, name: str) -> Reject:
    return Reject(f"{name}:{row.number}", "ragged_row", f"{len(row.cells)} cells, and the header has {num_columns}")


def _parquet_chunks(stream: IO[bytes], *, name: str) -> Iterator[Chunk]:
    try:
        file = pq.ParquetFile(stream)
        _require_names(file.schema_arrow.names, name=name)
        yield _parquet_chunk(pa.RecordBatch.from_pylist([], schema=file.schema_arrow), start=0, name=name)
        start = 0
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            yield _parquet_chunk(batch, start=start, name=name)
            start += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name} is no whole Parquet file: {' '.join(str(error).split())}; write it again") from error


def _parquet_chunk(batch: pa.RecordBatch, *, start: int, name: str) -> Chunk:
    return Chunk(
        columns={column: _plain(batch.column(place)) for place, column in enumerate(batch.schema.names)},
        places=[f"{name}:{start + row + 1}" for row in range(batch.num_rows)],
        rejects=[],
    )


def _plain(column: pa.Array) -> pa.Array:
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    plain.validate(full=True)  # text need not be text in a foreign file
    return plain


def _require_names(names: Sequence[str], *, name: str) -> None:
    if len(names) > MAX_COLUMNS:
        raise DataError(
            f"{name} has {len(names)} columns, more than {MAX_COLUMNS}; divide it, or join columns to lists"
        )
    twice = sorted(column for column, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(f"{name}: column names {twice} occur twice; give every column a name of its own")


def _with_bom(encoding: str) -> str:
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def _damage(error: Exception, *, store: Store, file: StoredFile, encoding: str) -> DataError:
    if not isinstance(error, UnicodeError):
        return DataError(f"{file.key} is a damaged or truncated gzip file: {error}; get the file again")
    with store.reading(file) as raw:
        position, found = _undecodable(inflated(raw), encoding=encoding)
    return DataError(
        f"{file.key}: byte {position} ({found}) is not {encoding}; set ingest.source.encoding to the file's own"
    )


def _undecodable(stream: IO[bytes], *, encoding: str) -> tuple[int, str]:
    """Offset and hexadecimal value of the first byte that ``encoding`` cannot read."""
    decoder = codecs.getincrementaldecoder(encoding)()
    num_read = 0
    while content := stream.read(DECODE_BYTES):
        num_read += len(content)
        try:
            decoder.decode(content)
        except UnicodeDecodeError as error:
            return num_read - len(error.object) + error.start, f"0x{error.object[error.start]:02x}"
        except UnicodeError:  # of codecs that name no place
            return num_read - len(content), "or one after it"
    return num_read, "the end"
