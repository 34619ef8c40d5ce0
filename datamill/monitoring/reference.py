"""A model's reference on disk: samples as the model met them when it was measured, to compare new data with.

Layout of a reference folder::

    rows.parquet         sample_id, split, label, time, and one column ``feature:<name>`` per light feature
    inputs.npy           what the network took: uint8 (N, H, W, C) or float32 (N, D)
    embeddings.npy       what its last hidden layer gave, float32 (N, E)
    probabilities.npy    what it answered, float32 (N, K); of a regression predictions.npy, float64 (N,)
    reference.json       whose it is, and the SHA-256 of the other files; written last

Of a regression, ``rows.parquet`` has the column ``target`` beside a label that is -1 throughout, and the data set's one
class is the target's name. A sample of a window of new data is kept in the same way, so that any two can be compared
with any model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from datamill import files, parts
from datamill.arrays import save
from datamill.errors import DataError
from datamill.samples import FEATURE_PREFIX, Dataset

VERSION = 1
DESCRIPTION, ROWS = "reference.json", "rows.parquet"
ARRAYS = ("inputs", "embeddings", "probabilities")
REGRESSION_ARRAYS = ("inputs", "embeddings", "predictions")
UNKNOWN_LABEL, FOREIGN_LABEL = -1, -2  # not known; known, and none of the model's classes
IDENTITY = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("time", pa.timestamp("us", tz="UTC")),
    ]
)
TARGET = pa.field("target", pa.float64())  # of a regression; null where it is not known


class Headline(BaseModel):
    """The number that the model is judged by, where it was measured."""

    model_config = ConfigDict(frozen=True)

    name: Literal["accuracy", "mae", "rmse"]
    value: float


class Description(BaseModel):
    """What ``reference.json`` says."""

    model_config = ConfigDict(frozen=True)

    version: int = VERSION
    dataset: Dataset
    """What holds for every sample: kind of data, columns, and the classes in the order of their numbers."""
    task: Literal["classification", "regression"] = "classification"
    """What the model answers: probabilities of classes, or a number."""
    splits: Mapping[str, int]
    """Samples of each split; a window's are all of ``window``."""
    model_sha256: str
    """Of the network's weights that gave embeddings and probabilities."""
    preprocessor_sha256: str
    """Of the preprocessor that made the inputs."""
    headline: Headline | None
    """Measured on the whole test split; none for a window."""
    sha256: Mapping[str, str]
    """Of each other file."""


@dataclass(frozen=True)
class Reference:
    """Samples of a reference; arrays are mapped into memory, and every field has N rows in the same order.

    Attributes:
        description: Whose they are.
        rows: Columns of ``IDENTITY``, then the light features with ``feature:`` before their names.
        inputs: What the network took, shape (N, ...).
        embeddings: float32, shape (N, E).
        probabilities: float32, shape (N, K); (N, 0) of a regression.
        predictions: Of a regression, float64, shape (N,); else empty.
    """

    description: Description
    rows: pa.Table
    inputs: NDArray[Any]
    embeddings: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    predictions: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __len__(self) -> int:
        """Number of samples."""
        return int(self.rows.num_rows)

    @property
    def is_regression(self) -> bool:
        """Whether the model answers with a number."""
        return self.description.task == "regression"

    @property
    def targets(self) -> NDArray[np.float64]:
        """What is true of a regression's samples, NaN where it is not known, shape (N,)."""
        return np.asarray(self.rows[TARGET.name].to_numpy(), np.float64)

    @property
    def features(self) -> pa.Table:
        """The light features under their own names."""
        names = [name for name in self.rows.column_names if name.startswith(FEATURE_PREFIX)]
        return self.rows.select(names).rename_columns([name.removeprefix(FEATURE_PREFIX) for name in names])

    def only(self, *splits: str) -> "Reference":
        """The samples of these splits."""
        is_wanted = pc.is_in(self.rows["split"], pa.array(splits, pa.string())).to_numpy(zero_copy_only=False)
        chosen = np.flatnonzero(is_wanted)
        rows = self.rows.take(pa.array(chosen))
        return _reference(self.description, rows, {name: getattr(self, name)[chosen] for name in _arrays(self)})


def write_reference(
    folder: Path,
    *,
    identity: Mapping[str, Any],
    features: pa.Table,
    arrays: Mapping[str, NDArray[Any]],
    dataset: Dataset,
    model_sha256: str,
    preprocessor_sha256: str,
    headline: Headline | None,
) -> Description:
    """Write samples as a reference; equal samples give equal bytes.

    Args:
        folder: Made here; must not hold anything yet.
        identity: The columns of ``IDENTITY``, and of a regression ``target``.
        features: Light features, one row per sample.
        arrays: ``inputs``, ``embeddings`` and ``probabilities``, or ``predictions`` of a regression.
        dataset: What holds for every sample.
        model_sha256: Of the weights.
        preprocessor_sha256: Of the preprocessor.
        headline: The model's number; ``None`` where it was not measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = REGRESSION_ARRAYS if "predictions" in arrays else ARRAYS
    schema = IDENTITY.append(TARGET) if names == REGRESSION_ARRAYS else IDENTITY
    rows = pa.table(dict(identity), schema=schema)
    for name in features.column_names:
        rows = rows.append_column(FEATURE_PREFIX + name, features[name])
    parts.write_parquet(rows.combine_chunks(), folder / ROWS)
    for name in names:
        with files.atomic_write(folder / f"{name}.npy") as partial, partial.open("wb") as file:
            save(file, arrays[name])
    splits = {pair["values"]: pair["counts"] for pair in pc.value_counts(rows["split"]).to_pylist()}
    description = Description(
        dataset=dataset,
        task="regression" if names == REGRESSION_ARRAYS else "classification",
        splits=splits,
        model_sha256=model_sha256,
        preprocessor_sha256=preprocessor_sha256,
        headline=headline,
        sha256={name: files.sha256_file(folder / name) for name in _files(names)},
    )
    files.write_json(folder / DESCRIPTION, description.model_dump(mode="json"))
    return description


def read_description(folder: Path) -> Description:
    """What a reference says of itself.

    Raises:
        DataError: It is missing, damaged or of another version.
    """
    path = folder / DESCRIPTION
    try:
        description = Description.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: run evaluate, which writes it beside the model, or dvc pull") from error
    except ValidationError as error:
        raise DataError(f"{path} is damaged ({error.error_count()} faults); run evaluate again") from error
    if description.version != VERSION:
        raise DataError(f"{path} has version {description.version}, this datamill reads {VERSION}; run evaluate again")
    return description


def read_reference(folder: Path) -> Reference:
    """The samples of a reference, after every file was compared with its SHA-256.

    Raises:
        DataError: A file is missing, was changed, or has another number of rows than the others.
    """
    description = read_description(folder)
    names = REGRESSION_ARRAYS if description.task == "regression" else ARRAYS
    for name in _files(names):
        path = folder / name
        found = files.sha256_file(path) if path.is_file() else "none"
        if found != description.sha256.get(name):
            raise DataError(f"{path} has SHA-256 {found[:12]}, {DESCRIPTION} says otherwise; run evaluate again")
    rows = pq.read_table(folder / ROWS)
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}
    counts = {rows.num_rows, *(len(array) for array in arrays.values())}
    if len(counts) > 1:
        raise DataError(f"{folder} holds {sorted(counts)} rows in its files, which must be equal; run evaluate again")
    return _reference(description, rows, arrays)


def require_model(description: Description, *, weights: Path, preprocessor: Path, classes: Sequence[str]) -> None:
    """Refuse a reference that another model, or another preprocessor, has made.

    Raises:
        DataError: Says which, with both digests.
    """
    for what, path, wanted in (
        ("model", weights, description.model_sha256),
        ("preprocessor", preprocessor, description.preprocessor_sha256),
    ):
        if not path.is_file():
            raise DataError(f"{path} is missing, so there is no {what} to watch; run the pipeline, or dvc pull")
        found = files.sha256_file(path)
        if found != wanted:
            raise DataError(
                f"the reference belongs to another {what}: it was made with SHA-256 {wanted[:12]}, and {path} has "
                f"{found[:12]}; run evaluate, so that the reference is this {what}'s own"
            )
    if tuple(classes) != description.dataset.classes:
        raise DataError(
            f"the reference knows the classes {list(description.dataset.classes)} and the model {list(classes)}; "
            "run evaluate again"
        )


def _files(arrays: Sequence[str]) -> tuple[str, ...]:
    return (ROWS, *(f"{name}.npy" for name in arrays))


def _arrays(reference: Reference) -> tuple[str, ...]:
    return REGRESSION_ARRAYS if reference.is_regression else ARRAYS


def _reference(description: Description, rows: pa.Table, arrays: Mapping[str, NDArray[Any]]) -> Reference:
    return Reference(description, rows, **{"probabilities": np.empty((rows.num_rows, 0), np.float32), **arrays})
