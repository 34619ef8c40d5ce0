"""Measures the trained network on the test split."""

from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from datamill import catalog
from datamill.stage import Context, Metrics, Params, Stage


class BaselineParams(Params):
    """The logistic regression that the network is measured against."""

    max_rows: PositiveInt
    """Training rows it sees at most, drawn at random (count)."""
    max_iterations: PositiveInt
    """Steps of its solver at most (count)."""
    regularisation: PositiveFloat
    """Strength of the L2 penalty, relative to the mean loss of a row."""


class ReferenceParams(Params):
    """What the model will be compared with while it is watched."""

    max_samples: PositiveInt
    """Samples kept beside the model at most: of the test split first, then of validation (count)."""


class EvaluateParams(Params):
    """How the network is measured."""

    seed: int = Field(ge=0)
    """Seeds the resamples and the baseline's rows."""
    batch_size: PositiveInt
    """Samples predicted at a time (count); bounds memory, not results."""
    num_resamples: int = Field(ge=100, le=100_000)
    """Bootstrap resamples behind each interval (count)."""
    level: float = Field(gt=0.5, lt=1)
    """Coverage of every interval (share)."""
    num_bins: int = Field(ge=2, le=100)
    """Equal-width confidence bins of the calibration error (count)."""
    min_slice: PositiveInt
    """Samples a slice needs to be named the worst one (count)."""
    num_mistakes: NonNegativeInt
    """Most confident mistakes on the sheet (count)."""
    baseline: BaselineParams
    """The simple model beside the network."""
    reference: ReferenceParams
    """What the model will be compared with while it is watched."""


def evaluate(
    *,
    samples: Path,
    repairs: Path,
    shards: Path,
    network: Path,
    weights: Path,
    preprocessor: Path,
    predictions: Path,
    confusion: Path,
    calibration: Path,
    slices: Path,
    mistakes: Path,
    reference: Path,
    params: EvaluateParams,
    context: Context,
) -> Metrics:
    """Measure the network on the test split, with intervals, beside a baseline.

    A sample of what it was measured on stays beside it, to compare new data with. Validation samples are predicted as
    well: their numbers chose the checkpoint, so they carry no interval.

    Raises:
        StageError: The test split has no samples.
    """
    import numpy as np
    import torch

    from datamill.evaluation import bootstrap, reports
    from datamill.evaluation.baseline import fit_baseline
    from datamill.evaluation.calibration import reliability
    from datamill.evaluation.comparison import Resampling, compare, headlines, per_class, positive_class
    from datamill.evaluation.prediction import as_predictions, open_splits, predict
    from datamill.evaluation.referencing import choose_rows, write_sampled
    from datamill.evaluation.slices import measure, slicings, worst
    from datamill.evaluation.traits import read_pictures, read_traits
    from datamill.networks import load_network

    torch.set_num_threads(context.num_threads)
    split = open_splits(shards)
    model = load_network(network, weights)
    found = {
        name: predict(model, shard=split[name], batch_size=params.batch_size, context=context)
        for name in ("validation", "test")
    }
    reports.write_predictions(predictions, shards=split, probabilities=found)

    test, truth = split["test"], as_predictions(split["test"], probabilities=found["test"])
    reports.write_confusion(confusion, predictions=truth, classes=test.classes)
    reports.write_rows(calibration, reliability(truth, num_bins=params.num_bins))

    traits = read_traits(samples, repairs=repairs, ids=test.ids(), progress=context.progress)
    labels = [test.classes[number] for number in truth.label]
    sliced = measure(slicings(traits, labels=labels), is_correct=truth.is_correct, level=params.level)
    reports.write_rows(slices, sliced)

    shown = reports.confident_mistakes(truth, count=params.num_mistakes)
    pictures = read_pictures(samples, repairs=repairs, ids=test.ids(shown))
    reports.write_mistakes(mistakes, predictions=truth, rows=shown, pictures=pictures, classes=test.classes)

    rng = np.random.default_rng([params.seed, 0])
    baseline = fit_baseline(split["train"], **params.baseline.model_dump(), rng=rng)
    drawn, unit = bootstrap.units(traits[0][1].to_pylist())
    resampling = Resampling(drawn, params.num_resamples, params.level, num_bins=params.num_bins, seed=params.seed)
    simple = as_predictions(test, probabilities=baseline.probabilities(test))
    compared = compare(truth, baseline=simple, resampling=resampling)
    write_sampled(
        reference,
        shards=split,
        rows=choose_rows(split, max_samples=params.reference.max_samples, seed=params.seed),
        network=model,
        samples=samples,
        repairs=repairs,
        weights=weights,
        preprocessor=preprocessor,
        accuracy=compared["accuracy"],
        batch_size=params.batch_size,
        context=context,
    )
    compared["baseline"] |= {"rows": baseline.num_rows, "has_converged": baseline.has_converged}
    validation = as_predictions(split["validation"], probabilities=found["validation"])
    notes = {**reports.notes(truth, classes=test.classes), **reports.compare_note(compared)}
    for note in notes.values():
        print(f"evaluate: {note}", flush=True)
    return {
        "samples": truth.num_samples,
        **compared,
        "resampled_unit": unit,
        "validation": {"samples": validation.num_samples, **headlines(validation, num_bins=params.num_bins)},
        "class": per_class(truth, classes=test.classes),
        "binary": positive_class(truth, classes=test.classes),
        "worst_slice": reports.as_metrics(worst(sliced, min_count=params.min_slice)),
        "notes": notes,
    }


STAGE = Stage(
    run=evaluate,
    params=EvaluateParams,
    inputs={
        "samples": catalog.INGEST_SAMPLES,
        "repairs": catalog.CLEAN_REPAIRS,
        "shards": catalog.SHARD_SHARDS,
        "network": catalog.TRAIN_NETWORK,
        "weights": catalog.TRAIN_BEST,
        "preprocessor": catalog.PREPROCESS_STATE,
    },
    outputs={
        "predictions": catalog.EVALUATE_PREDICTIONS,
        "confusion": catalog.EVALUATE_CONFUSION,
        "calibration": catalog.EVALUATE_CALIBRATION,
        "slices": catalog.EVALUATE_SLICES,
        "mistakes": catalog.EVALUATE_MISTAKES,
        "reference": catalog.EVALUATE_REFERENCE,
    },
)
