"""The networks that train offers: a specification that is stored as JSON, and what it builds.

A network takes the rows of a shard as they are (pixels from 0 to 255) and normalises inside, so that nobody who uses it
can normalise differently.
"""

# Shapes: N samples, C channels, H height (px), W width (px), D features, K classes.

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from datamill.errors import DataError, ParamsError
from datamill.networks.cnn import ConvNet, stage_widths
from datamill.networks.mlp import MultilayerPerceptron

__all__ = ["NetworkSpec", "build", "count_parameters", "design", "load_network", "read_spec", "to_input"]


class NetworkSpec(BaseModel):
    """Everything needed to build a network; with its weights it is a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    kind: Literal["cnn", "mlp"]
    shape: tuple[int, ...]
    """One sample as shards store it: (H, W, C) uint8 or (D,) float32."""
    classes: tuple[str, ...] = Field(min_length=1)
    """Class names in the order of the logits."""
    widths: tuple[int, ...] = Field(min_length=1)
    """Channels of the stem and of each stage (cnn), or units of each hidden layer (mlp)."""
    depth: int = Field(ge=0)
    """Residual convolutions per stage (cnn); number of hidden layers (mlp)."""
    dropout: float = Field(ge=0, lt=1)
    """Share of features zeroed during training."""
    mean: tuple[float, ...] = ()
    """Mean of each channel of pixel / 255; empty for tables, which shards hold normalised."""
    std: tuple[float, ...] = ()
    """Standard deviation of each channel of pixel / 255."""

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return len(self.classes)

    @property
    def is_image(self) -> bool:
        """Whether samples are images."""
        return len(self.shape) == 3


def design(
    kind: Literal["auto", "cnn", "mlp"],
    *,
    shape: tuple[int, ...],
    classes: tuple[str, ...],
    width: int,
    depth: int,
    dropout: float,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
) -> NetworkSpec:
    """The specification of a network that fits the samples.

    Args:
        kind: ``auto`` takes a CNN for images and an MLP for tables.
        shape: One sample: (H, W, C) or (D,).
        classes: Class names in order.
        width: Channels of the stem, doubled at each stage up to eightfold (cnn); units of each hidden layer (mlp).
        depth: Residual convolutions per stage (cnn); hidden layers (mlp).
        dropout: Share of features zeroed during training.
        mean: Mean of each channel of pixel / 255; empty for tables.
        std: Standard deviation of each channel of pixel / 255.

    Raises:
        ParamsError: A CNN was asked for a table, or a network without a hidden layer.
    """
    is_image = len(shape) == 3
    chosen = ("cnn" if is_image else "mlp") if kind == "auto" else kind
    if chosen == "cnn" and not is_image:
        raise ParamsError(
            f"train.network.kind is 'cnn', but samples have shape {shape}, a table's; use 'mlp' or 'auto'"
        )
    if chosen == "mlp" and depth == 0:
        raise ParamsError("train.network.depth is 0, but an mlp needs at least one hidden layer; use 1 or more")
    widths = stage_widths(height=shape[0], width=shape[1], base=width) if chosen == "cnn" else (width,) * depth
    return NetworkSpec(
        kind=chosen, shape=shape, classes=classes, widths=widths, depth=depth, dropout=dropout, mean=mean, std=std
    )


def build(spec: NetworkSpec) -> nn.Module:
    """A network with fresh weights from torch's global generator.

    It maps what ``to_input`` returns to logits, shape (N, K).
    """
    if spec.kind == "cnn":
        return ConvNet(
            in_channels=spec.shape[2],
            num_classes=spec.num_classes,
            widths=spec.widths,
            depth=spec.depth,
            dropout=spec.dropout,
            mean=spec.mean,
            std=spec.std,
        )
    return MultilayerPerceptron(
        num_features=int(np.prod(spec.shape)),
        num_classes=spec.num_classes,
        widths=spec.widths,
        dropout=spec.dropout,
        mean=spec.mean,
        std=spec.std,
    )


def to_input(x: NDArray[Any], *, device: str | torch.device = "cpu") -> Tensor:
    """Rows of a shard as a network's input, float32: images (N, C, H, W) from 0 to 255, tables (N, D) unchanged."""
    return as_input(torch.from_numpy(np.array(x)).to(device))  # a copy: memory maps are read-only, tensors never are


def as_input(rows: Tensor) -> Tensor:
    """The same for rows that are a tensor already, on any device; float32 rows of a table are not copied."""
    return (rows.permute(0, 3, 1, 2) if rows.ndim == 4 else rows).to(torch.float32)


def count_parameters(network: nn.Module) -> int:
    """Trainable numbers of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def read_spec(path: Path) -> NetworkSpec:
    """The specification in a ``network.json``.

    Raises:
        DataError: The file is missing or damaged.
    """
    try:
        return NetworkSpec.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; run train, or dvc pull") from error
    except ValidationError as error:
        raise DataError(f"{path} is no network specification: {error.errors()[0]['msg']}; run train again") from error


def load_network(network_json: Path, weights: Path) -> nn.Module:
    """A trained network on the CPU, in evaluation mode.

    Raises:
        DataError: A file is missing or damaged, or the weights belong to another network.
    """
    network = build(read_spec(network_json))
    try:
        network.load_state_dict(load_file(weights))
    except FileNotFoundError as error:
        raise DataError(f"{weights} is missing; run train, or dvc pull") from error
    except SafetensorError as error:
        raise DataError(f"{weights} is damaged ({error}); run train again") from error
    except RuntimeError as error:
        raise DataError(f"{weights} does not fit {network_json}: {error}; run train again") from error
    return network.eval()
