"""Stage balance: what every training sample counts for, and new ones for classes that are short of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from datamill import catalog
from datamill.stage import Account, Metrics, Params, Stage

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from datamill.balancing.planning import Population, Treatment
    from datamill.preprocessing import Preprocessor


class BalanceParams(Params):
    """Section ``balance``."""

    method: Literal["none", "class_weights", "weighted_sampling", "smote", "adasyn", "smote_tomek", "random_under"]
    """What evens out the classes of the training split.

    ``class_weights`` weighs the loss, ``weighted_sampling`` draws rare classes more often; ``smote`` and ``adasyn``
    interpolate new samples between those of the source, ``smote_tomek`` also removes pairs of neighbours of different
    classes; ``random_under`` removes samples of large classes; ``none`` leaves all as it is.
    """
    ratio: float = Field(gt=0, le=1)
    """Size of the smallest class over that of the largest that over- and under-sampling aim at."""
    num_neighbors: PositiveInt
    """Nearest samples of a class to interpolate with (count); a small class uses all it has."""
    min_rows: PositiveInt
    """Samples random_under leaves in every class at least (count)."""
    max_weight: PositiveFloat
    """Largest class weight, or draw; a class of very few samples would otherwise outweigh all."""
    max_values: PositiveInt
    """Numbers (samples times values per sample) over-sampling may hold in memory; beyond it the stage refuses."""
    seed: NonNegativeInt
    """Seeds which samples are made or removed."""


def balance(
    *,
    samples: Path,
    repairs: Path,
    audited: Path,
    copies: Path,
    synthetic: Path,
    preprocessor: Path,
    plan: Path,
    resampled: Path,
    params: BalanceParams,
) -> Metrics:
    """Plan what each sample counts for in training, and even out the classes of train.

    Copies and synthetic samples count towards the size of a class, but new samples are interpolated between samples of
    the source only. Validation and test are never touched.

    Raises:
        DataError: Over-sampling would hold more than ``max_values`` numbers.
    """
    from datamill import parts, reading
    from datamill.balancing import planning, treatments
    from datamill.preprocessing import load_preprocessor
    from datamill.samples import LIGHT_COLUMNS

    dataset = parts.read_manifest(samples).dataset
    fitted = load_preprocessor(preprocessor)
    generated = (copies, synthetic)
    population = planning.read_population(audited, generated=generated, classes=dataset.classes)
    payload = [name for name in dataset.arrow_schema().names if name not in LIGHT_COLUMNS]
    originals = reading.iter_decided(
        [samples],
        decisions=audited,
        repairs=repairs,
        columns=["sample_id", *payload],
        decided=["split"],
        where=reading.in_split("train"),
    )
    treatment = _treat(population, tables=(table for table, _ in originals), preprocessor=fitted, params=params)

    made = treatments.resampled_tables(population, treatment, preprocessor=fitted, method=params.method)
    with parts.PartsWriter(resampled, dataset=dataset) as writer:
        for table in made:
            writer.write(table)
    planning.write_plan(
        plan,
        audited=audited,
        generated=generated,
        resampled=resampled,
        population=population,
        treatment=treatment,
        method=params.method,
    )
    return planning.measure(population, treatment)


def _treat(
    population: "Population", *, tables: "Iterable[pa.Table]", preprocessor: "Preprocessor", params: BalanceParams
) -> "Treatment":
    from datamill.balancing import treatments

    match params.method:
        case "random_under":
            return treatments.undersample(population, ratio=params.ratio, min_rows=params.min_rows, seed=params.seed)
        case "none" | "class_weights" | "weighted_sampling" as method:
            return treatments.reweigh(population, method=method, max_factor=params.max_weight)
        case "smote" | "adasyn" | "smote_tomek" as method:
            treatments.require_fits(population, preprocessor=preprocessor, method=method, max_values=params.max_values)
            return treatments.oversample(
                population,
                tables=tables,
                preprocessor=preprocessor,
                method=method,
                ratio=params.ratio,
                num_neighbors=params.num_neighbors,
                seed=params.seed,
            )


STAGE = Stage(
    run=balance,
    params=BalanceParams,
    inputs={
        "samples": catalog.INGEST_SAMPLES,
        "repairs": catalog.CLEAN_REPAIRS,
        "audited": catalog.AUDIT_LEDGER,
        "copies": catalog.AUGMENT_COPIES,
        "synthetic": catalog.SYNTHESIZE_SAMPLES,
        "preprocessor": catalog.PREPROCESS_STATE,
    },
    outputs={"plan": catalog.BALANCE_PLAN, "resampled": catalog.BALANCE_RESAMPLED},
    account=Account(ledger="plan", population=("audited", "copies", "synthetic"), created=("resampled",)),
)
