"""The stage that joins payloads and decisions into what training reads."""

from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from datamill import catalog
from datamill.shards import SPLITS
from datamill.stage import Account, Context, Metrics, Params, Stage


class ShardParams(Params):
    """Which formats are written besides the native one."""

    webdataset: Literal["none", "train", "all"]
    """Which splits are exported as WebDataset tar files as well."""
    webdataset_max_samples: PositiveInt
    """Samples per tar file at most (count)."""


def shard(
    *,
    samples: Path,
    repairs: Path,
    copies: Path,
    synthetic: Path,
    resampled: Path,
    plan: Path,
    preprocessor: Path,
    shards: Path,
    ledger: Path,
    webdataset: Path,
    params: ShardParams,
    context: Context,
) -> Metrics:
    """Write every planned sample into memory-mapped training shards.

    The last gate against leaks: a generated sample outside train, or with a parent outside train, stops the stage.
    """
    import pyarrow as pa

    from datamill import ledger as ledgers
    from datamill import parts, reading
    from datamill.preprocessing import load_preprocessor
    from datamill.shards.joining import Export, read_plan, require_no_leak, write_shards

    folders = [samples, copies, synthetic, resampled]
    dataset = parts.read_manifest(samples).dataset
    placed = read_plan(plan, classes=dataset.classes)
    for folder in folders:
        require_no_leak(parts.iter_tables(folder, columns=["sample_id", "origin", "parents"]), plan=placed)

    webdataset.mkdir(parents=True)
    exported = {"none": (), "train": SPLITS[:1], "all": SPLITS}[params.webdataset]
    tables = reading.iter_samples(folders, wanted=placed.row_of, repairs=repairs)
    rows = write_shards(
        context.progress(tables, total=None, label=f"writing {placed.num_rows} samples, block"),
        plan=placed,
        preprocessor=load_preprocessor(preprocessor),
        dataset=dataset,
        folder=shards,
        export=Export(webdataset, splits=exported, max_samples=params.webdataset_max_samples),
    )

    count = placed.num_rows
    ledgers.write(
        ledger,
        sample_ids=list(placed.row_of),
        fates=["kept"] * count,
        reasons=[""] * count,
        details=[""] * count,
        extra={"split": pa.array(placed.split.tolist(), pa.string()), "row": pa.array(rows)},
    )
    return {
        "rows": {split: int((placed.split == split).sum()) for split in SPLITS},
        "bytes": sum(file.stat().st_size for file in shards.rglob("*.bin")),
        "tar_files": len(list(webdataset.glob("*.tar"))),
    }


STAGE = Stage(
    run=shard,
    params=ShardParams,
    inputs={
        "samples": catalog.INGEST_SAMPLES,
        "repairs": catalog.CLEAN_REPAIRS,
        "copies": catalog.AUGMENT_COPIES,
        "synthetic": catalog.SYNTHESIZE_SAMPLES,
        "resampled": catalog.BALANCE_RESAMPLED,
        "plan": catalog.BALANCE_PLAN,
        "preprocessor": catalog.PREPROCESS_STATE,
    },
    outputs={"shards": catalog.SHARD_SHARDS, "ledger": catalog.SHARD_LEDGER, "webdataset": catalog.SHARD_WEBDATASET},
    account=Account(ledger="ledger", population=("plan",)),
)
