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
    and near-duplicates where ``near.policy`` is ``group`` or ``drop``; it is "" for a sample that is tied to none.
    Imputation and outlier bounds are fitted on all surviving rows, test rows included, because the split is decided
    later: for a leak-free estimate leave ``table.missing`` off and choose preprocess's imputers, which are fitted on
    the training split only.
    """
    import numpy as np
    import pyarrow as pa

    from datamill import features as looks
    from datamill import imports, parts, reading
    from datamill import ledger as ledgers
    from datamill.cleaning.constants import settle_constant
    from datamill.cleaning.duplicates import find_copies, leak_groups, may_be_near, settle_duplicates
    from datamill.cleaning.near import find_near, settle_near
    from datamill.cleaning.observing import observe
    from datamill.cleaning.tables import mend_table
    from datamill.fates import Fates
    from datamill.links import NO_LINKS
    from datamill.recall import State

    dataset = parts.read_manifest(samples).dataset
    scratch = context.scratch
    observed = observe(
        features,
        samples=samples,
        decisions=verdicts,
        classes=dataset.classes,
        is_looking=(params.near.policy, params.constant) != ("off", "off"),
        scratch=scratch,
    )
    ids, num_rows = observed.ids, len(observed.contents)
    fates = Fates(num_rows)
    copies = find_copies(observed.contents)
    settle_duplicates(fates, copies=copies, classes=dataset.classes, sample_ids=ids, policy=params.exact)
    settle_constant(fates, constant=observed.constant, policy=params.constant)
    clusters = NO_LINKS
    if params.near.policy != "off":
        made_with = f"{params.near.model_dump_json()} {looks.read_manifest(features).code} {imports.digest(__name__)}"
        clusters = find_near(
            lambda: (
                block[may_be_near(block["row"], fates=fates, copies=copies)] for block in observed.contents.merged()
            ),
            thumbnails=observed.thumbnails,
            policy=params.near,
            scratch=scratch,
            state=State(context.state / "near", made_with=made_with),
        )
        pa.default_memory_pool().release_unused()
        settle_near(fates, clusters=clusters, copies=copies, sample_ids=ids, policy=params.near)
    leaks = leak_groups(clusters if params.near.policy in ("group", "drop") else NO_LINKS, copies=copies)
    tied = np.union1d(leaks.firsts, leaks.rows)
    pa.default_memory_pool().release_unused()

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
            sample_ids = ids.between(start, stop)
            low, high = np.searchsorted(tied, [start, stop])
            groups = np.zeros(len(sample_ids), np.int64)
            groups[tied[low:high] - start] = np.arange(1, high - low + 1)
            names = pa.concat_arrays([pa.array([""]), ids.digits(leaks.of(tied[low:high]))])
            rows.write(sample_ids=sample_ids, **columns, extra={"leak_group": names.take(pa.array(groups))})
            pa.default_memory_pool().release_unused()
    return {
        **ledgers.count(ledger),
        "rules": dict(sorted(fates.counts.items())),
        "leak_groups": num_rows - len(leaks),
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
