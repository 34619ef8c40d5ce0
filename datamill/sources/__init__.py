"""Where samples come from: one module per kind of source, each with one function ``read`` that gives a ``Reading``.

A reading knows its data set and how many items it will account for; its batches hold, in an order that only the
source decides, every item as a sample or as a reject.
"""

from typing import TYPE_CHECKING

from datamill.sources.addresses import local_path, watched
from datamill.sources.params import (
    BundledSource,
    ExchangedSource,
    IdxSource,
    ImageFolderSource,
    IngestParams,
    QuerySource,
    Source,
    TableSource,
)

if TYPE_CHECKING:
    from datamill.sources.batches import Reading
    from datamill.sources.journal import Journal
    from datamill.stage import Context

__all__ = [
    "BundledSource",
    "ExchangedSource",
    "IdxSource",
    "ImageFolderSource",
    "IngestParams",
    "QuerySource",
    "Source",
    "TableSource",
    "fingerprint",
    "is_remote",
    "local_paths",
    "read",
]


def read(params: IngestParams, *, context: "Context", journal: "Journal") -> "Reading":
    """Open the source and list its items; nothing is read for good before the batches are.

    Args:
        params: The source and its limits. Relative paths are relative to the working directory, which the
            runner of stages sets to the workspace's root.
        context: Where to work; changes the speed and nothing else.
        journal: What the last ingest made of items that have not changed.

    Raises:
        DataError: The source is missing, empty or not what ``params`` says.
    """
    source = params.source
    if isinstance(source, BundledSource):
        from datamill.sources import bundled

        return bundled.read(source)
    if isinstance(source, ImageFolderSource):
        from datamill.sources import image_folder

        return image_folder.read(
            source,
            max_pixels=params.max_pixels,
            max_file_bytes=params.max_file_bytes,
            context=context,
            journal=journal,
        )
    if isinstance(source, IdxSource):
        from datamill.sources import idx

        return idx.read(source, max_pixels=params.max_pixels, journal=journal)
    if isinstance(source, ExchangedSource):
        from datamill.sources import exchanged

        return exchanged.read(
            source,
            max_pixels=params.max_pixels,
            max_file_bytes=params.max_file_bytes,
            context=context,
            journal=journal,
        )
    if isinstance(source, QuerySource):
        from datamill.sources import query

        return query.read(source)
    from datamill.sources import table

    return table.read(source, journal=journal)


def local_paths(params: IngestParams) -> list[str]:
    """Local files and folders the source consists of, for change detection; empty for others and remote ones.

    A glob stands for the folder it searches; one that searches the workspace's root, for the files it finds today.
    """
    paths = (local_path(url) for url in _urls(params.source))
    return [file for path in paths if path is not None for file in watched(path)]


def fingerprint(params: IngestParams) -> str:
    """Hash of the names, sizes and versions of a remote source's files, or of a query's version; empty for others.

    Raises:
        DataError: The store or the database cannot be reached, or holds nothing there.
    """
    if isinstance(params.source, QuerySource):
        from datamill.sources import query

        return query.fingerprint(params.source)
    if not is_remote(params):
        return ""
    from datamill.sources import stores

    return stores.fingerprint(_remote(params))


def is_remote(params: IngestParams) -> bool:
    """Whether the source is a query, or any of its files lies in a remote store."""
    return isinstance(params.source, QuerySource) or bool(_remote(params))


def _remote(params: IngestParams) -> list[str]:
    return [url for url in _urls(params.source) if local_path(url) is None]


def _urls(source: Source) -> tuple[str, ...]:
    if isinstance(source, BundledSource | QuerySource):
        return ()
    return (*source.images, *source.labels) if isinstance(source, IdxSource) else (source.path,)
