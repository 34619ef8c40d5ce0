"""Foreign files wherever they are: listed, described and read one after the other."""

import contextlib
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from pydantic import ValidationError

from datamill.errors import DataError
from datamill.samples import Dataset
from datamill.shards.exchange import format_module, mds_index, parquet
from datamill.shards.exchange.records import Columns, Fault, Format, Label, Record, Wanted, columns_of
from datamill.shards.exchange.splits import DATASET
from datamill.sources.listing import StoredFile
from datamill.sources.stores import Store, inflated, open_store, refuse_changes

MAX_DESCRIPTION_BYTES = 2**24
MAX_CLASSES = 10_000
BATCH_ENTRIES, BATCH_BYTES = 1_024, 16 * 2**20  # read at a time; bounds memory, not results


@dataclass(frozen=True)
class Packed:
    """Files of one format, in the order of their names.

    Attributes:
        store: Where they are.
        files: The files that hold samples.
        form: Their format.
        class_names: Names of classes 0, 1, ...; ``None`` where nothing names them.
        split: What the files' names begin with; ``None`` for any.
    """

    store: Store
    files: tuple[StoredFile, ...]
    form: Format
    class_names: tuple[str, ...] | None
    split: str | None

    def records(self, wanted: Wanted) -> Iterator[Record | Fault]:
        """Every entry of every file, in order; raises what ``read_file`` raises."""
        for file in self.files:
            yield from self.read_file(file, wanted=wanted)

    def read_file(self, file: StoredFile, *, wanted: Wanted) -> Iterator[Record | Fault]:
        """Every entry of a file, in order.

        Raises:
            DataError: The file is gone, changed, or damaged so that what follows in it cannot be trusted.
        """
        with self._reading(file) as stream:
            yield from self.form.read(stream, name=file.key, wanted=wanted)

    def read_columns(self, file: StoredFile, *, wanted: Wanted) -> Iterator[Columns]:
        """The same as columns, some entries at a time, for images.

        Raises:
            DataError: As ``read_file``.
        """
        with self._reading(file) as stream:
            if self.form is parquet:  # the only one that has columns
                yield from parquet.read_columns(stream, name=file.key, wanted=wanted)
            else:
                yield from map(columns_of, _some(self.form.read(stream, name=file.key, wanted=wanted)))

    def profile(self, wanted: Wanted, *, files: Sequence[StoredFile] | None = None) -> tuple[int, set[str]]:
        """Number of entries, of some files or of all, and the classes that occur among the sound ones.

        Raises:
            DataError: There are more than ``MAX_CLASSES``.
        """
        num_entries, labels = 0, set[str]()
        for columns in (some for file in files or self.files for some in self.read_columns(file, wanted=wanted)):
            num_entries += len(columns.codes)
            labels.update(name for name in map(self.class_of, columns.labels) if name is not None)
            if len(labels) > MAX_CLASSES:
                raise DataError(f"{self.store.url} has more than {MAX_CLASSES} classes; name the field of the class")
        return num_entries, labels

    def class_of(self, label: Label) -> str | None:
        """Name of the class that a label means; ``None`` if it means none."""
        if self.class_names is None:
            return str(label) if isinstance(label, str) or label >= 0 else None
        if isinstance(label, str):
            return label if label in self.class_names else None
        return self.class_names[label] if 0 <= label < len(self.class_names) else None

    def refuse_changes(self) -> None:
        """Pass when the files are those that were listed.

        Raises:
            DataError: One came, changed or went.
        """
        now = _chosen(self.store.files(), store=self.store, form=self.form, split=self.split)
        refuse_changes(self.store.url, before=self.files, after=now)

    @contextlib.contextmanager
    def _reading(self, file: StoredFile) -> Iterator[IO[bytes]]:
        with self.store.reading(file) as raw:
            try:
                yield inflated(raw)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise DataError(f"{file.key} is a damaged or cut gzip file: {error}; get the file again") from error


def open_packed(
    url: str,
    *,
    format: str,  # noqa: A002 - the word a user looks for
    wanted: Wanted,
    class_names: tuple[str, ...] | None = None,
    split: str | None = None,
) -> Packed:
    """The files of a format below a folder, at a glob, or one file; nothing but descriptions is read.

    Args:
        url: A path or an fsspec URL.
        format: One of ``exchange.FORMATS``.
        wanted: Columns that a file must have.
        class_names: Names of the classes; ``None`` takes those that the files, or a ``dataset.json`` beside them, say.
        split: Leaves out files whose name does not begin with it (``train-0.tar``, ``train/0.mds``); ``None``
            takes all.

    Raises:
        DataError: There is no such file, or files contradict the description beside them.
    """
    form = format_module(format)
    store = open_store(url)
    listed = store.files()
    files = _chosen(listed, store=store, form=form, split=split)
    if not files:
        of_split = "" if split is None else f" of split {split!r}"
        raise DataError(f"{url} holds no file{of_split} that ends with {' or '.join(form.ENDINGS)}")
    faults = [f"{file.key} ({file.fault[1]})" for file in files if file.fault is not None]
    if faults:
        raise DataError(f"{url}: {', '.join(faults)} cannot be read; remove it or name the files with a glob")
    if format == "mds":
        _check_indexes(store, listed, files=files)
    names = class_names or _described(store, listed) or _declared(store, files, form=form, wanted=wanted)
    if names is not None and len(set(names)) != len(names):
        raise DataError(f"{url}: two classes share a name in {list(names)}; name the classes yourself")
    return Packed(store=store, files=files, form=form, class_names=names, split=split)


def _some(entries: Iterator[Record | Fault]) -> Iterator[list[Record | Fault]]:
    """Runs of at most ``BATCH_ENTRIES``, about ``BATCH_BYTES`` of payload."""
    some: list[Record | Fault] = []
    size = 0
    for entry in entries:
        some.append(entry)
        size += len(entry.payload) if isinstance(entry, Record) and entry.payload is not None else 0
        if len(some) == BATCH_ENTRIES or size >= BATCH_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _chosen(listed: Sequence[StoredFile], *, store: Store, form: Format, split: str | None) -> tuple[StoredFile, ...]:
    """The files of a format and a split; in a folder the names say which they are."""
    if not store.is_folder():
        return tuple(listed)
    pattern = re.compile("" if split is None else rf"(^|/){re.escape(split)}[-._/]")
    return tuple(file for file in listed if file.key.lower().endswith(form.ENDINGS) and pattern.search(file.key))


def _check_indexes(store: Store, listed: Sequence[StoredFile], *, files: Sequence[StoredFile]) -> None:
    """Compare MDS files with the index beside them, where there is one."""
    for index in listed:
        folder, _, base = index.key.rpartition("/")
        beside = {file.key.rpartition("/")[2]: file for file in files if file.key.rpartition("/")[0] == folder}
        if base != mds_index.INDEX or not beside:
            continue
        content = _read(store, index)
        sizes = {name: file.size_bytes for name, file in beside.items()}
        for name, hashes in mds_index.read_index(content, name=index.key, found=sizes).items():
            with store.reading(beside[name]) as stream:
                mds_index.check_hashes(stream, name=beside[name].key, hashes=hashes)


def _described(store: Store, listed: Sequence[StoredFile]) -> tuple[str, ...] | None:
    description = next((file for file in listed if file.key == DATASET), None)
    if description is None:
        return None
    try:
        return Dataset.model_validate_json(_read(store, description)).classes
    except ValidationError as error:
        raise DataError(f"{DATASET} is damaged ({error.error_count()} faults); repair it or take it away") from error


def _declared(store: Store, files: Sequence[StoredFile], *, form: Format, wanted: Wanted) -> tuple[str, ...] | None:
    first: tuple[str, ...] | None = None
    for file in files:
        with store.reading(file) as stream:
            names = form.class_names(stream, name=file.key, wanted=wanted)
        if file is files[0]:
            first = names
        if names != first:
            raise DataError(f"{file.key} and {files[0].key} name their classes differently; name the classes yourself")
        if names is None:
            break
    return first


def _read(store: Store, file: StoredFile) -> bytes:
    if file.size_bytes > MAX_DESCRIPTION_BYTES:
        raise DataError(
            f"{file.key} has {file.size_bytes} bytes, more than {MAX_DESCRIPTION_BYTES}; is it the right file?"
        )
    with store.reading(file) as stream:
        return stream.read(MAX_DESCRIPTION_BYTES)
