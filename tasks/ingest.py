"""Stage ``ingest``: the source becomes samples, and what cannot become one becomes a reject."""

from pathlib import Path

from datamill import catalog
from datamill.sources import IngestParams
from datamill.stage import Context, Metrics, Stage


def ingest(*, samples: Path, rejects: Path, params: IngestParams, context: Context) -> Metrics:
    """Read the source into sample parts; every item that cannot be read becomes a reject.

    Relative paths of the source start at the working directory, which is the workspace's root. Items that have not
    changed since the last ingest are taken from what it wrote, and the result is the same as if all had been read.

    Raises:
        DataError: The source is missing, empty, changing or not what it was declared to be, or has one class only.
        StageError: Samples and rejects do not add up to the items listed.
    """
    from datamill import sources
    from datamill.sources.batches import Tally, require_classes
    from datamill.sources.intake import Intake
    from datamill.sources.journal import Journal, made_with

    with Journal(context.state, made_with=made_with(params, module=__name__), previous=context.previous) as journal:
        reading = sources.read(params, context=context, journal=journal)
        require_classes(reading.dataset)
        with Intake(samples=samples, rejects=rejects, dataset=reading.dataset, journal=journal) as intake:
            for batch in context.progress(reading.batches, total=None, label=f"reading {reading.num_items} items"):
                intake.add(batch)
        tally = Tally.of(reading, samples=samples, rejects=rejects)
        tally.check()
        journal.keep(samples=samples, rejects=rejects)
    metrics = tally.metrics()
    if metrics["rejects"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in metrics["rejects"].items())
        print(f"ingest: rejects: {reasons}; {catalog.INGEST_REJECTS.path} names each, with its reason", flush=True)
    return metrics


STAGE = Stage(
    run=ingest,
    params=IngestParams,
    outputs={"samples": catalog.INGEST_SAMPLES, "rejects": catalog.INGEST_REJECTS},
    by_part=True,
)
