"""Stage split: which samples teach, which tune and which judge."""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from datamill import catalog
from datamill.stage import Account, Metrics, Params, Stage


class Fractions(Params):
    """Target share of samples per split; they sum to 1."""

    train: float = Field(gt=0, lt=1)
    """Share of samples to fit on."""
    validation: float = Field(gt=0, lt=1)
    """Share of samples to choose by (early stopping, thresholds)."""
    test: float = Field(gt=0, lt=1)
    """Share of samples to judge by, once."""

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if not math.isclose(total, 1, abs_tol=1e-9):
            raise ValueError(f"train, validation and test sum to {total:g} and must sum to 1")
        return self


class SplitParams(Params):
    """Section ``split``."""

    strategy: Literal["hash", "stratified", "stratified_exact", "group", "time"]
    """How samples are assigned: hash, stratified, stratified_exact, group or time.

    Near-duplicates, and samples of one group where the source names groups, share a split under every strategy.
    ``hash``, ``stratified`` and ``group`` assign by content or group alone: no sample ever moves, whatever is appended,
    removed or reordered. ``stratified`` hashes each class in a stream of its own; like ``hash`` it meets the fractions
    of every class in expectation, within binomial error. No rule that lets the sample alone decide can do better;
    ``stratified_exact`` does, to one sample in every 20 of a class, and in return is stable only while new samples come
    after the old ones. ``group`` is ``hash`` that insists on groups. ``time`` cuts at the two moments below.
    """
    fractions: Fractions
    """Target shares; without effect on strategy time, where fractions of a growing span would move."""
    validation_from: datetime | None
    """First moment of the validation split for strategy time (ISO 8601; UTC unless it says otherwise), else null."""
    test_from: datetime | None
    """First moment of the test split for strategy time (ISO 8601; UTC unless it says otherwise), else null."""
    folds: int = Field(ge=2, le=100)
    """Folds of the training split for cross-validation (count)."""
    seed: NonNegativeInt
    """Seeds the assignment; equal seeds give equal splits."""

    @field_validator("validation_from", "test_from")
    @classmethod
    def _in_utc(cls, moment: datetime | None) -> datetime | None:
        return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment

    @model_validator(mode="after")
    def _cuts_belong_to_time(self) -> Self:
        cuts = (self.validation_from, self.test_from)
        if self.strategy != "time" and cuts != (None, None):
            raise ValueError(
                f"validation_from and test_from are for strategy 'time', not {self.strategy!r}; make them null"
            )
        if self.strategy == "time" and (self.validation_from is None or self.test_from is None):
            raise ValueError("strategy 'time' needs validation_from and test_from")
        if self.validation_from and self.test_from and self.validation_from >= self.test_from:
            raise ValueError(f"validation_from {self.validation_from} must come before test_from {self.test_from}")
        return self


def split(*, samples: Path, cleaned: Path, assignments: Path, params: SplitParams) -> Metrics:
    """Assign every sample to train, validation or test, keeping near-duplicates and groups whole.

    Raises:
        DataError: A split would be empty, or a sample lacks the group or time the strategy needs.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from datamill import ledger, parts, splitting

    light = parts.read_table(samples, columns=["sample_id", "content_hash", "label", "group", "time"])
    fates = ledger.read(cleaned, columns=["sample_id", "fate", "leak_group"])
    table = light.take(pc.index_in(fates["sample_id"], value_set=light["sample_id"].combine_chunks()))
    if params.strategy == "group":
        splitting.require_groups(table["group"].to_pylist())
    everyone = splitting.find_units(table, leak_groups=fates["leak_group"].to_pylist())
    surviving = np.flatnonzero(pc.is_in(fates["fate"], pa.array(ledger.SURVIVING)))
    table, units = table.take(pa.array(surviving)), everyone.take(surviving)

    if params.strategy == "time":
        assert params.validation_from is not None
        assert params.test_from is not None
        splits = splitting.by_time(
            table["time"], units=units, validation_from=params.validation_from, test_from=params.test_from
        )
    else:
        shares = tuple(params.fractions.model_dump().values())
        splits = splitting.by_hash(units, strategy=params.strategy, shares=shares, seed=params.seed)
    splitting.require_all(splits)
    folds = splitting.assign_folds(units, splits=splits, num_folds=params.folds, seed=params.seed)

    names = [splitting.SPLITS[position] for position in splits]
    blank = [""] * len(names)
    ledger.write(
        assignments,
        sample_ids=table["sample_id"],
        fates=["kept"] * len(names),
        reasons=blank,
        details=blank,
        extra={"split": pa.array(names, pa.string()), "fold": pa.array(folds, pa.int8())},
    )
    return _numbers(names, labels=table["label"].to_pylist(), num_units=len(set(units.first.tolist())))


def _numbers(splits: Sequence[str], *, labels: Sequence[str], num_units: int) -> Metrics:
    """Samples per split and per class and split; the classes a split lacks, by name."""
    sizes = Counter(splits)
    per_class = Counter(zip(labels, splits, strict=True))
    classes = sorted(set(labels))
    names = ("train", "validation", "test")
    absent = {name: ", ".join(label for label in classes if not per_class[label, name]) for name in names}
    return {
        "samples": {name: sizes[name] for name in names},
        "shares": {name: sizes[name] / len(splits) for name in names},
        "units": num_units,
        "classes": {label: {name: per_class[label, name] for name in names} for label in classes},
        "absent_classes": {name: labels for name, labels in absent.items() if labels},
    }


STAGE = Stage(
    run=split,
    params=SplitParams,
    inputs={"samples": catalog.INGEST_SAMPLES, "cleaned": catalog.CLEAN_LEDGER},
    outputs={"assignments": catalog.SPLIT_ASSIGNMENTS},
    account=Account(ledger="assignments", population=("cleaned",)),
)
