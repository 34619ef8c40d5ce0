"""The stage ``clean``: which samples are kept, dropped or repaired before the data is split."""

from collections.abc import Iterator, Sequence
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
    features: Path,
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
    import numpy as np
    import pyarrow as pa

    from datamill import ledger as ledgers
    from datamill import parts, reading
    from datamill.cleaning.clusters import leak_groups
    from datamill.cleaning.constants import settle_constant
    from datamill.cleaning.duplicates import first_of_content, settle_duplicates, to_compare
    from datamill.cleaning.near import find_near, settle_near
    from datamill.cleaning.observing import SampleIds, observe, read_hashes, read_labels
    from datamill.cleaning.tables import mend_table
    from datamill.fates import Fates

    dataset = parts.read_manifest(samples).dataset
    num_rows = sum(table.num_rows for table in ledgers.iter_survivors(verdicts))
    fates = Fates(num_rows)
    content = first_of_content(read_hashes(features, decisions=verdicts, column="content_hash", num_rows=num_rows))
    ids = SampleIds(features, decisions=verdicts, num_rows=num_rows)
    labels = read_labels(samples, decisions=verdicts, classes=dataset.classes, num_rows=num_rows)
    settle_duplicates(
        fates, content=content, labels=labels, classes=dataset.classes, sample_ids=ids, policy=params.exact
    )
    del labels

    pairs = np.empty((0, 2), np.int64)
    if (params.near.policy, params.constant) != ("off", "off"):
        observed = observe(features, decisions=verdicts, scratch=context.scratch, num_rows=num_rows)
        settle_constant(fates, is_constant=observed.is_constant, policy=params.constant)
        if params.near.policy != "off":
            pairs = find_near(observed=observed, rows=to_compare(fates, content=content), policy=params.near)
            settle_near(fates, pairs=pairs, content=content, sample_ids=ids, policy=params.near)
        del observed
    leak_first = leak_groups(pairs if params.near.policy in ("group", "drop") else pairs[:0], content=content)

    def read(columns: Sequence[str] | None) -> Iterator[pa.Table]:
        return (table for table, _ in reading.iter_decided([samples], decisions=verdicts, columns=columns))

    with parts.PartsWriter(repairs, dataset=dataset, previous=context.previous.get("repairs")) as writer:
        if dataset.modality == "tabular":
            for table in mend_table(read, dataset=dataset, fates=fates, policies=params.table, seed=params.seed):
                writer.write(table)

    with ledgers.Writer(ledger) as rows:
        for start in range(0, max(num_rows, 1), ledgers.READ_ROWS):
            stop = min(start + ledgers.READ_ROWS, num_rows)
            columns = fates.columns(start, stop)
            extra = {"leak_group": ids.digits(leak_first[start:stop])}
            rows.write(sample_ids=ids.digits(slice(start, stop)), **columns, extra=extra)
    return {
        **ledgers.count(ledger),
        "rules": dict(sorted(fates.counts.items())),
        "leak_groups": int((leak_first == np.arange(num_rows)).sum()),
    }


STAGE = Stage(
    run=clean,
    params=CleanParams,
    inputs={
        "samples": catalog.INGEST_SAMPLES,
        "features": catalog.EXTRACT_FEATURES,
        "verdicts": catalog.VALIDATE_VERDICTS,
    },
    outputs={"ledger": catalog.CLEAN_LEDGER, "repairs": catalog.CLEAN_REPAIRS},
    account=Account(ledger="ledger", population=("verdicts",)),
)
