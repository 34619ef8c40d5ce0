"""The stage ``extract``: what is known of every sample from one look at its payload."""

from pathlib import Path

from datamill import catalog
from datamill.stage import Context, Metrics, Params, Stage


class ExtractParams(Params):
    """Nothing to choose: features depend on the samples alone."""


def extract(*, samples: Path, features: Path, params: ExtractParams, context: Context) -> Metrics:
    """Decode every payload once: sizes, moments, fingerprints and thumbnails, or hashes of a table's rows.

    Later stages read these features instead of the payloads. What the previous run found out about samples of the same
    content is taken over, so only new content is decoded.
    """
    from datamill import extracting

    former = context.previous.get("features")
    num_threads = context.num_workers if context.num_workers > 1 else 0
    outcome = extracting.extract(
        samples, folder=features, engine=context.engine, former=former, num_threads=num_threads
    )
    context.tracker.log_metrics({"linked": outcome.linked, "copied": outcome.copied, "looked_at": outcome.looked_at})
    return {"samples": outcome.linked + outcome.copied + outcome.looked_at}


STAGE = Stage(
    run=extract,
    params=ExtractParams,
    inputs={"samples": catalog.INGEST_SAMPLES},
    outputs={"features": catalog.EXTRACT_FEATURES},
    by_part=True,
)
