"""The stage ``validate``: is the data what it should be?"""

from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

from datamill import catalog
from datamill.stage import Account, Context, Metrics, Params, Stage
from datamill.validation.rules import Limits, UserExpectation


class ValidateParams(Params):
    """What is expected of the data, and how much of it may fail."""

    max_bad_share: Annotated[float, Field(ge=0, le=1)]
    """Share of bad items (quarantined samples and ingest's rejects) above which the run stops (0 to 1)."""
    limits: Limits
    """Limits of the rules that are derived from the data's profile."""
    expectations: list[UserExpectation]
    """Further Great Expectations on the properties, ``label`` and ``class_size``: type, kwargs, severity each."""


def validate(
    *,
    samples: Path,
    features: Path,
    rejects: Path,
    schema: Path,
    verdicts: Path,
    docs: Path,
    params: ValidateParams,
    context: Context,
) -> Metrics:
    """Check a profiled schema and the user's expectations, and stop the run where too much fails.

    A critical failure quarantines the sample, a warning keeps it and leaves the reason in the ledger, an info appears
    in the Data Docs only. A critical failure of the data set as a whole (a single class) stops the run.
    """
    from datamill import files, ledger, parts
    from datamill.validation import properties
    from datamill.validation.checking import check, check_rules
    from datamill.validation.deriving import derive_rules
    from datamill.validation.docs import write_docs
    from datamill.validation.gate import check_gate, judge, read_sources, require_samples, share_bad
    from datamill.validation.profiling import profile_of
    from datamill.validation.rules import CLASS_SIZE, LABEL, user_rule

    manifest = parts.read_manifest(samples)
    rejected = list(zip(*ledger.read(rejects, columns=["source", "reason"]).to_pydict().values(), strict=True))
    require_samples(manifest.num_rows, rejects=rejected)
    asked = [user_rule(expectation) for expectation in params.expectations]
    check_rules(asked, columns=[*properties.names_of(manifest.dataset), LABEL, CLASS_SIZE])

    read = partial(properties.iter_properties, samples, features=features)
    profile = profile_of(context.progress(read(), total=None, label="profiling"), scratch=context.scratch)
    rules = [*derive_rules(profile, dataset=manifest.dataset, limits=params.limits), *asked]
    report = check(lambda: properties.with_class_sizes(read(), classes=profile.classes), rules=rules, profile=profile)
    fates = judge(report.findings, num_samples=profile.num_samples)
    files.write_json(schema, {**profile.as_json(), "expectations": [rule.as_json() for rule in rules]})
    with ledger.Writer(verdicts) as writer:
        start = 0
        for table in parts.iter_tables(samples, columns=["sample_id"]):
            stop = start + table.num_rows
            writer.write(sample_ids=table["sample_id"], **fates.columns(start, stop))
            start = stop
    write_docs(docs, report=report)
    check_gate(
        report.findings,
        fates=fates,
        sources=partial(read_sources, samples),
        rejects=rejected,
        max_bad_share=params.max_bad_share,
    )
    failed = sum(not one.success for one in report.findings)
    if failed:
        print(
            f"validate: {failed} of {len(rules)} expectations failed; {catalog.VALIDATE_DOCS.path} shows which",
            flush=True,
        )
    return {
        **ledger.count(verdicts),
        "rejects": len(rejected),
        "bad_share": share_bad(fates, rejects=rejected),
        "rules": dict(sorted(fates.counts.items())),
        "expectations": {"checked": len(rules), "failed": failed},
    }


STAGE = Stage(
    run=validate,
    params=ValidateParams,
    inputs={
        "samples": catalog.INGEST_SAMPLES,
        "features": catalog.EXTRACT_FEATURES,
        "rejects": catalog.INGEST_REJECTS,
    },
    outputs={
        "schema": catalog.VALIDATE_SCHEMA,
        "verdicts": catalog.VALIDATE_VERDICTS,
        "docs": catalog.VALIDATE_DOCS,
    },
    account=Account(ledger="verdicts", population=("samples",)),
)
