from pathlib import Path

import numpy as np
import pytest
import torch

from datamill import files
from datamill.errors import DataError, ParamsError
from datamill.networks import NetworkSpec, build, count_parameters, design, load_network, read_spec, to_input
from datamill.networks.cnn import stage_widths
from datamill.training.checkpoint import save_tensors

CLASSES = ("a", "b", "c")


def image_spec(shape: tuple[int, int, int] = (8, 8, 1), *, depth: int = 1) -> NetworkSpec:
    channels = shape[2]
    mean, std = (0.5,) * channels, (0.25,) * channels
    return design("auto", shape=shape, classes=CLASSES, width=4, depth=depth, dropout=0.1, mean=mean, std=std)


def table_spec() -> NetworkSpec:
    return design("auto", shape=(5,), classes=CLASSES, width=8, depth=2, dropout=0.1)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(3, 4, (8,)), (8, 8, (8, 16)), (28, 28, (8, 16, 32, 64)), (64, 5, (8, 16, 32, 64, 64))],
)
def test_stages_halve_the_image_to_4_px_and_widen_up_to_eightfold(
    height: int, width: int, expected: tuple[int, ...]
) -> None:
    assert stage_widths(height=height, width=width, base=8) == expected


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 3), (8, 8, 1), (28, 28, 1), (33, 17, 3)])
def test_a_cnn_takes_images_of_any_size(shape: tuple[int, int, int]) -> None:
    logits = build(image_spec(shape))(to_input(np.zeros((2, *shape), np.uint8)))
    assert logits.shape == (2, 3)


def test_auto_takes_an_mlp_for_tables() -> None:
    spec = table_spec()
    assert (spec.kind, spec.widths, spec.mean) == ("mlp", (8, 8), ())
    assert build(spec)(to_input(np.zeros((1, 5), np.float32))).shape == (1, 3)


def test_an_mlp_takes_images_when_asked() -> None:
    spec = design("mlp", shape=(4, 4, 3), classes=CLASSES, width=8, depth=1, dropout=0, mean=(0.5,) * 3, std=(0.2,) * 3)
    assert build(spec)(to_input(np.zeros((2, 4, 4, 3), np.uint8))).shape == (2, 3)


def test_a_cnn_for_a_table_is_refused() -> None:
    with pytest.raises(
        ParamsError, match=r"kind is 'cnn', but samples have shape \(5,\), a table's; use 'mlp' or 'auto'"
    ):
        design("cnn", shape=(5,), classes=CLASSES, width=8, depth=1, dropout=0)


def test_an_mlp_without_layers_is_refused() -> None:
    with pytest.raises(ParamsError, match="depth is 0, but an mlp needs at least one hidden layer"):
        design("mlp", shape=(5,), classes=CLASSES, width=8, depth=0, dropout=0)


def test_parameters_are_counted() -> None:
    network = build(design("mlp", shape=(5,), classes=CLASSES, width=8, depth=1, dropout=0))
    assert count_parameters(network) == (5 * 8 + 8) + (8 + 8) + (8 * 3 + 3)


def test_images_become_channels_first_with_raw_values() -> None:
    x = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)
    tensor = to_input(x)
    assert (tensor.shape, tensor.dtype) == ((2, 3, 2, 3), torch.float32)
    assert tensor[1, 2, 0, 1] == x[1, 0, 1, 2]


def test_input_is_a_copy() -> None:
    x = np.zeros((1, 5), np.float32)
    x.flags.writeable = False
    to_input(x)[0, 0] = 1
    assert x[0, 0] == 0


def test_the_first_layer_normalises_pixels() -> None:
    normalise = build(image_spec()).normalise
    pixels = torch.full((1, 1, 2, 2), 255.0)
    torch.testing.assert_close(normalise(pixels), torch.full((1, 1, 2, 2), 2.0))  # (1 - 0.5) / 0.25


def test_a_channel_that_never_varies_is_only_centred() -> None:
    spec = design("auto", shape=(8, 8, 1), classes=CLASSES, width=4, depth=1, dropout=0, mean=(1.0,), std=(0.0,))
    assert torch.isfinite(build(spec).normalise(torch.zeros(1, 1, 8, 8))).all()


def test_residual_blocks_start_as_the_identity() -> None:
    torch.manual_seed(0)
    network = build(image_spec(depth=2)).eval()
    x = torch.rand(2, 8, 4, 4)
    torch.testing.assert_close(network.trunk[2](x), x)


def test_every_weight_learns() -> None:
    torch.manual_seed(0)
    network = build(image_spec(depth=2))
    x = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), dtype=np.uint8)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):  # the first step opens the residual branches, the second reaches what is in them
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(to_input(x)), torch.arange(16) % 3).backward()
        optimizer.step()
    assert [name for name, weight in network.named_parameters() if not weight.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("spec", [image_spec(), table_spec()], ids=["cnn", "mlp"])
def test_a_stored_network_gives_the_same_logits(tmp_path: Path, spec: NetworkSpec) -> None:
    network = build(spec).eval()
    files.write_json(tmp_path / "network.json", spec.model_dump(mode="json"))
    save_tensors(tmp_path / "best.safetensors", network.state_dict())
    x = to_input(np.ones((3, *spec.shape), np.uint8 if spec.is_image else np.float32))
    loaded = load_network(tmp_path / "network.json", tmp_path / "best.safetensors")
    assert not loaded.training
    assert read_spec(tmp_path / "network.json") == spec
    torch.testing.assert_close(loaded(x), network(x), rtol=0, atol=0)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    files.write_json(tmp_path / "network.json", table_spec().model_dump(mode="json"))
    save_tensors(tmp_path / "best.safetensors", build(image_spec()).state_dict())
    with pytest.raises(DataError, match=r"best\.safetensors does not fit .*network\.json"):
        load_network(tmp_path / "network.json", tmp_path / "best.safetensors")


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"network\.json is missing; run train, or dvc pull"):
        load_network(tmp_path / "network.json", tmp_path / "best.safetensors")
    files.write_json(tmp_path / "network.json", table_spec().model_dump(mode="json"))
    with pytest.raises(DataError, match=r"best\.safetensors is missing"):
        load_network(tmp_path / "network.json", tmp_path / "best.safetensors")
    (tmp_path / "best.safetensors").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"best\.safetensors is damaged"):
        load_network(tmp_path / "network.json", tmp_path / "best.safetensors")
    (tmp_path / "network.json").write_text("{}")
    with pytest.raises(DataError, match=r"network\.json is no network specification: Field required"):
        read_spec(tmp_path / "network.json")
