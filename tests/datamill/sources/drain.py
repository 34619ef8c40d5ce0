"""Everything a reading gives, at once, for tests."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from datamill import sources
from datamill.samples import Dataset
from datamill.sources.batches import Batch, Reading, Reject
from datamill.sources.journal import Journal
from datamill.sources.params import IngestParams
from tests.fakes import InlineEngine, make_context

TABLE_FIELDS: dict[str, Any] = {
    "kind": "table",
    "format": "csv",
    "delimiter": ",",
    "encoding": "utf-8",
    "target": "class",
    "target_kind": "category",
    "group": None,
    "time": None,
    "id": None,
    "exclude": [],
    "kinds": {},
}


def make_params(
    source: Mapping[str, Any], *, max_pixels: int = 1_000_000, max_file_bytes: int = 1_000_000
) -> IngestParams:
    """Parameters with this source section."""
    return IngestParams.model_validate({"source": source, "max_pixels": max_pixels, "max_file_bytes": max_file_bytes})


@contextmanager
def opened(params: IngestParams, *, engine: InlineEngine | None = None) -> Iterator[Reading]:
    """A reading that remembers nothing, with a place for its scratch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        context = make_context(folder, engine=engine)
        yield sources.read(params, context=context, journal=Journal(folder / "state", made_with="", previous={}))


def drain(source: Mapping[str, Any], **limits: int) -> tuple[Dataset, pa.Table, list[Reject]]:
    """Data set, samples and rejects of a source, after checking that they add up to its items."""
    with opened(make_params(source, **limits)) as reading:
        batches = [batch for batch in reading.batches if isinstance(batch, Batch)]
    table = pa.concat_tables([batch.table for batch in batches])
    rejects = [reject for batch in batches for reject in batch.rejects]
    assert table.num_rows + len(rejects) == reading.num_items
    return reading.dataset, table, rejects


def drain_table(path: object, **fields: Any) -> tuple[Dataset, pa.Table, list[Reject]]:
    """The same for a table, with ``fields`` in place of ``TABLE_FIELDS``."""
    return drain({**TABLE_FIELDS, "path": str(path), **fields})
