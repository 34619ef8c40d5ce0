"""Rows of Parquet files from anywhere, some at a time: which columns matter, how rows are named, what is refused."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datamill.errors import DataError
from datamill.shards.exchange.records import Wanted

READ_ROWS, MAX_READ_ROWS = 64, 8_192  # rows decoded at a time: more where rows are small
READ_BYTES = 2**23  # of a row group, by its own account, that MAX_READ_ROWS may be
DECODED_BYTES = 2**28  # that rows decoded at a time may take if each repeats the longest value of a dictionary
LENGTH_BYTES = 4  # before each value of a dictionary
LABEL_ROWS = 65_536
BUFFER_BYTES = 2**20
MAX_PATH_BYTES = 1024
MAX_GROUP_BYTES = 2**31  # unpacked; a larger row group is refused before it is read
LIKE_A_NUMBER = r"^[0-9]+(#|$)"  # of paths that could be taken for the number of a row
METADATA = b"huggingface"
IMAGES = ("image", "img")
LABELS = ("label", "labels")
ROW = "x"
SAMPLE_ID = "sample_id"


class Names(NamedTuple):
    """Of the columns that hold the payload and its class."""

    payload: str
    label: str


class Batch(NamedTuple):
    """Rows that follow one another.

    Attributes:
        places: File and row, text of shape ``(N,)``.
        cells: Columns by name, the payload only where it is wanted.
        names: Which of them hold what.
        shape: Of a row of numbers, as the file says it; it may be anything.
    """

    places: pa.Array
    cells: Mapping[str, pa.Array]
    names: Names
    shape: Any


def iter_batches(stream: IO[bytes], *, name: str, wanted: Wanted) -> Iterator[Batch]:
    """Every row, some at a time.

    Raises:
        DataError: The file is damaged or cut, a page does not match its checksum, or columns are missing.
    """
    with opened(stream, name=name) as file:
        names = find_names(file.schema_arrow, name=name, wanted=wanted)
        _check_groups(file, name=name)
        shape = features(file.schema_arrow).get(names.payload, {}).get("shape")
        read = [names.payload] if wanted.payloads else []
        read += [names.label, *([SAMPLE_ID] if SAMPLE_ID in file.schema_arrow.names else [])]
        places = _Places(name)
        rows = _batch_rows(file, stream=stream, payload=names.payload) if wanted.payloads else LABEL_ROWS
        for batch in file.iter_batches(batch_size=rows, columns=read, use_threads=False):
            plain = [_plain(column) for column in batch.columns]
            where = places.of(plain[0] if wanted.payloads else None, count=batch.num_rows)
            yield Batch(where, dict(zip(read, plain, strict=True)), names, shape)


def _batch_rows(file: pq.ParquetFile, *, stream: IO[bytes], payload: str) -> int:
    """Rows that fit into memory together, whatever the file does; a row that repeats a value takes next to none in it.

    Where a dictionary is so large that it matters which of its values is repeated, it is looked at.
    """
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    row_bytes = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    rows = min(MAX_READ_ROWS, max(READ_ROWS, READ_BYTES // max(1, row_bytes)))
    sizes = [_dictionary_sizes(group, payload=payload) for group in groups]
    most = max((sum(some.values()) for some in sizes), default=0)
    if rows * most > DECODED_BYTES:
        most = max(_longest(stream, group=number, sizes=some) for number, some in enumerate(sizes))
    return min(rows, max(1, DECODED_BYTES // max(1, most)))


def _dictionary_sizes(group: pq.RowGroupMetaData, *, payload: str) -> dict[str, int]:
    """Most that the dictionaries of a group's payload can hold (bytes), by path.

    It is told from what the file says of all pages: those of data do not unpack to less than they are.
    """
    columns = [group.column(number) for number in range(group.num_columns)]
    return {
        column.path_in_schema: column.total_uncompressed_size - column.total_compressed_size
        + column.data_page_offset - column.dictionary_page_offset
        for column in columns
        if column.path_in_schema.partition(".")[0] == payload and column.dictionary_page_offset is not None
    }  # fmt: skip


def _longest(stream: IO[bytes], *, group: int, sizes: Mapping[str, int]) -> int:
    """Most that a row can repeat of some dictionaries of a group (bytes).

    The first row brings the dictionary of its page; what a dictionary can hold besides may be one value.
    """
    file = pq.ParquetFile(stream, read_dictionary=list(sizes), pre_buffer=False, buffer_size=BUFFER_BYTES)
    rows = file.iter_batches(batch_size=1, row_groups=[group], columns=list(sizes), use_threads=False)
    columns = next(rows).columns if file.metadata.row_group(group).num_rows else []
    longest = found = 0
    for dictionary in (one for column in columns for one in _dictionaries(column)):
        lengths = pc.binary_length(dictionary)
        longest += pc.max(lengths).as_py() or 0
        found += (pc.sum(lengths).as_py() or 0) + LENGTH_BYTES * len(dictionary)
    return max(longest, sum(sizes.values()) - found)


def _dictionaries(column: pa.Array) -> Iterator[pa.Array]:
    """Dictionaries of binary values in a column, and in what it is made of."""
    if pa.types.is_dictionary(column.type) and _is_binary(column.type.value_type):
        yield column.dictionary
    elif pa.types.is_struct(column.type):
        for part in column.flatten():
            yield from _dictionaries(part)


def _is_binary(kind: pa.DataType) -> bool:
    return any(
        is_one(kind)
        for is_one in (pa.types.is_binary, pa.types.is_string, pa.types.is_large_binary, pa.types.is_large_string)
    )


class _Places:
    """Names of rows: by the path of the image where it has one of its own, so that removed rows rename no other."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._number = 0
        self._seen: set[str] = set()

    def of(self, payload: pa.Array | None, *, count: int) -> pa.Array:
        """Places of the next rows."""
        numbers = range(self._number, self._number + count)
        self._number += count
        paths = pa.nulls(count, pa.string())
        if payload is not None and pa.types.is_struct(payload.type) and "path" in payload.type.names:
            paths = pc.struct_field(payload, "path")
        is_text = pa.types.is_string(paths.type) or pa.types.is_large_string(paths.type)
        if not is_text or paths.null_count == count:
            keys = pa.array(numbers, pa.int64()).cast(pa.string())
        else:
            keys = paths if self._are_distinct(paths) else pa.array(self._keys(paths, numbers=numbers), pa.string())
        return pc.binary_join_element_wise(self._name, keys, "#")

    def _are_distinct(self, paths: pa.Array) -> bool:
        """Whether each row has a path and it is its own."""
        try:
            some = set(paths.to_pylist())
        except UnicodeDecodeError:  # a foreign file need not have checked its text
            return False
        is_usual = pa.types.is_string(paths.type) and None not in some and "" not in some and len(some) == len(paths)
        is_usual = is_usual and not pc.any(pc.match_substring_regex(paths, LIKE_A_NUMBER)).as_py()
        if not is_usual or pc.max(pc.binary_length(paths)).as_py() > MAX_PATH_BYTES or not self._seen.isdisjoint(some):
            return False
        self._seen |= some
        return True

    def _keys(self, paths: pa.Array, *, numbers: Sequence[int]) -> list[str]:
        keys = []
        for path, number in zip(paths.cast(pa.large_binary()).to_pylist(), numbers, strict=True):
            key = str(number)
            if path and len(path) <= MAX_PATH_BYTES:
                text = path.decode("utf-8", "backslashreplace")
                is_own = text not in self._seen and re.match(LIKE_A_NUMBER, text) is None
                key = text if is_own else f"{number}#{text}"
                self._seen.add(text)
            keys.append(key)
        return keys


@contextlib.contextmanager
def opened(stream: IO[bytes], *, name: str) -> Iterator[pq.ParquetFile]:
    """The file; what is wrong with it inside the block is a ``DataError`` that names it."""
    try:
        yield pq.ParquetFile(stream, page_checksum_verification=True, pre_buffer=False, buffer_size=BUFFER_BYTES)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{name} is no whole Parquet file: {reason}; get the file again") from error


def find_names(schema: pa.Schema, *, name: str, wanted: Wanted) -> Names:
    """Which columns hold the payload and its class.

    Raises:
        DataError: There is none of the names they may have, or several columns have it.
    """
    payloads = (*IMAGES, ROW) if wanted.image is None else (wanted.image,)
    labels = LABELS if wanted.label is None else (wanted.label,)
    found = [next((one for one in names if schema.names.count(one) == 1), None) for names in (payloads, labels)]
    if None in found:
        missing = payloads if found[0] is None else labels
        raise DataError(f"{name} has no column {' or '.join(missing)}; its columns are {schema.names}")
    return Names(str(found[0]), str(found[1]))


def _check_groups(file: pq.ParquetFile, *, name: str) -> None:
    for number in range(file.num_row_groups):
        num_bytes = file.metadata.row_group(number).total_byte_size
        if num_bytes > MAX_GROUP_BYTES:
            raise DataError(
                f"{name}: row group {number} unpacks to {num_bytes} bytes, more than {MAX_GROUP_BYTES}; "
                "write it again in smaller row groups"
            )


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def features(schema: pa.Schema) -> Mapping[str, Any]:
    """What the hub's library says of each column; empty if it says nothing that can be read."""
    try:
        content = json.loads((schema.metadata or {}).get(METADATA, b"{}"))
        found = content["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {name: one for name, one in found.items() if isinstance(one, dict)} if isinstance(found, dict) else {}
