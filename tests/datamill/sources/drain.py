"""Everything a reading gives, at once, for tests."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from datamill import sources
from datamill.samples import Dataset
from datamill.sources.batches import Reject, Tally
from datamill.sources.params import IngestParams

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


def drain(source: Mapping[str, Any], *, num_workers: int = 1, **limits: int) -> tuple[Dataset, pa.Table, list[Reject]]:
    """Data set, samples and rejects of a source, after checking that they add up to its items."""
    reading = sources.read(make_params(source, **limits), num_workers=num_workers)
    tally = Tally(dataset=reading.dataset, num_items=reading.num_items)
    tables = []
    for batch in reading.batches:
        tally.add(batch)
        tables.append(batch.table)
    assert tally.num_samples + len(tally.rejects) == reading.num_items
    return reading.dataset, pa.concat_tables(tables), tally.rejects


def drain_table(path: object, **fields: Any) -> tuple[Dataset, pa.Table, list[Reject]]:
    """The same for a table, with ``fields`` in place of ``TABLE_FIELDS``."""
    return drain({**TABLE_FIELDS, "path": str(path), **fields})
