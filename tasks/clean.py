"""The stage ``clean``: which samples are kept, dropped or repaired before the data is split."""

from pathlib import Path
from typing import Literal

from datamill import catalog
from datamill.cleaning.policies import ExactPolicy, NearPolicy, TablePolicies
from datamill.stage import Account, Context, Metrics, Params, Stage


class CleanParams(Params):
    """What becomes of faulty samples."""

    seed: int
    """Seeds the isolation forest; equal seeds find the same outliers."""
    exact: ExactPolicy
    """Samples with equal content."""
    near: NearPolicy
    """Samples that hardly differ."""
    constant: Literal["drop", "flag", "off"]
    """What becomes of images of a single colour (drop, flag, off)."""
    table: TablePolicies
    """Faulty values of a table; without effect on images."""


def clean(
    *,
    samples: Path,
    verdicts: Path,
    ledger: Path,
    repairs: Path,
    params: CleanParams,
    context: Context,
) -> Metrics:
    """Drop, flag or repair duplicates, constant images, non-finite and missing values, and outliers.

    The ledger's ``leak_group`` names the first of the samples that must stay on one side of the split: exact copies,
    and near-duplicates where ``near.policy`` is ``group`` or ``drop``. Imputation and outlier bounds are fitted on all
    surviving rows, test rows included, because the split is decided later: for a leak-free estimate leave
    ``table.missing`` off and choose preprocess's imputers, which are fitted on the training split only.
    """
    import pyarrow as pa

    from datamill import ledger as ledgers
    from datamill import parts, reading
    from datamill.cleaning.clusters import leak_groups
    from datamill.cleaning.constants import settle_constant
    from datamill.cleaning.duplicates import first_of_content, settle_duplicates, to_observe
    from datamill.cleaning.near import find_near, settle_near
    from datamill.cleaning.observing import observe
    from datamill.cleaning.tables import mend_table
    from datamill.fates import Fates

    dataset = parts.read_manifest(samples).dataset
    incoming = set(ledgers.survivors(verdicts))
    identity = reading.read_samples([samples], wanted=incoming, columns=["sample_id", "content_hash", "label"])
    sample_ids, contents, labels = (column.to_pylist() for column in identity.columns)
    fates = Fates(len(sample_ids))
    content = first_of_content(contents)
    settle_duplicates(fates, content=content, labels=labels, sample_ids=sample_ids, policy=params.exact)

    rows = to_observe(fates, content=content, is_wanted=(params.near.policy, params.constant) != ("off", "off"))
    tables = reading.iter_samples([samples], wanted={sample_ids[row] for row in rows})
    num_batches = -(-len(rows) // parts.READ_ROWS)
    observed = observe(context.progress(tables, total=num_batches, label="observing samples"), dataset=dataset)
    settle_constant(fates, observed=observed, rows=rows, content=content, policy=params.constant)
    pairs = find_near(fates, observed=observed, rows=rows, policy=params.near)
    settle_near(fates, pairs=pairs, content=content, sample_ids=sample_ids, policy=params.near)
    leak_first = leak_groups(pairs if params.near.policy in ("group", "drop") else pairs[:0], content=content)

    with parts.PartsWriter(repairs, dataset=dataset) as writer:
        if dataset.modality == "tabular":
            table = reading.read_samples([samples], wanted=incoming)
            repaired = mend_table(table, dataset=dataset, fates=fates, policies=params.table, seed=params.seed)
            writer.write(repaired)

    ledgers.write(
        ledger,
        sample_ids=sample_ids,
        fates=fates.fates,
        reasons=fates.reasons,
        details=fates.details,
        extra={"leak_group": pa.array([sample_ids[row] for row in leak_first], pa.string())},
    )
    return {
        **ledgers.count(ledger),
        "rules": dict(sorted(fates.counts.items())),
        "leak_groups": len(set(leak_first.tolist())),
    }


STAGE = Stage(
    run=clean,
    params=CleanParams,
    inputs={"samples": catalog.INGEST_SAMPLES, "verdicts": catalog.VALIDATE_VERDICTS},
    outputs={"ledger": catalog.CLEAN_LEDGER, "repairs": catalog.CLEAN_REPAIRS},
    account=Account(ledger="ledger", population=("verdicts",)),
)
