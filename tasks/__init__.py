"""The stages: one file each, one DVC node each. ``PIPELINE`` says which exist, in which order."""

from datamill.stage import Stage
from tasks import (
    audit,
    augment,
    balance,
    clean,
    diagnose,
    evaluate,
    export,
    extract,
    ingest,
    preprocess,
    shard,
    split,
    synthesize,
    train,
    validate,
)

PIPELINE: tuple[Stage, ...] = (
    ingest.STAGE,
    extract.STAGE,
    validate.STAGE,
    clean.STAGE,
    split.STAGE,
    audit.STAGE,
    preprocess.STAGE,
    augment.STAGE,
    synthesize.STAGE,
    balance.STAGE,
    shard.STAGE,
    train.STAGE,
    diagnose.STAGE,
    evaluate.STAGE,
    export.STAGE,
)
