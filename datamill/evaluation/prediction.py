"""Class probabilities of a network over a shard."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from datamill.errors import StageError
from datamill.evaluation.metrics import Predictions
from datamill.networks import to_input
from datamill.shards.native import Shard, open_shard
from datamill.stage import Context

SPLITS = ("train", "validation", "test")


def open_splits(shards: Path) -> dict[str, Shard]:
    """The shard of every split.

    Raises:
        StageError: The test split has no samples, so nothing can be measured.
        DataError: A shard is missing or damaged.
    """
    split = {name: open_shard(shards / name) for name in SPLITS}
    if not split["test"].num_rows:
        raise StageError(
            f"the test split has 0 samples (train has {split['train'].num_rows}), so nothing can be measured; give "
            f"test a larger share in the split section of params.yaml, or ingest more samples"
        )
    return split


def predict(network: nn.Module, *, shard: Shard, batch_size: int, context: Context) -> NDArray[np.float32]:
    """Probability of every class for every row of a shard, shape ``(N, K)``, rows in order.

    Args:
        network: Maps a batch of inputs to logits, shape ``(B, K)``.
        shard: Rows to predict; may be empty.
        batch_size: Rows at a time.
        context: Device to compute on, and how to show progress.
    """
    network = network.to(context.device).eval()
    probabilities = np.empty((shard.num_rows, len(shard.classes)), np.float32)
    starts = range(0, shard.num_rows, batch_size)
    with torch.inference_mode():
        for start in context.progress(starts, total=len(starts), label=f"predicting {shard.split}"):
            rows = slice(start, start + batch_size)
            logits = network(to_input(shard.x[rows], device=context.device))
            probabilities[rows] = torch.softmax(logits, dim=1).cpu().numpy()
    return probabilities


def as_predictions(shard: Shard, *, probabilities: NDArray[np.float32]) -> Predictions:
    """A shard's labels beside the probabilities of its rows."""
    return Predictions(label=np.asarray(shard.label, np.int64), probabilities=probabilities.astype(np.float64))
