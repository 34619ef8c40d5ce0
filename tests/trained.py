"""A tiny workspace as it is after training: samples, shards, and a network that has learnt them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from datamill import files
from datamill.modalities import image
from datamill.networks import NetworkSpec, build, design, to_input
from datamill.preprocessing import ImagePreprocessor, NumberColumn, TabularPreprocessor, save_preprocessor
from datamill.samples import Dataset
from datamill.shards.entries import Field
from datamill.shards.native import Shard, open_shard
from datamill.shards.writing import ShardWriter
from tests.builders import CLASSES, image_table, tabular_table, write_parts

BOUNDS = {"train": (0, 40), "validation": (40, 50), "test": (50, 64)}


@dataclass(frozen=True)
class Trained:
    """Paths of the workspace's artifacts."""

    samples: Path
    repairs: Path
    shards: Path
    network: Path
    weights: Path
    preprocessor: Path

    def paths(self) -> dict[str, Path]:
        """The artifacts by port."""
        return dict(vars(self))

    def shard(self, split: str) -> Shard:
        """The shard of one split."""
        return open_shard(self.shards / split)


def train_images(folder: Path, *, bounds: dict[str, tuple[int, int]] = BOUNDS, steps: int = 30) -> Trained:
    """The builders' bars and a small CNN."""
    dataset, table = image_table()
    pixels = np.stack(image.decode_column(table))
    spec = design(
        "cnn", shape=pixels.shape[1:], classes=CLASSES, width=4, depth=1, dropout=0.0, mean=(0.3,), std=(0.3,)
    )
    fitted = ImagePreprocessor(height=8, width=8, channels=1, mean=(0.3,), std=(0.3,))
    data = (dataset, table, pixels, fitted)
    return _train(folder, data=data, spec=spec, bounds=bounds, steps=steps)


def train_tables(folder: Path, *, bounds: dict[str, tuple[int, int]] = BOUNDS, steps: int = 30) -> Trained:
    """The builders' clusters, their first two numbers as inputs, and a small MLP."""
    dataset, table = tabular_table()
    x = np.stack([table["feature:height"].to_numpy(), table["feature:width"].to_numpy()], axis=1).astype(np.float32) / 4
    spec = design("mlp", shape=(2,), classes=CLASSES, width=8, depth=1, dropout=0.0)
    numbers = tuple(NumberColumn(name=name, fill=0.0, offset=0.0, scale=4.0) for name in ("height", "width"))
    fitted = TabularPreprocessor(numbers=numbers, categories=(), encoding="one_hot", num_neighbors=None, reference=())
    return _train(folder, data=(dataset, table, x, fitted), spec=spec, bounds=bounds, steps=steps)


def _train(
    folder: Path,
    *,
    data: tuple[Dataset, pa.Table, NDArray[np.generic], ImagePreprocessor | TabularPreprocessor],
    spec: NetworkSpec,
    bounds: dict[str, tuple[int, int]],
    steps: int,
) -> Trained:
    dataset, table, x, fitted = data
    workspace = Trained(
        samples=write_parts(folder / "samples", dataset, table),
        repairs=write_parts(folder / "repairs", dataset, table.slice(0, 0)),
        shards=folder / "shards",
        network=folder / "network.json",
        weights=folder / "best.safetensors",
        preprocessor=folder / "preprocessor.json",
    )
    label = np.array([dataset.classes.index(name) for name in table["label"].to_pylist()], np.int32)
    ids = np.array([list(bytes.fromhex(key)) for key in table["sample_id"].to_pylist()], np.uint8)
    fields = {
        "x": Field.array(x.dtype, x.shape[1:]),
        "label": Field.array("int32"),
        "weight": Field.array("float32"),
        "draw": Field.array("float32"),
        "sample_id": Field.array("uint8", (16,)),
    }
    for split, (start, stop) in bounds.items():
        ones = np.ones(stop - start, np.float32)
        with ShardWriter(workspace.shards / split, split=split, dataset=dataset, fields=fields) as writer:
            rows = slice(start, stop)
            writer.write({"x": x[rows], "label": label[rows], "weight": ones, "draw": ones, "sample_id": ids[rows]})
    files.write_json(workspace.network, spec.model_dump(mode="json"))
    save_preprocessor(fitted, workspace.preprocessor)
    save_file(_fit(spec, x=x[:40], label=label[:40], steps=steps), workspace.weights)
    return workspace


def _fit(spec: NetworkSpec, *, x: NDArray[np.generic], label: NDArray[np.int32], steps: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = build(spec)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    targets = torch.from_numpy(label.astype(np.int64))
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(to_input(x)), targets).backward()
        optimizer.step()
    return {name: value.contiguous() for name, value in network.state_dict().items()}
