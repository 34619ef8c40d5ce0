"""Stage preprocess: how samples become arrays, learnt from the training split."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from datamill import catalog
from datamill.stage import Context, Metrics, Params, Stage

if TYPE_CHECKING:
    import pyarrow as pa


class ImageParams(Params):
    """How images become arrays; without effect on tables."""

    height: PositiveInt | None
    """Height of every image (px); null takes the one most training images have."""
    width: PositiveInt | None
    """Width of every image (px); null takes the one most training images have."""
    channels: Literal["auto", 1, 3]
    """Channels of every image: 1 grey, 3 RGB, auto is RGB as soon as one training image has colour."""
    normalise: Literal["standardise", "unit", "symmetric"]
    """Pixels as the network sees them: standardise (mean 0, deviation 1), unit [0, 1] or symmetric [-1, 1]."""


class TableParams(Params):
    """How rows become features; without effect on images."""

    numeric: Literal["standardise", "minmax", "symmetric"]
    """Scale of numbers: standardise (mean 0, deviation 1), minmax [0, 1] or symmetric [-1, 1]."""
    categorical: Literal["one_hot", "ordinal"]
    """Encoding of categories; a missing one is a category of its own, an unknown one is all zero (ordinal: -1)."""
    impute: Literal["mean", "median", "mode", "knn"]
    """What replaces a missing number: a value of its column, or the mean of the nearest training rows (knn)."""
    num_neighbors: PositiveInt
    """Nearest training rows that knn takes the mean of (count)."""
    max_reference: PositiveInt
    """Training rows kept for knn (count); stored with the preprocessor."""
    max_categories: int = Field(ge=1, le=10_000)
    """Values encoded per category column, most frequent first (count); the others count as unknown."""


class PreprocessParams(Params):
    """Section ``preprocess``."""

    seed: NonNegativeInt
    """Seeds the choice of rows kept for knn, and of those whose medians stand for all of a large table."""
    image: ImageParams
    """How images become arrays; without effect on tables."""
    table: TableParams
    """How rows become features; without effect on images."""


def preprocess(
    *,
    samples: Path,
    repairs: Path,
    features: Path,
    assignments: Path,
    state: Path,
    params: PreprocessParams,
    context: Context,
) -> Metrics:
    """Fit sizes, statistics, imputers and encoders on the training split alone.

    Raises:
        DataError: The training split is empty.
    """
    import pyarrow.compute as pc

    from datamill import ledger, parts, preprocessing, reading
    from datamill.preprocessing import fitting

    dataset = parts.read_manifest(samples).dataset
    is_train = reading.in_split("train")
    decisions = ledger.iter_tables(assignments, columns=["fate", "split"])
    num_train = sum(pc.sum(is_train(table)).as_py() or 0 for table in decisions)

    def read(columns: Sequence[str]) -> "Iterable[pa.Table]":
        is_image = dataset.modality == "image"  # without repairs before this stage: features are those of its samples
        joined = reading.iter_decided(
            [features if is_image else samples],
            decisions=assignments,
            repairs=None if is_image else repairs,
            columns=["sample_id", *columns],
            decided=["split"],
            where=is_train,
        )
        return context.progress((table for table, _ in joined), total=None, label="fitting")

    fitted: preprocessing.ImagePreprocessor | preprocessing.TabularPreprocessor
    if dataset.modality == "image":
        fitted = fitting.fit_images(read(fitting.IMAGE_COLUMNS), **params.image.model_dump())
    else:
        fitted = fitting.fit_tabular(read, dataset=dataset, seed=params.seed, **params.table.model_dump())
    preprocessing.save_preprocessor(fitted, state)
    return {
        "train_rows": num_train,
        "values_per_sample": math.prod(fitted.shape),
        "pixel_mean": {str(channel): mean for channel, mean in enumerate(fitted.mean)},
        "pixel_std": {str(channel): std for channel, std in enumerate(fitted.std)},
    }


STAGE = Stage(
    run=preprocess,
    params=PreprocessParams,
    inputs={
        "samples": catalog.INGEST_SAMPLES,
        "repairs": catalog.CLEAN_REPAIRS,
        "features": catalog.EXTRACT_FEATURES,
        "assignments": catalog.SPLIT_ASSIGNMENTS,
    },
    outputs={"state": catalog.PREPROCESS_STATE},
)
