"""Stage split: which samples teach, which tune and which judge."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from datamill import catalog
from datamill.stage import Account, Context, Metrics, Params, Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from datamill.splitting import Rule


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


def split(*, samples: Path, cleaned: Path, assignments: Path, params: SplitParams, context: Context) -> Metrics:
    """Assign every sample to train, validation or test, keeping near-duplicates and groups whole.

    Raises:
        DataError: A split would be empty, or a sample lacks the group or time the strategy needs.
    """
    import numpy as np
    import pyarrow as pa

    from datamill import imports, ledger, parts, reading, splitting
    from datamill.recall import State
    from datamill.runs import regrouped

    classes = parts.read_manifest(samples).dataset.classes
    rule = _rule(params)
    made_with = f"{params.model_dump_json()} {classes} {imports.digest(__name__)}"
    state, roll = State(context.state / "drawn", made_with=made_with), splitting.Roll(context.scratch)
    joined = reading.iter_decided(
        [samples],
        decisions=cleaned,
        columns=["content_hash", "label", "group", "time"],
        decided=["fate", "leak_group"],
        where=lambda table: pa.array(np.ones(table.num_rows, bool)),  # dropped samples tie others
    )
    for traits in regrouped(splitting.observe(*tables, classes=classes, rule=rule) for tables in joined):
        roll.add(traits)

    counts, num_units = np.zeros((len(classes), len(splitting.SPLITS)), np.int64), 0

    def assigned() -> Iterator[pa.Table]:
        nonlocal counts, num_units
        for some in splitting.assign(roll, classes=classes, rule=rule, state=state):
            counts += np.bincount(some.labels * len(splitting.SPLITS) + some.splits, minlength=counts.size).reshape(
                counts.shape
            )
            num_units += some.num_units
            yield pa.table({"split": pa.array(splitting.SPLITS).take(pa.array(some.splits)), "fold": some.folds})

    with ledger.Writer(assignments) as writer:
        survivors = parts.regrouped(ledger.iter_survivors(cleaned), rows=ledger.READ_ROWS)
        for kept, where in zip(survivors, parts.regrouped(assigned(), rows=ledger.READ_ROWS), strict=True):
            writer.write(sample_ids=kept["sample_id"], extra={"split": where["split"], "fold": where["fold"]})
        splitting.require_all(counts.sum(axis=0).tolist())
    return _numbers(counts, classes=classes, num_units=num_units)


def _rule(params: SplitParams) -> "Rule":
    from datamill.splitting import Rule

    return Rule(
        strategy=params.strategy,
        shares=tuple(params.fractions.model_dump().values()),
        cuts=[moment for moment in (params.validation_from, params.test_from) if moment is not None],
        num_folds=params.folds,
        seed=params.seed,
    )


def _numbers(counts: "NDArray[np.int64]", *, classes: Sequence[str], num_units: int) -> Metrics:
    """Samples per split and per class and split; the classes a split lacks, by name.

    Args:
        counts: Samples of each class in each split, shape ``(K, 3)``.
        classes: Class names by number.
        num_units: Units of samples that share a split (count).
    """
    from datamill.splitting import SPLITS

    sizes = dict(zip(classes, counts.tolist(), strict=True))
    per_class = {label: dict(zip(SPLITS, sizes[label], strict=True)) for label in sorted(classes) if any(sizes[label])}
    totals = {name: sum(size[name] for size in per_class.values()) for name in SPLITS}
    absent = {name: ", ".join(label for label, size in per_class.items() if not size[name]) for name in SPLITS}
    return {
        "samples": totals,
        "shares": {name: totals[name] / int(counts.sum()) for name in SPLITS},
        "units": num_units,
        "classes": per_class,
        "absent_classes": {name: labels for name, labels in absent.items() if labels},
    }


STAGE = Stage(
    run=split,
    params=SplitParams,
    inputs={"samples": catalog.INGEST_SAMPLES, "cleaned": catalog.CLEAN_LEDGER},
    outputs={"assignments": catalog.SPLIT_ASSIGNMENTS},
    account=Account(ledger="assignments", population=("cleaned",)),
)
