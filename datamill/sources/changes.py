"""What has become of a source's items since the last ingest, told from names, sizes and times; no content is read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from datamill.sources.journal import remembered
from datamill.sources.listing import table_of
from datamill.sources.params import ExchangedSource, IdxSource, ImageFolderSource, IngestParams, TableSource
from datamill.sources.stores import in_step, open_file, open_store


@dataclass(frozen=True)
class Changes:
    """Items of a source, which are its files (count).

    Attributes:
        total: Items there are.
        new: Items the last ingest did not know.
        changed: Items that may hold something else by now.
        removed: Items that the last ingest knew and that are gone.
    """

    total: int
    new: int
    changed: int
    removed: int

    def __str__(self) -> str:
        """The counts in words."""
        named = (("new", self.new), ("changed", self.changed), ("removed", self.removed))
        told = ", ".join(f"{count:,} {name}" for name, count in named if count)
        return f"{told or 'no changed'} of {self.total:,} file{'s' * (self.total != 1)}"


def count_changes(params: IngestParams, *, state: Path, made_with: str, samples: Path) -> Changes | None:
    """How many items of the source the next ingest would read, and how many it would forget.

    Args:
        params: The source. Relative paths are relative to the working directory.
        state: The folder of ingest's journal.
        made_with: As ``journal.made_with`` gives it; items that were read in another way are all new.
        samples: What ingest wrote the last time.

    Returns:
        The counts; ``None`` for bundled sets, which never change.

    Raises:
        DataError: The source cannot be listed.
    """
    listed = _listed(params)
    if listed is None:
        return None
    known = remembered(state, made_with=made_with, samples=samples)
    if isinstance(params.source, IdxSource):  # whose journal has blocks of files beside the files
        from datamill.sources.idx import FILE

        known = (table.filter(pc.starts_with(table["key"], FILE)) for table in known)
    return compare(listed, known)


def compare(listed: Iterable[pa.Table], known: Iterable[pa.Table]) -> Changes:
    """How two lists of items differ, which have the columns ``key`` and ``stamp`` and are in the order of the keys."""
    total = same = met = removed = 0
    for now, before in in_step(iter(listed), iter(known)):
        total += now.num_rows
        places = pc.index_in(now["key"], value_set=before["key"].combine_chunks())
        stamps = before["stamp"].take(places)
        met += now.num_rows - places.null_count
        same += pc.sum(pc.fill_null(pc.equal(stamps, now["stamp"]), False)).as_py() or 0
        removed += before.num_rows - (pc.count_distinct(places.drop_null()).as_py() or 0)
    return Changes(total=total, new=total - met, changed=met - same, removed=removed)


def _listed(params: IngestParams) -> Iterator[pa.Table] | None:
    source = params.source
    if isinstance(source, ImageFolderSource):
        return open_store(source.path).tables()
    if isinstance(source, ExchangedSource):
        from datamill.shards.exchange.packed import open_packed
        from datamill.shards.exchange.records import Wanted

        wanted = Wanted(image=source.image, label=source.label, max_bytes=params.max_file_bytes)
        packed = open_packed(source.path, format=source.format, wanted=wanted, class_names=source.class_names)
        return iter([table_of(packed.files)])
    if isinstance(source, IdxSource):
        from datamill.sources.idx import file_items

        urls = zip(source.images, source.labels, strict=True)
        items = file_items((open_file(images)[1], open_file(labels)[1]) for images, labels in urls)
        keys, stamps = zip(*items, strict=True)
        return iter([pa.table([pa.array(keys), pa.array(stamps, pa.string())], ["key", "stamp"])])
    if isinstance(source, TableSource):
        from datamill.sources.table import table_files

        return iter([table_of(table_files(open_store(source.path), source=source))])
    return None
