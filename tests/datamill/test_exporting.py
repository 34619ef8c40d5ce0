"""ONNX models."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from datamill.errors import StageError
from datamill.exporting import (
    Parity,
    check_parity,
    require_parity,
    to_onnx,
)
from datamill.inference import open_session
from datamill.networks import load_network
from tests.trained import train_images, train_tables


def test_the_model_agrees_with_torch_for_every_batch_size(tmp_path: Path) -> None:
    workspace = train_images(tmp_path)
    network = load_network(workspace.network, workspace.weights)
    session = open_session(to_onnx(network, shape=(1, 8, 8)).SerializeToString(), num_threads=1)
    for batch_size in (1, 5, 64):
        parity = check_parity(session, network=network, shard=workspace.shard("test"), batch_size=batch_size)
        assert parity.samples == 14
        assert parity.max_difference < 1e-5
        assert parity.agreement == 1.0


def test_equal_networks_give_equal_bytes_that_name_no_file(tmp_path: Path) -> None:
    workspace = train_tables(tmp_path)
    models = [
        to_onnx(load_network(workspace.network, workspace.weights), shape=(2,)).SerializeToString(deterministic=True)
        for _ in range(2)
    ]
    assert models[0] == models[1]
    assert b".py" not in models[0]
    assert str(Path(__file__).parents[2]).encode() not in models[0]


def test_the_interface_of_the_model_is_named_and_its_batch_is_free() -> None:
    model = to_onnx(nn.Linear(2, 3).eval(), shape=(2,))
    (given,) = model.graph.input
    assert given.name == "input"
    assert given.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [output.name for output in model.graph.output] == ["logits", "probabilities"]
    onnx.checker.check_model(model)


def test_a_network_that_onnx_cannot_express_is_a_clear_error() -> None:
    class Eigen(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(x @ x.T).real[:, None]

    with pytest.raises(StageError, match="the network cannot be written as ONNX"):
        to_onnx(Eigen(), shape=(2,))


def test_too_large_a_difference_is_refused() -> None:
    with pytest.raises(
        StageError, match=r"up to 0.25 .* over 8 test samples .*export.max_difference 0.001; nothing was"
    ):
        require_parity(Parity(samples=8, max_difference=0.25, agreement=0.5), max_difference=1e-3)
    with pytest.raises(StageError, match="up to nan"):
        require_parity(Parity(samples=8, max_difference=float("nan"), agreement=0.5), max_difference=1e-3)
    require_parity(Parity(samples=8, max_difference=1e-3, agreement=1.0), max_difference=1e-3)


def test_a_probability_that_is_no_number_is_a_difference(tmp_path: Path) -> None:
    shard = train_tables(tmp_path, steps=1).shard("test")
    broken = nn.Linear(2, 3).eval()
    nn.init.constant_(broken.weight, float("nan"))
    session = open_session(to_onnx(nn.Linear(2, 3).eval(), shape=(2,)).SerializeToString(), num_threads=1)
    assert np.isnan(check_parity(session, network=broken, shard=shard, batch_size=5).max_difference)
