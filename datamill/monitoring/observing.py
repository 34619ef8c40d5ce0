"""The model that is watched, and what it sees in new data."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import nn

from datamill import catalog
from datamill.drift.observations import Observations
from datamill.errors import StageError
from datamill.monitoring.reference import FOREIGN_LABEL, UNKNOWN_LABEL, Reference, read_reference, require_model
from datamill.monitoring.traits import read_traits
from datamill.networks import load_network, read_spec
from datamill.networks.answers import answer
from datamill.preprocessing import Preprocessor, load_preprocessor
from datamill.samples import Dataset
from datamill.sources.columns import as_number

CHAMPION = "models/champion"
NO_CHAMPION = "no champion yet: the model that was trained last is watched"


@dataclass(frozen=True)
class WatchedModel:
    """A model, how it is fed, and what it was measured on.

    Attributes:
        name: Short and for good: the champion's version, or the beginning of the weights' SHA-256.
        network: In evaluation mode.
        preprocessor: Makes its inputs.
        reference: What it was measured on.
        notes: What people should know of it.
    """

    name: str
    network: nn.Module
    preprocessor: Preprocessor
    reference: Reference
    notes: tuple[str, ...] = ()

    @property
    def dataset(self) -> Dataset:
        """What it was trained on."""
        return self.reference.description.dataset


class Observed(NamedTuple):
    """Samples as the model meets them, row by row."""

    features: pa.Table
    inputs: NDArray[Any]
    embeddings: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    predictions: NDArray[np.float64] | None = None


def open_model(root: Path) -> WatchedModel:
    """The champion, or where there is none the model that was trained last.

    Raises:
        StageError: The workspace has no model.
        DataError: The reference belongs to another model, or a file is damaged.
    """
    champion = root / CHAMPION
    if champion.exists():
        folder = champion.resolve()  # so that another champion in the meantime changes nothing here
        names = (catalog.TRAIN_NETWORK, catalog.TRAIN_BEST, catalog.PREPROCESS_STATE)
        network, weights, preprocessor = (folder / Path(artifact.path).name for artifact in names)
        return _open(network, weights, preprocessor, folder / "reference", name=folder.name, notes=())
    network, weights = root / catalog.TRAIN_NETWORK.path, root / catalog.TRAIN_BEST.path
    reference = root / catalog.EVALUATE_REFERENCE.path
    if not reference.exists():
        raise StageError(
            f"{root} has no model to watch: there is neither {CHAMPION} nor {catalog.EVALUATE_REFERENCE.path}; "
            "`datamill run` trains one and measures it"
        )
    preprocessor = root / catalog.PREPROCESS_STATE.path
    return _open(network, weights, preprocessor, reference, name="", notes=(NO_CHAMPION,))


def observe(table: pa.Table, *, model: WatchedModel, batch_size: int, device: str) -> Observed:
    """What the model sees of samples, which ``table`` holds with their payload; at least one."""
    inputs = model.preprocessor.arrays(table)
    embeddings, probabilities = answer(model.network, rows=inputs, batch_size=batch_size, device=device)
    traits = read_traits(table, dataset=model.dataset)
    if not model.reference.is_regression:
        return Observed(traits, inputs, embeddings, probabilities)
    with torch.inference_mode():
        (answers,) = model.network.get_submodule("head")(torch.from_numpy(embeddings).to(device)).cpu().T
    return Observed(traits, inputs, embeddings, probabilities[:, :0], answers.numpy().astype(np.float64))


def reference_observations(reference: Reference) -> Observations:
    """The reference's test samples as drift is judged on; validation chose the checkpoint, so it is left out."""
    test = reference.only("test")
    shared = Observations(
        sample_ids=tuple(test.rows["sample_id"].to_pylist()),
        features=test.features,
        embeddings=np.asarray(test.embeddings),
        times=as_times(test.rows["time"]),
    )
    if reference.is_regression:
        return replace(shared, predictions=np.asarray(test.predictions), targets=test.targets)
    return replace(
        shared,
        classes=reference.description.dataset.classes,
        probabilities=np.asarray(test.probabilities),
        labels=test.rows["label"].to_numpy(),
    )


def as_labels(names: pa.ChunkedArray, *, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Numbers of classes by name: -1 for the empty name, -2 for a name that is no class."""
    numbers = pc.fill_null(pc.index_in(names, value_set=pa.array(classes, pa.string())), FOREIGN_LABEL)
    unknown = pc.equal(names, "")
    return np.asarray(pc.if_else(unknown, UNKNOWN_LABEL, numbers).to_numpy(), np.int64)


def as_targets(names: pa.ChunkedArray) -> NDArray[np.float64]:
    """A regression's targets, which come as labels: NaN for the empty text and for what is no number."""
    return np.asarray(as_number(names.combine_chunks()).values.to_numpy(zero_copy_only=False), np.float64)


def as_times(column: pa.ChunkedArray) -> NDArray[np.datetime64]:
    """Times in UTC, ``NaT`` where there is none."""
    naive = column.cast(pa.timestamp("us"))
    return np.asarray(naive.to_numpy(), "datetime64[us]")


def matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A column of equally long lists, shape ``(N, D)``."""
    size = column.type.list_size
    pieces = [chunk.flatten().to_numpy().reshape(-1, size) for chunk in column.chunks]
    return np.concatenate([np.empty((0, size), np.float32), *pieces])


def lists(rows: NDArray[np.float32]) -> pa.Array:
    """Rows of numbers, shape ``(N, D)``, as a column of equally long lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


def _open(
    network: Path, weights: Path, preprocessor: Path, reference: Path, *, name: str, notes: tuple[str, ...]
) -> WatchedModel:
    found = read_reference(reference)
    spec = read_spec(network)
    require_model(found.description, weights=weights, preprocessor=preprocessor, classes=spec.classes)
    return WatchedModel(
        name=name or found.description.model_sha256[:12],
        network=load_network(network, weights),
        preprocessor=load_preprocessor(preprocessor),
        reference=found,
        notes=notes,
    )
