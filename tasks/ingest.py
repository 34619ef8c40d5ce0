"""Stage ``ingest``: the source becomes samples, and what cannot become one becomes a reject."""

from pathlib import Path

from datamill import catalog
from datamill.sources import IngestParams
from datamill.stage import Context, Metrics, Stage


def ingest(*, samples: Path, rejects: Path, params: IngestParams, context: Context) -> Metrics:
    """Read the source into sample parts; every item that cannot be read becomes a reject.

    Relative paths of the source start at the working directory, which is the workspace's root.

    Raises:
        DataError: The source is missing, empty, changing or not what it was declared to be, or has one class only.
        StageError: Samples and rejects do not add up to the items listed.
    """
    from datamill import ledger, sources
    from datamill.parts import PartsWriter
    from datamill.sources.batches import Tally, require_classes

    reading = sources.read(params, num_workers=context.num_workers)
    require_classes(reading.dataset)
    tally = Tally(dataset=reading.dataset, num_items=reading.num_items)
    with PartsWriter(samples, dataset=reading.dataset) as writer:
        for batch in context.progress(reading.batches, total=None, label=f"reading {reading.num_items} items"):
            writer.write(batch.table)
            tally.add(batch)
    tally.check()
    ledger.write_rejects(rejects, tally.rejects)
    return tally.metrics()


STAGE = Stage(
    run=ingest,
    params=IngestParams,
    outputs={"samples": catalog.INGEST_SAMPLES, "rejects": catalog.INGEST_REJECTS},
)
