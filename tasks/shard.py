"""The stage that joins payloads and decisions into what training reads."""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, field_validator

from datamill import catalog
from datamill.stage import Account, Context, Metrics, Params, Stage


class ExportParams(Params):
    """One export of the shards to another tool's format."""

    format: Literal["webdataset", "tfrecord", "parquet", "mds"]
    """webdataset (tar), tfrecord, parquet (as on the Hugging Face hub) or mds (of MosaicML's streaming)."""
    splits: list[Literal["train", "validation", "test"]] = Field(min_length=1)
    """Which splits are written."""
    max_samples: PositiveInt
    """Samples per file at most (count)."""


class ShardParams(Params):
    """Which formats are written besides the native one."""

    exports: list[ExportParams]
    """Exports to the formats of other tools; [] for none."""

    @field_validator("exports")
    @classmethod
    def _once_each(cls, exports: list[ExportParams]) -> list[ExportParams]:
        formats = [one.format for one in exports]
        twice = sorted({name for name in formats if formats.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is listed twice; list a format once, with all its splits")
        return exports


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
    exports: Path,
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
    from datamill.shards import exporting, packing, placing
    from datamill.shards.previous import Previous
    from datamill.shards.recipe import Recipe

    folders = [samples, copies, synthetic, resampled]
    dataset = parts.read_manifest(samples).dataset
    placing.require_no_leak(folders, plan=plan)
    recipe = Recipe.of(load_preprocessor(preprocessor), dataset=dataset)
    previous = Previous(context.previous.get("shards"), recipe=recipe)

    with packing.Packer(shards, dataset=dataset, recipe=recipe, repairs=repairs, previous=previous) as packer:
        with ledgers.Writer(ledger) as writer:
            for placement in placing.iter_placements(folders, plan=plan, classes=dataset.classes, repairs=repairs):
                rows = packer.place(placement)
                writer.write(sample_ids=placement.sample_ids, extra={"split": placement.splits, "row": pa.array(rows)})
        packed = packer.write_payload(engine=context.engine, progress=context.progress)
    print(f"shard: {packed.summary()}", flush=True)

    planned = reading.iter_decided(
        folders, decisions=plan, repairs=repairs, columns=["sample_id", *recipe.columns], decided=exporting.DECIDED
    )
    num_files = exporting.export(
        planned, wishes=params.exports, folder=exports, dataset=dataset, preprocessor=recipe.preprocessor
    )
    return {"rows": packed.rows, "bytes": packed.size_bytes, "exported_files": num_files}


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
    outputs={"shards": catalog.SHARD_SHARDS, "ledger": catalog.SHARD_LEDGER, "exports": catalog.SHARD_EXPORTS},
    account=Account(ledger="ledger", population=("plan",)),
    by_part=True,
)
