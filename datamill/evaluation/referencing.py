"""The model's reference: a bounded sample of what it was measured on, for those who watch it later."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import nn

from datamill import files, parts, reading
from datamill.monitoring.reference import Headline, write_reference
from datamill.monitoring.traits import read_traits
from datamill.networks.answers import answer
from datamill.sampling import scores, smallest
from datamill.shards.native import Shard
from datamill.stage import Context

REFERENCE_SPLITS = ("test", "validation")  # validation only fills up: its numbers chose the checkpoint


def choose_rows(shards: Mapping[str, Shard], *, max_samples: int, seed: int) -> dict[str, NDArray[np.int64]]:
    """Rows of the reference by split, ascending: of the test split first, of validation what is left of the limit."""
    chosen: dict[str, NDArray[np.int64]] = {}
    left = max_samples
    for name in REFERENCE_SPLITS:
        values = scores(pa.array(shards[name].ids(), pa.string()), key=f"reference {seed}")
        chosen[name] = smallest(values, groups=np.zeros(len(values), np.int64), size=left)
        left -= len(chosen[name])
    return chosen


def write_sampled(
    folder: Path,
    *,
    shards: Mapping[str, Shard],
    rows: Mapping[str, NDArray[np.int64]],
    network: nn.Module,
    samples: Path,
    repairs: Path,
    weights: Path,
    preprocessor: Path,
    accuracy: float,
    batch_size: int,
    context: Context,
) -> None:
    """Write the reference of a network from rows of its shards.

    Args:
        folder: Where to.
        shards: By split.
        rows: Rows of each split.
        network: Trained.
        samples: Parts folder with the payload of every sample, for light features and times.
        repairs: Parts folder of repaired ones.
        weights: The network's; their SHA-256 is its name.
        preprocessor: What made the shards' rows.
        accuracy: On the whole test split.
        batch_size: Rows predicted at a time.
        context: Where to compute.
    """
    ids = [key for name, some in rows.items() for key in shards[name].ids(some)]
    times, features = _described(ids, samples=samples, repairs=repairs, context=context)
    inputs = np.concatenate([np.asarray(shards[name].x[some]) for name, some in rows.items()])
    embeddings, probabilities = answer(network, rows=inputs, batch_size=batch_size, device=context.device)
    labels = np.concatenate([shards[name].label[some] for name, some in rows.items()]).astype(np.int64)
    splits = [name for name, some in rows.items() for _ in some]
    write_reference(
        folder,
        identity={"sample_id": ids, "split": splits, "label": labels, "time": times},
        features=features,
        arrays={"inputs": inputs, "embeddings": embeddings, "probabilities": probabilities},
        dataset=shards["test"].dataset,
        model_sha256=files.sha256_file(weights),
        preprocessor_sha256=files.sha256_file(preprocessor),
        headline=Headline(name="accuracy", value=accuracy),
    )


def _described(
    ids: Sequence[str], *, samples: Path, repairs: Path, context: Context
) -> tuple[pa.ChunkedArray, pa.Table]:
    """Times and light features of some samples, in the order of ``ids``."""
    dataset = parts.read_manifest(samples).dataset
    found, times, traits = [], [], []
    tables = reading.iter_samples([samples], wanted=set(ids), repairs=repairs)
    for table in context.progress(tables, total=None, label="describing the reference"):
        found += table["sample_id"].to_pylist()
        times.append(table["time"])
        traits.append(read_traits(table, dataset=dataset))
    place = {key: number for number, key in enumerate(found)}
    order = pa.array([place[key] for key in ids], pa.int64())
    together = pa.chunked_array([chunk for one in times for chunk in one.chunks], pa.timestamp("us", tz="UTC"))
    return together.take(order), pa.concat_tables(traits).take(order).combine_chunks()
